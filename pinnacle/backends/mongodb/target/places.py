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

PLACE_PREFIX = "pinnacle_place_"


def say_place(wire: Wire, output: int, table: str, path: str, *, is_side: bool, made: bool) -> None:
    """Prove that an output is at this place and at no other, and whether pinnacle ``made`` it."""
    collection = _collection(wire, output)
    collection.replace_one({"_id": 0}, {"_id": 0, "collection": table, "path": path, "made": made}, upsert=True)
    wanted = _name(table, path, is_side=is_side, made=made)
    for name in collection.index_names():
        if name.startswith("pinnacle_") and name != wanted:
            collection.drop_index(name)
    collection.create_index([(wanted, 1)], partial={wanted: {"$exists": True}}, name=wanted)


def is_proven(wire: Wire, output: int, table: str, path: str, *, is_side: bool) -> bool:
    """Whether pinnacle made this place for an output, or was told to fill it."""
    found = _collection(wire, output).index_names()
    return any(_name(table, path, is_side=is_side, made=made) in found for made in (True, False))


def is_made(wire: Wire, output: int, table: str, path: str, *, is_side: bool) -> bool:
    """Whether pinnacle made this place for an output."""
    return _name(table, path, is_side=is_side, made=True) in _collection(wire, output).index_names()


def forget_place(wire: Wire, output: int) -> None:
    """Take back what `say_place` says."""
    _collection(wire, output).drop()


def _collection(wire: Wire, output: int) -> StoredCollection:
    return wire.collection(f"{PLACE_PREFIX}{output}")


def _name(table: str, path: str, *, is_side: bool, made: bool) -> str:
    digest = sha256(json.dumps([table, path, is_side]).encode("ascii")).hexdigest()[:32]
    return f"pinnacle_{'made' if made else 'adopted'}_{digest}"
