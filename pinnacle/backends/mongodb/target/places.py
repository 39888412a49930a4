"""What proves that the place of an output is pinnacle's to write, and to take away.

Who may write the registry of outputs could have it name any field or collection of the user's. So the name of an
index says once more where an output is, and whether pinnacle made that place or was told to fill it: to write
documents is not enough to make one. It is over nothing, and stands in a collection of its own beside the registry.
"""

from __future__ import annotations

import json
from hashlib import sha256

from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.rows import OutputInfo

PLACE_PREFIX = "pinnacle_place_"


def say_place(wire: Wire, info: OutputInfo, *, made: bool) -> None:
    """Prove that an output is at its place and at no other, and whether pinnacle ``made`` that."""
    collection, wanted = _collection(wire, info.id), _name(info, made=made)
    told = {"collection": info.table, "path": info.name, "model": info.model, "made": made}
    collection.replace_one({"_id": 0}, {"_id": 0, **told}, upsert=True)
    for name in collection.index_names():
        if name.startswith("pinnacle_") and name != wanted:
            collection.drop_index(name)
    collection.create_index([(wanted, 1)], partial={wanted: {"$exists": True}}, name=wanted)


def is_proven(wire: Wire, info: OutputInfo) -> bool:
    """Whether pinnacle made the place of an output, or was told to fill it, with this model and of these fields."""
    found = _collection(wire, info.id).index_names()
    return any(_name(info, made=made) in found for made in (True, False))


def is_made(wire: Wire, info: OutputInfo) -> bool:
    """Whether pinnacle made the place of an output."""
    return _name(info, made=True) in _collection(wire, info.id).index_names()


def forget_place(wire: Wire, output: int) -> None:
    """Take back what `say_place` says."""
    _collection(wire, output).drop()


def _collection(wire: Wire, output: int) -> StoredCollection:
    return wire.collection(f"{PLACE_PREFIX}{output}")


def _name(info: OutputInfo, *, made: bool) -> str:
    place = [info.table, info.name, info.side is not None, info.model, info.fields.to_json()]
    digest = sha256(json.dumps(place, sort_keys=True).encode("ascii")).hexdigest()[:32]
    return f"pinnacle_{'made' if made else 'adopted'}_{digest}"
