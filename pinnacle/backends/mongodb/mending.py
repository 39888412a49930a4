"""Makes collections of pinnacle's again that were dropped by hand, and clears what others remember of what they held.

No call fails for a collection that is not there, and MongoDB makes it with the first document: but its
indexes would be missing, and the others would take what they have for more than it is.
"""

from __future__ import annotations

import re

from pinnacle.backends.mongodb import migrations
from pinnacle.backends.mongodb.changes.listener_registry import LISTENERS
from pinnacle.backends.mongodb.changes.queue import WORK_PREFIX
from pinnacle.backends.mongodb.stores.artifacts import CHUNKS
from pinnacle.backends.mongodb.stores.ledger import BATCHES
from pinnacle.backends.mongodb.stores.runs import METRICS
from pinnacle.backends.mongodb.stores.seals import COMPONENTS
from pinnacle.backends.mongodb.target.leases import LEASES
from pinnacle.backends.mongodb.target.output_registry import REGISTRY, STATE_PREFIX
from pinnacle.backends.mongodb.target.places import PLACE_PREFIX
from pinnacle.backends.mongodb.target.row_errors import ERRORS
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.listeners import NO_VERSION, UNDEFINED, new_sweep
from pinnacle.base.told import logger

log = logger(__name__)

TELLING = (REGISTRY, COMPONENTS, LISTENERS, ERRORS)
"""The collections that others refer to; each has an index, and so is there from the first migration on."""


FIRST = frozenset({REGISTRY, COMPONENTS, CHUNKS, LEASES, ERRORS})
"""What the first migration makes, one after the other, before it is recorded."""


def mend(wire: Wire) -> None:
    """Look for collections that somebody dropped, before migrations make them."""
    if not _lost(set(wire.names())):
        return
    is_pending = bool(migrations.pending(wire))
    names = set(wire.names())  # anew: a process that was at its first migrations may have ended them since
    lost = _lost(names)
    if not lost or (is_pending and _is_being_made(names)):
        return
    for migration in migrations.ALL:
        migration.run(wire)
    if REGISTRY in lost and _is_empty(wire, REGISTRY):
        _forget_outputs(wire)
    if LISTENERS in lost and _is_empty(wire, LISTENERS):
        _drop(wire, WORK_PREFIX)
    if COMPONENTS in lost and _is_empty(wire, COMPONENTS):
        _forget_definitions(wire)
    if ERRORS in lost and _is_empty(wire, ERRORS):
        _try_failed_again(wire)
    log.error(
        "pinnacle's collections %s were dropped by hand; they were made again, empty. Add models and listeners again "
        "where these are gone", ", ".join(lost),
    )  # fmt: skip


def _lost(names: set[str]) -> list[str]:
    """Those of `TELLING` that are not there; none where none of them is."""
    lost = [name for name in TELLING if name not in names]
    return [] if len(lost) == len(TELLING) else lost


def _is_being_made(names: set[str]) -> bool:
    """Whether a process may be at the first migrations just now; else somebody dropped the record of them, too."""
    own = set(migrations.own_among(names))
    return migrations.MIGRATIONS in own or own <= FIRST


def _is_empty(wire: Wire, name: str) -> bool:
    return wire.collection(name).find_one({}) is None


def _forget_outputs(wire: Wire) -> None:
    _drop(wire, STATE_PREFIX, WORK_PREFIX, PLACE_PREFIX)
    for name in (LISTENERS, LEASES, ERRORS, BATCHES):
        wire.collection(name).delete_many({})


def _forget_definitions(wire: Wire) -> None:
    """Versions are counted anew: what is recorded of the old ones is of none, and the next are computed anew."""
    wire.collection(METRICS).delete_many({})
    wire.collection(REGISTRY).update_many({}, {"$set": {"version": NO_VERSION}})
    wire.collection(LISTENERS).update_many({}, {"$set": {"version": NO_VERSION, "paused": UNDEFINED}})
    for name in _numbered(wire, STATE_PREFIX):
        wire.collection(name).update_many({}, {"$set": {"v": NO_VERSION, "h": b""}})  # of which no row is


def _try_failed_again(wire: Wire) -> None:
    wire.collection(LISTENERS).update_many({}, {"$set": {"sweep": new_sweep()}})
    for name in _numbered(wire, STATE_PREFIX):
        wire.collection(name).delete_many({"f": True})


def _drop(wire: Wire, *prefixes: str) -> None:
    for name in _numbered(wire, *prefixes):
        wire.collection(name).drop()


def _numbered(wire: Wire, *prefixes: str) -> list[str]:
    return list(filter(re.compile(f"({'|'.join(prefixes)})[0-9]+").fullmatch, wire.names()))
