"""Threads for users' plain functions: a call that hangs takes no other's place, and keeps no process alive."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Calls = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class CallThreads:
    """Runs each call in a thread that has nothing else to do. Threads are used again.

    There are as many as calls at once, and one for each call that nobody waits for any more and that does not return.
    """

    def __init__(self) -> None:
        self._idle: deque[Calls] = deque()
        self._ended = threading.Event()
        weakref.finalize(self, _end, self._idle, self._ended).atexit = False

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns; cancelling it leaves the call alone with its thread."""
        outcome: Future[T] = Future()
        self._free().put((outcome, call))
        return await asyncio.wrap_future(outcome)

    def _free(self) -> Calls:
        """Where a thread that is idle, or a new one, waits for calls."""
        try:
            return self._idle.pop()
        except IndexError:
            calls: Calls = SimpleQueue()
        threading.Thread(
            target=_work, args=(calls, self._idle, self._ended), name=f"pinnacle-llm-{next(_numbers)}", daemon=True
        ).start()
        return calls


_numbers = itertools.count()


def _work(calls: Calls, idle: deque[Calls], ended: threading.Event) -> None:
    """A thread's life: call after call."""
    while not ended.is_set() and (asked := calls.get()) is not None:
        _settle(*asked, then=lambda: idle.append(calls))
        del asked  # what it holds is not kept while the thread is idle


def _settle(outcome: Future[Any], call: Callable[[], Any], *, then: Callable[[], None]) -> None:
    """Give a call its outcome; ``then`` comes first, so that whoever waits for it finds the thread idle."""
    if not outcome.set_running_or_notify_cancel():
        then()
        return
    try:
        found = call()
    except BaseException as error:  # the unit of work: one call; raised where it is waited for
        then()
        # No future takes a StopIteration: who waits for it would wait for ever.
        outcome.set_exception(RuntimeError("it raised StopIteration") if isinstance(error, StopIteration) else error)
    else:
        then()
        outcome.set_result(found)


def _end(idle: deque[Calls], ended: threading.Event) -> None:
    """Let the threads go whose owner is gone; those that are busy go when they are done."""
    ended.set()
    for calls in list(idle):
        calls.put(None)
