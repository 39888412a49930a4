"""The work of one listener: a document for each row that waits, under the row's own ``_id``.

``s`` is its place in the queue, which stays when the row changes again, and ``r`` the revision
of its newest change; both are unlike all others that this listener gave. What is cleared is
cleared by both, so that a change that came meanwhile stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.int64 import Int64

from pinnacle.backends.mongodb.changes.listener_registry import ListenerRegistry
from pinnacle.backends.mongodb.wire.keys import key_identity
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Update, Wire
from pinnacle.base.rows import Key

WORK_PREFIX = "pinnacle_work_"
KEYS_A_STATEMENT = 10_000
FLOOR_S = 5.0
"""How long the lowest place seen may serve as the start of claims: what was cleared since is not walked over."""


def work_table(output: int) -> str:
    """The collection of one listener's work."""
    return f"{WORK_PREFIX}{output}"


WorkDocument = dict[str, Any]


@dataclass
class WorkQueue:
    """The rows that wait for one listener."""

    wire: Wire
    listeners: ListenerRegistry
    output: int
    _floor: int = field(default=0, init=False)
    _floor_at: float = field(default=float("-inf"), init=False)

    @property
    def table(self) -> str:
        return work_table(self.output)

    def create(self) -> None:
        self.wire.create(self.table)
        self._documents.create_index([("s", 1), ("_id", 1), ("r", 1)])

    def drop(self) -> None:
        self._documents.drop()

    def add(self, keys: Sequence[Key]) -> None:
        """Queue rows, each with a new revision; durable when it returns. Nothing where the listener is gone."""
        distinct = list({key_identity(key): key for key in keys}.values())
        for part in _parts(distinct):
            if documents := self.numbered(part):
                self.put(documents)

    def numbered(self, keys: Sequence[Key], first: int | None = None) -> list[WorkDocument]:
        """The documents of rows that are to be queued, each with a new revision; none where the listener is gone.

        ``first``: the first of their revisions, where these were reserved.
        """
        first = self.listeners.next_revisions(self.output, len(keys)) if first is None else first
        if first is None:
            return []
        now = time.time()
        return [{"_id": key, "s": Int64(first + i), "r": Int64(first + i), "at": now} for i, key in enumerate(keys)]

    def put(self, documents: Sequence[WorkDocument]) -> None:
        """Queue documents; durable when it returns. Rows that wait already get the new revisions."""
        # An update that inserts looks for its place among all that was deleted lately: it comes second.
        waiting = self.wire.insert_missing(self.table, documents)
        if waiting:
            self.wire.update(self.table, [self._revised(documents[position]) for position in waiting])

    @staticmethod
    def _revised(document: dict[str, Any]) -> Update:
        change = {"$set": {"r": document["r"]}, "$setOnInsert": {"s": document["s"], "at": document["at"]}}
        return Update({"_id": document["_id"]}, change, upsert=True)

    def first(self, limit: int) -> list[tuple[Key, int, int]]:
        """Those that wait the longest, with their places and revisions."""
        condition = {"s": {"$gte": Int64(self._lowest())}}
        names = {"_id": 1, "s": 1, "r": 1}
        found = self.wire.documents(self.table, condition, names, sort=[("s", 1)], limit=limit)
        return [(document["_id"], int(document["s"]), int(document["r"])) for document in found]

    def _lowest(self) -> int:
        if time.monotonic() - self._floor_at > FLOOR_S:
            lowest = self._documents.find_one({}, {"_id": 0, "s": 1}, sort=[("s", 1)])
            self._floor = int(lowest["s"]) if lowest else 0
            self._floor_at = time.monotonic()
        return self._floor

    def reach(self, place: int) -> None:
        """Have claims begin no higher than at this place, which was reserved before others were given."""
        self._floor = min(self._floor, place)

    def clear(self, rows: Sequence[tuple[int, int]]) -> None:
        """Take rows out, by place and revision."""
        for part in _parts(rows):
            places, revisions = ([Int64(number) for number in column] for column in zip(*part, strict=True))
            self.wire.delete(self.table, {"s": {"$in": places}, "r": {"$in": revisions}}, durable=False)

    def defer(self, places: Sequence[int]) -> None:
        """Put rows behind all others."""
        first = self.listeners.next_revisions(self.output, len(places))
        if first is None:
            return
        moved = [Update({"s": Int64(place)}, {"$set": {"s": Int64(first + i)}}) for i, place in enumerate(places)]
        self.wire.update(self.table, moved)

    def is_empty(self) -> bool:
        return self._documents.find_one({}, {"_id": 1}) is None

    def count(self) -> tuple[int, float | None]:
        """How many rows wait, and since when the first of them does."""
        total = self._documents.count({})
        oldest = self._documents.find_one({}, {"at": 1}, sort=[("s", 1)])
        return total, float(oldest["at"]) if oldest else None

    @property
    def _documents(self) -> StoredCollection:
        return self.wire.collection(self.table)


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), KEYS_A_STATEMENT):
        yield items[start : start + KEYS_A_STATEMENT]
