"""Which of the changes that the stream tells of are this process's own, so that it need not read them back.

Each output that a worker writes comes back as one event. Events of a document are counted,
not compared: as many as it was written to here say nothing new, whichever of them are ours,
for the last of those by others is then one too many, or was there before the last of ours.
Only a write that surely changed the document counts, and only one whose row is still in
the work: until the write has ended, what the stream told of its rows is in memory alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pinnacle.backends.mongodb.wire.keys import key_identity
from pinnacle.base import forks
from pinnacle.base.rows import Key

MAX_AWAITED = 1_000_000


@dataclass
class OwnWrite:
    """One command on its way: how many events each of its rows has met so far.

    ``is_exact``: it changed each of its rows, which whoever ran it says. ``disturbed``, once
    it has ended: the identities of the rows that others may have written to meanwhile.
    """

    output: int
    met: dict[Any, int]
    era: int
    is_exact: bool = False
    disturbed: set[Any] = field(default_factory=set)


class OwnWrites:
    """The outputs that this process wrote, and whose events its reader has yet to meet."""

    def __init__(self) -> None:
        self._lock = forks.lock()
        self._era, self._is_reading = 0, False
        self._awaited: dict[tuple[int, Any], int] = {}
        self._under_way: list[OwnWrite] = []

    def begin_era(self, *, is_reading: bool) -> None:
        """From now on events are met by this process (``is_reading``), or not; those of earlier writes may be not."""
        with self._lock:
            self._era, self._is_reading = self._era + 1, is_reading
            self._awaited.clear()

    @contextmanager
    def of(self, output: int, keys: Sequence[Key]) -> Iterator[OwnWrite]:
        """Around one command that writes an output of these rows."""
        write = OwnWrite(output, {key_identity(key): 0 for key in keys}, self._era)
        with self._lock:
            self._under_way.append(write)
        try:
            yield write
        finally:
            with self._lock:
                self._under_way.remove(write)
                self._end(write)

    def _end(self, write: OwnWrite) -> None:
        is_counted = write.is_exact and write.era == self._era and self._is_reading
        write.disturbed = {identity for identity, count in write.met.items() if count > int(is_counted)}
        if not is_counted:
            return
        if len(self._awaited) > MAX_AWAITED:  # what is not known to be ours is looked at
            self._awaited.clear()
        for identity, count in write.met.items():
            if not count:
                place = write.output, identity
                self._awaited[place] = self._awaited.get(place, 0) + 1

    def meet(self, output: int, identity: Any) -> bool:
        """Whether an event of a row is taken for one of ours, or for that of a write that will tell of it."""
        with self._lock:
            awaited = self._awaited.get((output, identity), 0)
            if awaited:
                if awaited > 1:
                    self._awaited[output, identity] = awaited - 1
                else:
                    del self._awaited[output, identity]
                return True
            for write in self._under_way:
                if write.output == output and identity in write.met:
                    write.met[identity] += 1
                    return True
            return False
