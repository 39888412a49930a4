"""Finds rows that would be computed for ever: another program rewrites their input whenever an output is written."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pinnacle.base.errors import RowRejected
from pinnacle.base.rows import Key, Page

SOON_S = 2.0
"""So soon after an output was written a change of its input may be an answer to it."""
FREE_RETURNS = 4
"""A row that came back changed so often, each time soon, is held back from then on: `HOLD_S`, and longer each time."""
MOST_RETURNS = 8
HOLD_S = 1.0
MOST_SEEN = 20_000
IDLE_S = 60.0
"""A row that did not come back for so long is forgotten."""


@dataclass
class _Suspect:
    """A row that came back changed ``returns`` times running. ``written_at``: when its output was, unless it still is
    to be."""

    identity: Any
    returns: int
    seen_at: float
    written_at: float | None = None
    held_until: float | None = None


class Recurrence:
    """What one listener has seen of rows that come back.

    A row that others change for reasons of their own is changed sometimes while it waits, and a row that is held back
    waits long. One that never is, and always is soon after its output was written, is in a loop: it is set aside.
    """

    def __init__(self) -> None:
        self._young: dict[Key, Any] = {}
        self._old: dict[Key, Any] = {}
        self._suspects: dict[Key, _Suspect] = {}
        self._turned_at = time.monotonic()

    def sift(self, page: Page, again: set[Key]) -> Page:
        """The page without rows that are held back, which go to ``again``, and with those in a loop to be set aside."""
        now = time.monotonic()
        self._turn(now)
        known: Iterable[Mapping[Key, Any]] = (self._young, self._old, self._suspects)
        is_new = all(seen.keys().isdisjoint(page.keys) for seen in known)
        held, errors = (set[int](), {}) if is_new else self._judge(page, now)
        self._young.update(zip(page.keys, page.identities, strict=True))
        if not held and not errors:
            return page
        again.update(page.keys[i] for i in held)
        kept = [i for i in range(len(page.keys)) if i not in held]
        return page.take(kept).without({kept.index(i): error for i, error in errors.items()})

    def note_written(self, keys: Iterable[Key]) -> None:
        """These rows are done with."""
        now = time.monotonic()
        for key in keys if self._suspects else ():
            if key in self._suspects:
                self._suspects[key].written_at = now

    def _turn(self, now: float) -> None:
        """Forget what was seen long ago."""
        if now - self._turned_at > SOON_S or len(self._young) > MOST_SEEN:
            self._old, self._young, self._turned_at = self._young, {}, now
            self._suspects = {k: suspect for k, suspect in self._suspects.items() if now - suspect.seen_at < IDLE_S}

    def _judge(self, page: Page, now: float) -> tuple[set[int], dict[int, Exception]]:
        """The positions that are held back, and those in a loop with their errors."""
        held: set[int] = set()
        errors: dict[int, Exception] = {}
        for i, (key, identity) in enumerate(zip(page.keys, page.identities, strict=True)):
            suspect = self._suspects.get(key)
            if suspect is None:
                before = self._young.get(key, self._old.get(key, identity))
                if before != identity:
                    self._suspects[key] = _Suspect(identity, 1, now)
            elif not self._clears(key, suspect, identity, now):
                if suspect.returns >= MOST_RETURNS:
                    errors[i] = self._looped(key)
                elif suspect.held_until is not None:
                    held.add(i)
        return held, errors

    def _clears(self, key: Key, suspect: _Suspect, identity: Any, now: float) -> bool:
        """Whether a suspect may be computed now; one that was changed while it waited is none any more."""
        suspect.seen_at = now
        if suspect.identity == identity:
            if suspect.held_until is not None and now >= suspect.held_until:
                suspect.held_until = None
            return suspect.held_until is None
        if suspect.written_at is None or now - suspect.written_at > SOON_S:
            del self._suspects[key]
            return True
        suspect.identity, suspect.written_at, suspect.returns = identity, None, suspect.returns + 1
        if suspect.returns >= FREE_RETURNS:
            suspect.held_until = now + HOLD_S * 2.0 ** (suspect.returns - FREE_RETURNS)
        return suspect.held_until is None

    def _looped(self, key: Key) -> RowRejected:
        returns = self._suspects.pop(key).returns
        self._young.pop(key, None)
        self._old.pop(key, None)
        return RowRejected(
            f"what the model reads was changed each time the output was written, {returns} times running, and never "
            "else: another program answers every write. Have it write only where something differs, or leave that "
            "field out of the listener's key; then db.retry_errors()"
        )
