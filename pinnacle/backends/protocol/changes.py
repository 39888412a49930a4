"""Listeners: their registry, the capture of their rows' changes, and the wait for any."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from pinnacle.base.listeners import Backlog, Claim, ListenerRecord, Taken, WorkerStatus
from pinnacle.base.rows import Key, OutputBatch


class Listeners(Protocol):
    """The registry of listeners, each known by the number of the output that it keeps fresh."""

    def all(self) -> list[ListenerRecord]:
        """All listeners, oldest first; none before pinnacle's own tables are there."""

    def register(self, output: int, identifier: str, version: int) -> bool:
        """Record a listener of an output, or its new version; whether it was new.

        Conflict when another listener keeps that output fresh.
        """

    def move(self, output: int, seen: int, version: int) -> bool:
        """Put another version of a listener in the place of the version ``seen``; its capture stays as it is.

        In the same write a sweep is asked for and its error is taken away. False when the
        registry has another version than ``seen``: somebody was faster.
        """

    def remove(self, output: int) -> None:
        """Take a listener's capture away, triggers before tables, and the listener out of the registry."""

    def pause(self, output: int, reason: str) -> None:
        """Have no worker work on a listener; changes are still captured."""

    def resume(self, output: int) -> None:
        """End a pause, and in the same write ask for a sweep: it finds what was missed meanwhile."""

    def request_sweep(self, output: int) -> None:
        """Ask for all rows to be looked at, from the first; takes the place of a sweep that is under way."""

    def advance_sweep(self, output: int, seen: str, now: str | None) -> bool:
        """Move a listener's sweep from ``seen`` to ``now``, None to end it; False when another was asked for."""

    def record_error(self, output: int, message: str) -> None:
        """Show what a listener has failed with, just now."""

    def clear_error(self, output: int) -> None:
        """Show no error any more."""

    def has_work(self, output: int) -> bool:
        """Whether any change or row of work of a listener waits or is in somebody's hands."""

    def attend(self, worker: str, since: float, ttl_s: float) -> None:
        """Have a worker of this process be known as one that lives, for ``ttl_s`` seconds; 0: no more."""

    def workers(self) -> list[WorkerStatus]:
        """The workers that live, the one that began first before others."""

    def backlog(self, output: int) -> Backlog:
        """What waits for a listener, counted."""


class Feed(Protocol):
    """The changes of one listener's rows: captured, folded into work, claimed, cleared."""

    def plan(self) -> list[str]:
        """Every statement `install` would run on a database without it."""

    def install(self) -> None:
        """Make the capture, replacing one of another form. Safe to run again and beside others."""

    def verify(self) -> str | None:
        """Why the listener cannot go on (a watched column is gone or of another type), else None.

        Capture that was lost is made again, and a sweep asked for.
        """

    def fold(self) -> int:
        """Move captured changes into the work, one row a key, a bounded number; how many.

        A change of the whole table (TRUNCATE) asks for a sweep instead.
        """

    def enqueue(self, keys: Sequence[Key]) -> None:
        """Put rows into the captured changes, as if they had been changed."""

    def claim(self, owner: str, limit: int, ttl_s: float) -> Claim:
        """Lease up to ``limit`` rows of work that no live lease holds, longest-waiting first."""

    def take(self, owner: str, limit: int, ttl_s: float, version: int) -> Taken:
        """`fold`, `claim` and the reading of the claimed rows in one go, where these are few; ``version``: the
        listener's, as the registry is to have it."""

    def settle(self, claim: Claim, batch: OutputBatch) -> bool:
        """Write ``batch``, which is all that a claim on few rows has left to do, and `finish` the claim, in one
        transaction.

        False, and nothing is done, where one of its rows is not as it was read or is locked, or where this
        database or output has no such way. Raises what `Target.write` does.
        """

    def finish(self, claim: Claim, done: Sequence[int], deferred: Sequence[int], kept: Sequence[int] = ()) -> None:
        """Take the rows at ``done`` out of the work, unless a newer change came; put those at ``deferred``
        behind all others; give up the lease, but for the rows at ``kept``. One short transaction."""


class Wake(Protocol):
    """Tells a worker that something was written; closed by its worker."""

    def wait(self, timeout_s: float, stop: threading.Event) -> bool:
        """Wait until there may be changes (True), ``stop`` is set, or the time is over."""

    def close(self) -> None: ...
