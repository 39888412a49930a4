"""Comes back to rows that others held, locked or changed, and to those that met no answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from pinnacle.base.rows import Key
from pinnacle.runtime.computation import Computation
from pinnacle.runtime.page_size import PageSize
from pinnacle.runtime.pages import Pages
from pinnacle.runtime.scope import Scope

PATIENCE_S = 60.0
"""How long rows that others keep locked or changing are tried again before they are left to the next prediction."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 1.0


class RetryRounds:
    """Rounds over the rows to come back to, until they are done. ``goes_on``: after a page, whether to ask more."""

    def __init__(
        self, scope: Scope, pages: Pages, computation: Computation, size: PageSize, goes_on: Callable[[], bool]
    ) -> None:
        self._scope, self._pages, self._computation, self._size = scope, pages, computation, size
        self._goes_on = goes_on
        self._waits_for_others = False

    def run(self) -> None:
        """Until no row is left, nothing more is to be asked, or nothing has moved for `PATIENCE_S`."""
        quiet_since, pause_s, result = time.monotonic(), FIRST_PAUSE_S, self._scope.result
        self._computation.judges = True
        while True:
            self._scope.thread.drain()
            self._computation.check()
            keys = self._scope.take_later()
            if not keys and self._computation.is_over:
                return
            done_before = result.written + result.fresh
            if not self._round(keys):
                return
            self._scope.thread.drain()
            has_moved = result.written + result.fresh > done_before
            if has_moved or self._waits_for_others or not self._computation.is_over:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > PATIENCE_S:
                self._scope.leave()
                return
            pause_s = FIRST_PAUSE_S if has_moved else min(LONGEST_PAUSE_S, pause_s * 2)
            if not self._rest(pause_s):
                return

    def _rest(self, pause_s: float) -> bool:
        """Let time pass, in which what is under way comes back; whether to go on."""
        was_over = self._computation.is_over
        self._computation.rest(pause_s)
        return was_over or not self._computation.is_over or self._goes_on()

    def _round(self, keys: list[Key]) -> bool:
        """All of the rows once, as they are now; whether to go on."""
        self._waits_for_others, start = False, 0
        while start < len(keys):
            page = self._pages.reread(keys[start : start + self._size.rows])
            start += self._size.rows
            if page.has_work:
                held = self._pages.claim(page)
                held.is_retried = True
                self._scope.later.extend(held.taken)
                self._computation.compute(held)
                goes_on = self._goes_on()
                self._waits_for_others |= bool(held.taken) or self._scope.caller.outage is not None
                if not goes_on:
                    self._scope.later.extend(keys[start:])
                    return False
        return True
