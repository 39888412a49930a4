"""What waits for a listener: for those that wait until nothing does, and for `pinnacle status`."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from bson.timestamp import Timestamp

from pinnacle.backends.mongodb.changes.listener_registry import ListenerRegistry
from pinnacle.backends.mongodb.changes.queue import WorkQueue
from pinnacle.backends.mongodb.changes.reader import ChangeReader
from pinnacle.backends.mongodb.target.leases import Leases
from pinnacle.backends.mongodb.wire.clock import ServerClock
from pinnacle.base.listeners import Backlog

SWEEP_EVERY_S = 2.0
"""How long after a sweep ended the next one begins, where nobody tells of changes."""


class Backlogs(ABC):
    """The work of any listener of one database, and whether there may be changes that are no work yet.

    Of the latter nobody keeps a list: whoever asks is told to ask again until all that was
    committed before the first question has been looked at.
    """

    def __init__(self, listeners: ListenerRegistry, clock: ServerClock) -> None:
        self._wire, self._listeners, self._clock = listeners.wire, listeners, clock

    def has_work(self, output: int) -> bool:
        if self._has_unseen(output) or not self._work(output).is_empty():
            return True
        self._forget(output)
        return False

    def backlog(self, output: int) -> Backlog:
        """What waits; changes that no worker has read yet are not counted, as nobody knows how many they are."""
        count, since = self._work(output).count()
        in_flight = Leases(self._wire, output, self._clock).in_flight()
        return Backlog(
            changes=0,
            work=count,
            in_flight=in_flight,
            oldest_s=max(0.0, time.time() - since) if since is not None else 0.0,
        )

    def _work(self, output: int) -> WorkQueue:
        return WorkQueue(self._wire, self._listeners, output)

    @abstractmethod
    def _has_unseen(self, output: int) -> bool:
        """Whether there may be changes from before the first question that are not in the work yet."""

    @abstractmethod
    def _forget(self, output: int) -> None:
        """The next question is the first of another series."""


class StreamBacklogs(Backlogs):
    """Where changes are read from the change stream."""

    def __init__(self, listeners: ListenerRegistry, clock: ServerClock, reader: ChangeReader) -> None:
        super().__init__(listeners, clock)
        self._reader = reader
        self._asked: dict[int, Timestamp] = {}

    def _has_unseen(self, output: int) -> bool:
        if output not in self._asked and (now := self._wire.operation_time()) is not None:
            self._asked[output] = now
        return output in self._asked and not self._reader.has_passed(self._asked[output])

    def _forget(self, output: int) -> None:
        self._asked.pop(output, None)


class SweptBacklogs(Backlogs):
    """Where changes are found by sweeps: one that begins after the first question answers it."""

    def __init__(self, listeners: ListenerRegistry, clock: ServerClock) -> None:
        super().__init__(listeners, clock)
        self._asked_at: dict[int, float] = {}

    def _has_unseen(self, output: int) -> bool:
        asked_at = self._asked_at.setdefault(output, time.time())
        entry = self._listeners.entry(output)
        if entry is None:
            return False
        if entry["sweep"] is None and entry["asked_at"] < asked_at:
            self._listeners.request_sweep_where_none_is_due(output)
            return True
        return entry["sweep"] is not None

    def _forget(self, output: int) -> None:
        self._asked_at.pop(output, None)


def is_sweep_due(entry: Any) -> bool:
    """Whether rows that may have changed are to be swept: some time after the last sweep, or once written to."""
    if entry["sweep"] is not None or entry["paused"] is not None:
        return False
    return bool(time.time() - entry["swept_at"] > SWEEP_EVERY_S or entry["changed_at"] > entry["asked_at"])
