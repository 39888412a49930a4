"""The feed of one listener: its work, and how changes become work.

A replica set tells of changes by its change stream, read by one process for all. A
standalone server and mongomock tell nobody: a sweep compares all rows with their
fingerprints every two seconds, and on mongomock at once after this process wrote through
`db.execute`; writes through a mongomock object of the user's own wait for the next sweep.
Work is written before output is and taken away after it, each step by itself: a crash in
between leaves rows to be looked at once more.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pinnacle.backends.mongodb.changes.backlogs import is_sweep_due
from pinnacle.backends.mongodb.changes.few_rows import FewRows
from pinnacle.backends.mongodb.changes.listener_registry import LISTENERS, ListenerRegistry
from pinnacle.backends.mongodb.changes.queue import WorkQueue
from pinnacle.backends.mongodb.changes.reader import RESERVED, ChangeReader
from pinnacle.backends.mongodb.target.side_collection import SideCollection
from pinnacle.backends.mongodb.target.target import MongoTarget
from pinnacle.backends.mongodb.wire.keys import key_identity
from pinnacle.base.errors import ConfigError
from pinnacle.base.failpoints import failpoint
from pinnacle.base.listeners import Claim, Taken, Watch
from pinnacle.base.rows import Key, OutputBatch, Page

LOOK_S = 1.0
"""How often all that waits is looked at, while rows come one by one."""


def check_watch(watch: Watch) -> None:
    """Refuse what only triggers can do."""
    if watch.clears:
        raise ConfigError(
            "on_change='clear' needs triggers, which MongoDB has not: the old value stays until the new one is "
            "written. Leave it out, or clear the field yourself in the update that changes the input"
        )
    if watch.replicated:
        raise ConfigError(
            "replicated=True is for PostgreSQL: MongoDB's change stream tells of all changes, however they came; leave "
            "it out"
        )


class MongoFeed(ABC):
    """See `Feed`. Subclasses know how changes are found."""

    def __init__(self, target: MongoTarget, listeners: ListenerRegistry, reads: Sequence[str]) -> None:
        self.target, self.listeners, self.number = target, listeners, target.info.id
        self._table, self._reads = target.source.table, list(reads)
        self._wire = target.wire
        self._work = WorkQueue(self._wire, listeners, self.number)
        side = target.info.side
        self._side = None if side is None else SideCollection(self._wire, self._table, side)

    # -- capture -----------------------------------------------------------------------------------

    def plan(self) -> list[str]:
        watched = ", ".join(map(repr, [*self.target.info.fields.paths, *filter(None, self._reads)]))
        side = "" if self._side is None else f", and the items in {self._side.name!r}"
        return [
            f"insert into {LISTENERS}: watch {watched} of {self._table!r}{side}",
            "create collection pinnacle_work_<id>",
            "create index on pinnacle_work_<id> (s, _id, r)",
        ]

    def install(self) -> None:
        """Make the collection of the work, and record what is watched; since when, the registration has done."""
        self._work.create()
        shape = {
            "reads": self._reads, "parameters": self.target.info.parameters, "uuid": self._wire.uuids().get(self._table)
        }  # fmt: skip
        self.listeners.set(self.number, shape=shape)

    def verify(self) -> str | None:
        """Why the listener cannot go on: its collection has another name now.

        One that was dropped may come again; when it has, all its documents are looked at. A
        side collection that was dropped is made again.
        """
        entry = self.listeners.entry(self.number)
        known, uuids = entry and entry["shape"].get("uuid"), self._wire.uuids()
        if entry is not None and self._side is not None and self._side.name not in uuids:
            self._side.create()
        found = uuids.get(self._table)
        if entry is None or known == found:
            return None
        if found is not None:
            self.listeners.set(self.number, shape={**entry["shape"], "uuid": found})
            self.listeners.request_sweeps([self.number])
            return None
        renamed = next((name for name, uuid in uuids.items() if uuid == known), None)
        if not renamed:
            return None
        return (
            f"collection {self._table!r} is gone: it was renamed to {renamed!r}; resume the listener when it is there "
            "again, or remove it"
        )

    # -- work --------------------------------------------------------------------------------------

    @abstractmethod
    def fold(self) -> int: ...

    def enqueue(self, keys: Sequence[Key]) -> None:
        self._work.add(keys)

    def claim(self, owner: str, limit: int, ttl_s: float) -> Claim:
        """The longest-waiting rows that nobody else holds."""
        chosen: list[tuple[Key, int, int]] = []

        def choose(others: set[Any]) -> list[Key]:
            found = self._work.first(limit + len(others))
            free = [row for row in found if key_identity(row[0]) not in others] if others else found
            chosen.extend(free[:limit])
            return [row[0] for row in chosen]

        lease = self.target.leases.lease_work(owner, choose, ttl_s, version=self.target.info.version)
        keys, places, revisions = zip(*chosen, strict=True) if chosen else ((), (), ())
        return Claim(lease=lease, keys=keys, places=places, revisions=revisions)

    def take(self, owner: str, limit: int, ttl_s: float, version: int) -> Taken:
        folded = self.fold()
        claim = self.claim(owner, limit, ttl_s)
        if not claim.keys:
            return Taken(folded=folded)
        entry = self.listeners.entry(self.number)
        is_current = entry is not None and entry["paused"] is None and entry["version"] == version
        if entry is None:
            self._work.clear(list(zip(claim.places, claim.revisions, strict=True)))
        if not is_current:
            self.finish(claim, [], [])
        return Taken(folded=folded, claim=claim, is_current=is_current)

    def settle(self, claim: Claim, batch: OutputBatch) -> bool:
        return False

    def finish(self, claim: Claim, done: Sequence[int], deferred: Sequence[int], kept: Sequence[int] = ()) -> None:
        """Count first: whoever sees the work gone sees as well that outputs were written, which others may read."""
        if not claim.keys:
            return
        if done:
            self._count(len(done))
            self._clear([(claim.places[i], claim.revisions[i]) for i in done])
        failpoint("in-finish")
        if deferred:
            self._work.defer([claim.places[i] for i in deferred])
        self.target.leases.release_work(claim.lease, [claim.keys[i] for i in kept])

    def _count(self, rows: int) -> None:
        self.listeners.count_processed(self.number, rows)

    def _clear(self, rows: Sequence[tuple[int, int]]) -> None:
        """Take rows out of the work, by place and revision."""
        self._work.clear(rows)


class StreamFeed(MongoFeed):
    """Changes come from the change stream."""

    def __init__(
        self, target: MongoTarget, listeners: ListenerRegistry, reads: Sequence[str], reader: ChangeReader
    ) -> None:
        super().__init__(target, listeners, reads)
        self._reader, self._few_rows = reader, FewRows(target)
        self._looked_at = float("-inf")

    def install(self) -> None:
        super().install()
        self._reader.forget_routes()

    def fold(self) -> int:
        """What is in memory alone is put into the work, to be claimed with all else."""
        folded = self._reader.fold(self.number)
        self._reader.put_in(self.number)
        return folded

    def take(self, owner: str, limit: int, ttl_s: float, version: int) -> Taken:
        """By the short way where rows are at hand; now and then all that waits is looked at nonetheless."""
        if time.monotonic() - self._looked_at < LOOK_S:
            rows = self._reader.at_hand(self.number)
            found = self._take_few(owner, rows, ttl_s, version) if 0 < len(rows) <= limit else None
            if found is not None:
                return Taken(folded=len(rows), claim=found[0], page=found[1])
        self._looked_at = time.monotonic()
        return super().take(owner, limit, ttl_s, version)

    def claim(self, owner: str, limit: int, ttl_s: float) -> Claim:
        self.target.tell_of_writes(self._reader.own_writes)
        if (lowest := self._reader.lowest_put_in(self.number)) is not None:
            self._work.reach(lowest)
        return super().claim(owner, limit, ttl_s)

    def _clear(self, rows: Sequence[tuple[int, int]]) -> None:
        """Rows that were never put in are forgotten."""
        places = self._reader.note_done(self.number, [place for place, _ in rows])
        super()._clear([row for row in rows if row[0] in places])

    def _count(self, rows: int) -> None:
        """The same step reserves revisions for the next changes, which then need not ask for theirs."""
        self._reader.reserve(self.number, self.listeners.count_processed(self.number, rows, RESERVED))

    def _take_few(
        self, owner: str, rows: Sequence[tuple[Key, int]], ttl_s: float, version: int
    ) -> tuple[Claim, Page] | None:
        self.target.tell_of_writes(self._reader.own_writes)
        return self._few_rows.take(owner, rows, ttl_s, version)


class SweptFeed(MongoFeed):
    """Changes are found by sweeps."""

    def fold(self) -> int:
        """Ask for the next sweep where it is due. Finds nothing itself."""
        entry = self.listeners.entry(self.number)
        if entry is not None and is_sweep_due(entry):
            self.listeners.request_sweep_where_none_is_due(self.number)
        return 0
