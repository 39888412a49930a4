"""Calls a model once at a time, in the thread that takes what came of it: what a `Flight` is for one place."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from pinnacle.runtime.flight import FLUSH_S, MAX_PORTION_BYTES
from pinnacle.runtime.interrupts import INTERRUPTS
from pinnacle.runtime.memory import bytes_of
from pinnacle.runtime.outcomes import Landed, Outcomes, Unit


class Serial:
    """``answer(unit)`` for all units that are added, one after the other; it has room for more when all are done.

    What is to be asked again comes after all others. For the rest see `Flight`.
    """

    def __init__(
        self, answer: Callable[[Unit], Iterator[Outcomes]], *, portion: int, is_ended: Callable[[], bool]
    ) -> None:
        self._answer, self._portion, self._is_ended = answer, portion, is_ended
        self._waiting: deque[Unit] = deque()
        self._later: list[tuple[float, int, Unit]] = []
        self._number = itertools.count()
        self._under_way: tuple[Unit, Iterator[Outcomes]] | None = None
        self._interrupt: BaseException | None = None

    @property
    def has_room(self) -> bool:
        return self.is_over

    @property
    def is_over(self) -> bool:
        is_exhausted = not self._waiting and not self._later
        return self._under_way is None and self._interrupt is None and (is_exhausted or self._is_ended())

    def add(self, units: Iterable[Unit]) -> None:
        self._waiting.extend(units)

    def add_later(self, unit: Unit, pause_s: float) -> None:
        heapq.heappush(self._later, (time.monotonic() + pause_s, next(self._number), unit))

    def take(self, *, or_room: bool = False, wait_s: float = FLUSH_S) -> list[Landed]:
        if self._interrupt is not None:
            interrupt, self._interrupt = self._interrupt, None
            raise interrupt
        landed: list[Landed] = []
        inputs, made, flush_at = 0, 0, time.monotonic() + FLUSH_S
        try:
            while (step := self._next(may_wait=not landed)) is not None:
                landed.append(step)
                outcomes = step[1]
                inputs += len(outcomes)
                made += outcomes.bytes or bytes_of(outcomes.outputs)
                is_full = inputs >= self._portion or made >= MAX_PORTION_BYTES
                if is_full or time.monotonic() >= flush_at or outcomes.is_alarming:
                    break
        except INTERRUPTS as error:
            if not landed:
                raise
            self._interrupt = error  # raised when what came before it has been taken
        return landed

    def close(self) -> list[Landed]:
        self._waiting.clear()
        self._later.clear()
        self._under_way = None
        return []

    def _next(self, *, may_wait: bool) -> Landed | None:
        """The next outcomes; None where there are none, or none yet."""
        while True:
            if self._under_way is not None:
                unit, steps = self._under_way
                outcomes = next(steps, None)
                if outcomes is not None:
                    return unit, outcomes
                self._under_way = None
            if self._is_ended() or (following := self._following(may_wait=may_wait)) is None:
                return None
            self._under_way = following, self._answer(following)

    def _following(self, *, may_wait: bool) -> Unit | None:
        if self._waiting:
            return self._waiting.popleft()
        if not self._later:
            return None
        left_s = self._later[0][0] - time.monotonic()
        if left_s > 0 and may_wait:
            time.sleep(min(left_s, FLUSH_S))
        return heapq.heappop(self._later)[2] if left_s <= 0 or (may_wait and left_s <= FLUSH_S) else None
