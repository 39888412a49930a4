"""Keeps calls in flight on pinnacle's loop, and hands over in portions what has landed.

A place that becomes free is taken on the loop itself: the thread that waits for outputs,
which prepares and writes them, is woken for a portion and not for every one.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import wait
from contextlib import ExitStack
from typing import Any

from pinnacle.base import loop
from pinnacle.runtime.memory import bytes_of
from pinnacle.runtime.outcomes import Landed, Outcomes, Unit
from pinnacle.runtime.process_settings import rare_collections

FLUSH_S = 0.2
MAX_PORTION_BYTES = 8 * 2**20
WAITING_PORTIONS = 2
"""So many portions wait to be taken; then nothing more is asked, which bounds what a crash can lose."""

CLOSE_S = 1.0
"""So long calls that are cancelled are waited for: what they cost is counted when they have ended. In threads calls are
waited for as long before they are cut off."""


class Flight:
    """``ask(unit)`` for all units that are added, at most ``places`` at once, in the order they finish.

    After outcomes that are ``is_alarming`` nothing more is asked until whoever took them asks for more; nothing more
    at all once ``is_ended``. ``portion``: inputs to hand over at once; ``on_ready`` is called when there are some.
    ``on_close`` waits for calls that cannot be cancelled, such as those in threads, but learn that they are `unwanted`.
    """

    def __init__(
        self, ask: Callable[[Unit], Coroutine[Any, Any, Outcomes]], *, places: int, portion: int,
        is_ended: Callable[[], bool], on_ready: Callable[[], None], on_close: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._ask, self._places, self._portion = ask, places, portion
        self._is_ended, self._on_ready, self._on_close = is_ended, on_ready, on_close
        self._loop, self._context, self._unwanted = loop.own(), contextvars.copy_context(), threading.Event()
        self._context.run(loop.unwanted.set, self._unwanted)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock, self._ready = threading.Lock(), threading.Event()
        self._waiting: deque[Unit] = deque()
        self._landed: deque[Landed] = deque()
        self._interrupt: BaseException | None = None
        self._in_flight = self._paused = self._inputs = self._bytes = self._alarms = 0
        self._wants_units, self._has_news, self._flush_at = False, False, float("inf")
        self._settings = ExitStack()
        self._settings.enter_context(rare_collections)

    @property
    def has_room(self) -> bool:
        """Whether there are fewer units that wait for a place than there are places."""
        return len(self._waiting) < self._places

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way any more, and all has been taken."""
        with self._lock:
            return self._has_ended() and not self._landed and self._interrupt is None

    def add(self, units: Iterable[Unit]) -> None:
        """Ask for these too."""
        with self._lock:
            self._waiting.extend(units)
        self._resume()

    def add_later(self, unit: Unit, pause_s: float) -> None:
        """Ask for it after a pause, in which it holds no place."""
        with self._lock:
            self._paused += 1
        self._loop.call_soon_threadsafe(self._loop.call_later, pause_s, self._unpause, unit)

    def take(self, *, or_room: bool = False, wait_s: float = FLUSH_S) -> list[Landed]:
        """A portion of what has landed, no later than `FLUSH_S` after its first did; nothing where nothing lands.

        ``or_room``: also once there is room for more units. Raises an interrupt of a call after all that landed before.
        """
        self._resume()
        with self._lock:
            self._wants_units = or_room
            self._tell()
            rest_s = min(wait_s, max(0.0, self._flush_at - time.monotonic()))
        self._ready.wait(rest_s)
        with self._lock:
            if self._interrupt is not None and not self._landed:
                interrupt, self._interrupt = self._interrupt, None
                raise interrupt
            return self._portion_of_landed() if self._is_due() else []

    def close(self) -> list[Landed]:
        """Ask nothing more, and cancel what is in flight; all that has landed until that has ended, for which it waits
        a moment, and for threads until they return. To be called once."""
        self._settings.close()
        with self._lock:
            self._is_ended = lambda: True
            is_idle = not self._in_flight
        if not is_idle:
            self._wait_for_calls()
        if self._on_close is not None:
            self._unwanted.set()
            self._on_close()
            if not is_idle:
                self._wait_for_calls()
        with self._lock:
            landed = list(self._landed)
            self._landed.clear()
        return landed

    def _wait_for_calls(self) -> None:
        wait([asyncio.run_coroutine_threadsafe(self._end(), self._loop)], timeout=CLOSE_S)

    # -- under the lock ---------------------------------------------------------------------------

    def _portion_of_landed(self) -> list[Landed]:
        taken: list[Landed] = []
        inputs = 0
        while self._landed and inputs < self._portion:
            taken.append(self._landed.popleft())
            outcomes = taken[-1][1]
            inputs += len(outcomes)
            self._bytes -= outcomes.bytes
        self._inputs -= inputs
        self._flush_at = time.monotonic() + FLUSH_S if self._landed else float("inf")
        if self._landed:
            self._loop.call_soon_threadsafe(self._loop.call_later, FLUSH_S, self._fill)
        return taken

    def _has_ended(self) -> bool:
        is_exhausted = not self._waiting and not self._paused
        return not self._in_flight and (is_exhausted or self._is_ended())

    def _is_full(self, portions: int) -> bool:
        return self._inputs >= portions * self._portion or self._bytes >= MAX_PORTION_BYTES

    def _is_due(self) -> bool:
        is_worth_it = self._is_full(1) or self._alarms > 0 or self._has_ended()
        return is_worth_it or time.monotonic() >= self._flush_at

    def _tell(self) -> None:
        """Wake who waits to take something, where there is a reason to."""
        was_due, self._has_news = self._has_news, self._is_due() or self._interrupt is not None
        if self._has_news and not was_due:
            self._on_ready()
        if self._has_news or (self._wants_units and self.has_room):
            self._ready.set()
        else:
            self._ready.clear()

    # -- on the loop ------------------------------------------------------------------------------

    def _resume(self) -> None:
        """What alarmed was taken and judged: go on."""
        with self._lock:
            self._alarms = 0 if not self._landed else self._alarms
        self._loop.call_soon_threadsafe(self._fill)

    def _unpause(self, unit: Unit) -> None:
        with self._lock:
            self._paused -= 1
            self._waiting.appendleft(unit)
        self._fill()

    def _fill(self) -> None:
        with self._lock:
            while self._waiting and self._in_flight < self._places and not self._is_held():
                task = self._loop.create_task(self._fly(self._waiting.popleft()), context=self._context.copy())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self._in_flight += 1
            self._tell()

    def _is_held(self) -> bool:
        is_alarmed = self._alarms > 0 or self._interrupt is not None
        return is_alarmed or self._is_full(WAITING_PORTIONS) or self._is_ended()

    async def _fly(self, unit: Unit) -> None:
        outcomes, interrupt = None, None
        try:
            outcomes = await self._ask(unit)
            outcomes.bytes = bytes_of(outcomes.outputs)
        except BaseException as error:  # an interrupt, or a cancellation: told in the thread that waits
            interrupt = error
        with self._lock:
            self._in_flight -= 1
            if outcomes is not None:
                if not self._landed:
                    self._flush_at = time.monotonic() + FLUSH_S
                    self._loop.call_later(FLUSH_S, self._fill)
                self._landed.append((unit, outcomes))
                self._inputs += len(outcomes)
                self._bytes += outcomes.bytes
                self._alarms += outcomes.is_alarming
            self._interrupt = self._interrupt or interrupt
        self._fill()

    async def _end(self) -> None:
        """Cancel what is not in threads, and wait for all."""
        tasks = list(self._tasks)
        if self._on_close is None:
            self._unwanted.set()
            for task in tasks:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
