"""Numbered steps that bring pinnacle's own collections to this version of the package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pinnacle.backends.mongodb.changes.listener_registry import LISTENERS
from pinnacle.backends.mongodb.changes.listeners import WORKERS
from pinnacle.backends.mongodb.changes.queue import WORK_PREFIX
from pinnacle.backends.mongodb.changes.reader import READERS
from pinnacle.backends.mongodb.stores.artifacts import ARTIFACTS, CHUNKS, UPLOADS
from pinnacle.backends.mongodb.stores.ledger import BATCHES, CACHE, USAGE
from pinnacle.backends.mongodb.stores.runs import METRICS, TRAINING
from pinnacle.backends.mongodb.stores.seals import COMPONENTS
from pinnacle.backends.mongodb.target.leases import LEASES
from pinnacle.backends.mongodb.target.output_registry import COUNTERS, REGISTRY, STATE_PREFIX
from pinnacle.backends.mongodb.target.places import PLACE_PREFIX, say_place
from pinnacle.backends.mongodb.target.records import info_of
from pinnacle.backends.mongodb.target.row_errors import ERRORS, HAS_TRACEBACK
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.types import Items, Text

MIGRATIONS, PLACES_SAID = "pinnacle_migration", "pinnacle_places_said"
OWN = (
    COMPONENTS, ARTIFACTS, CHUNKS, UPLOADS, REGISTRY, LEASES, ERRORS, MIGRATIONS, COUNTERS, LISTENERS, READERS, USAGE,
    CACHE, BATCHES, TRAINING, METRICS, WORKERS,
)  # fmt: skip


@dataclass(frozen=True)
class Migration:
    """One step; running it again does no harm, so that two processes may meet in it."""

    number: int
    statements: tuple[str, ...]
    run: Callable[[Wire], None]


def _index_own_collections(wire: Wire) -> None:
    wire.collection(REGISTRY).create_index([("collection", 1), ("path", 1)], unique=True)
    wire.collection(COMPONENTS).create_index([("kind", 1), ("identifier", 1), ("version", 1)], unique=True)
    wire.collection(COMPONENTS).create_index([("artifacts", 1)])
    wire.collection(CHUNKS).create_index([("sha256", 1), ("number", 1)])
    wire.collection(LEASES).create_index([("output", 1), ("run", 1)])
    wire.collection(ERRORS).create_index([("output", 1), ("key", 1)], unique=True)


def _index_listeners(wire: Wire) -> None:
    wire.collection(LISTENERS).create_index([("identifier", 1)], unique=True)


def _index_ledger(wire: Wire) -> None:
    wire.collection(CACHE).create_index([("cached_at", 1)])
    wire.collection(CACHE).create_index([("expires_at", 1)])
    wire.collection(BATCHES).create_index([("output", 1)])
    wire.collection(BATCHES).create_index([("batch", 1)])


def _index_tracebacks(wire: Wire) -> None:
    wire.collection(ERRORS).create_index([("output", 1), ("failed_at", -1)], partial=HAS_TRACEBACK)


def _index_metrics(wire: Wire) -> None:
    wire.collection(METRICS).create_index([("run", 1), ("position", 1)], unique=True)


def _say_places(wire: Wire) -> None:
    """What the registry says of outputs is taken for proven once: that a step was run is said by a document, too."""
    if PLACES_SAID in wire.collection(MIGRATIONS).index_names():
        return
    for entry in wire.collection(REGISTRY).find():
        is_side = isinstance(entry["type"], dict) and entry["type"].get("type") == Items.name
        kind = Items(Text(), many=True) if is_side else Text()  # of which the rest may be a type not known here
        info = info_of({**entry, "type": kind.to_json()})
        say_place(wire, info, made=info.created_column)
    said = {PLACES_SAID: {"$exists": True}}
    wire.collection(MIGRATIONS).create_index([(PLACES_SAID, 1)], partial=said, name=PLACES_SAID)


ALL = (
    Migration(
        1,
        (
            f"create unique index on {REGISTRY} (collection, path)",
            f"create unique index on {COMPONENTS} (kind, identifier, version)",
            f"create index on {COMPONENTS} (artifacts)",
            f"create index on {CHUNKS} (sha256, number)",
            f"create index on {LEASES} (output, run)",
            f"create unique index on {ERRORS} (output, key)",
        ),
        _index_own_collections,
    ),
    Migration(2, (f"create unique index on {LISTENERS} (identifier)",), _index_listeners),
    Migration(
        3,
        (
            f"create index on {CACHE} (cached_at)",
            f"create index on {CACHE} (expires_at)",
            f"create index on {BATCHES} (output)",
            f"create index on {BATCHES} (batch)",
        ),
        _index_ledger,
    ),
    Migration(4, (f"create unique index on {METRICS} (run, position)",), _index_metrics),
    Migration(5, (f"create index on {ERRORS} (output, failed_at) where traceback > ''",), _index_tracebacks),
    Migration(6, (f"create {PLACE_PREFIX}<id> for each output of {REGISTRY}, as proof of its place",), _say_places),
)


def pending(wire: Wire) -> list[Migration]:
    """The steps that this database has not had, in order."""
    applied = {entry["_id"] for entry in wire.collection(MIGRATIONS).find({"applied_at": {"$exists": True}})}
    return [migration for migration in ALL if migration.number not in applied]


def migrate(wire: Wire) -> None:
    """Run the pending steps; a no-op when there are none."""
    for migration in pending(wire):
        migration.run(wire)
        # not new where another process ran the same step just now
        wire.collection(MIGRATIONS).insert_new({"_id": migration.number, "applied_at": datetime.now(UTC)})


def own_collections(wire: Wire) -> list[str]:
    """Pinnacle's own collections that exist here, by exact name; first the one without which none counts as lost."""
    return sorted(sorted(own_among(wire.names())), key=lambda name: name != MIGRATIONS)


def own_among(names: Iterable[str]) -> list[str]:
    """Those of the names that are of pinnacle's own collections."""
    is_numbered = re.compile(rf"({STATE_PREFIX}|{WORK_PREFIX}|{PLACE_PREFIX})\d+").fullmatch
    return [name for name in names if name in OWN or is_numbered(name)]
