"""Keeps coroutines in flight on pinnacle's loop, and hands over in portions what has landed.

A place that becomes free is taken on the loop itself: the thread that waits for outputs,
which prepares and writes them, is woken for a portion and not for every one.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from pinnacle.base import loop
from pinnacle.runtime.memory import bytes_of

FLUSH_S = 0.2
MAX_PORTION_BYTES = 8 * 2**20
WAITING_PORTIONS = 2
"""So many portions wait to be taken; then nothing more is asked, which bounds what a crash can lose."""


@dataclass(frozen=True)
class Landed:
    """One input's output, or the error that came in its place."""

    position: int
    output: Any = None
    error: BaseException | None = None
    bytes: int = 0
    is_alarming: bool = False


class Flight:
    """``ask(position)`` for all positions, at most ``places`` at once, in the order they finish.

    After an error that ``is_alarming`` nothing more is asked until it has been taken.
    """

    def __init__(
        self, ask: Callable[[int], Coroutine[Any, Any, Any]], positions: Iterable[int], *, places: int, portion: int,
        is_alarming: Callable[[BaseException], bool],
    ) -> None:  # fmt: skip
        self._ask, self._waiting, self._places, self._portion = ask, iter(positions), places, portion
        self._is_alarming = is_alarming
        self._loop, self._context = loop.own(), contextvars.copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight, self._has_started_all = 0, False
        self._lock, self._worth_taking = threading.Lock(), threading.Event()
        self._landed: list[Landed] = []
        self._bytes = self._alarms = 0

    def portions(self) -> Generator[list[Landed], None, None]:
        """What has landed, so many at most, and no later than `FLUSH_S` after the first of them did.

        Once it is closed nothing more is asked, and what is in flight is cancelled.
        """
        try:
            self._loop.call_soon_threadsafe(self._fill)
            while not self._is_over():
                self._worth_taking.wait(FLUSH_S)
                if portion := self.take():
                    yield portion
                    self._loop.call_soon_threadsafe(self._fill)
        finally:
            self._loop.call_soon_threadsafe(self._cancel)

    def take(self) -> list[Landed]:
        """A portion of what has landed, or nothing."""
        with self._lock:
            taken, self._landed = self._landed[: self._portion], self._landed[self._portion :]
            self._bytes -= sum(landed.bytes for landed in taken)
            self._alarms -= sum(landed.is_alarming for landed in taken)
            if not self._is_worth_taking():
                self._worth_taking.clear()
        return taken

    def _is_over(self) -> bool:
        with self._lock:
            return self._has_ended() and not self._landed

    def _has_ended(self) -> bool:
        return self._has_started_all and not self._in_flight

    def _is_worth_taking(self) -> bool:
        is_full = len(self._landed) >= self._portion or self._bytes >= MAX_PORTION_BYTES
        return is_full or self._alarms > 0 or self._has_ended()

    # -- on the loop ------------------------------------------------------------------------------

    def _fill(self) -> None:
        with self._lock:
            while self._in_flight < self._places and not self._is_held():
                position = next(self._waiting, None)
                if position is None:
                    self._has_started_all = True
                    break
                task = self._loop.create_task(self._fly(position), context=self._context.copy())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self._in_flight += 1
            if self._is_worth_taking():
                self._worth_taking.set()

    def _is_held(self) -> bool:
        is_full = len(self._landed) >= WAITING_PORTIONS * self._portion or self._bytes >= MAX_PORTION_BYTES
        return self._has_started_all or is_full or self._alarms > 0

    async def _fly(self, position: int) -> None:
        try:
            output = await self._ask(position)
            landed = Landed(position, output, bytes=bytes_of((output,)))
        except BaseException as error:  # the unit of work, or an interrupt: told in the thread that waits
            landed = Landed(position, error=error, is_alarming=self._is_alarming(error))
        with self._lock:
            self._in_flight -= 1
            self._landed.append(landed)
            self._bytes += landed.bytes
            self._alarms += landed.is_alarming
        self._fill()

    def _cancel(self) -> None:
        self._has_started_all = True
        for task in list(self._tasks):
            task.cancel()
