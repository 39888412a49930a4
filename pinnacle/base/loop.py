"""Runs coroutines for synchronous callers, on one event loop in a thread of its own.

That is what lets a synchronous predict of an async model work inside a notebook, whose
thread already runs a loop, and lets a client that binds itself to the loop it first ran
on be used again.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

from pinnacle.base import forks

T = TypeVar("T")

WAKE_S = 0.1

stop_requested: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("stop_requested", default=None)
"""Set where somebody may ask a blocking function to stop."""

unwanted: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("unwanted", default=None)
"""Set around calls, and its event once nobody waits for what they bring."""

_lock = forks.lock()
_threads: list[LoopThread] = []
"""The one that runs, if it was needed yet."""

_passing: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result; works inside a running event loop.

    The caller's thread waits. When it is interrupted (Ctrl-C), the coroutine is cancelled
    and its cleanup has finished before the interruption goes on. Context variables are the caller's.
    CancelledError once it is `unwanted`.
    """
    background = _background()
    if threading.get_ident() == background.thread.ident:
        return _run_beside(coroutine)
    call = Call(coroutine, background.loop)
    try:
        call.start()
        while not wait([call.outcome], timeout=WAKE_S).done:
            if is_unwanted():  # a signal may reach another thread, too; this one learns of it when it wakes
                raise asyncio.CancelledError
        return call.outcome.result()
    except BaseException:  # an interrupt: the coroutine ends first; raised again
        if not call.outcome.done():
            call.cancel()
            wait([call.outcome])
        raise


run_coroutine = run
"""`run`, by the name that plug-ins import it under."""


def is_unwanted() -> bool:
    """Whether nobody waits any more for what the running call brings."""
    event = unwanted.get()
    return event is not None and event.is_set()


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking function in a thread; when the waiting task is cancelled, ask it to stop.

    The function sees the request through `stop_requested`. The cancellation goes on once
    the function has ended, so that what it finishes up is finished.
    """
    stop = threading.Event()

    def call() -> T:
        stop_requested.set(stop)
        return function(*args, **kwargs)

    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen: the caller is told of the cancellation
        raise


def start(coroutine: Coroutine[Any, Any, T]) -> Call[T]:
    """Start a coroutine and return at once; its ``outcome`` is a Future, ``cancel`` stops it."""
    call = Call(coroutine, _background().loop)
    call.start()
    return call


def own() -> asyncio.AbstractEventLoop:
    """The loop itself, for what starts many coroutines there."""
    return _background().loop


async def on_own_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on pinnacle's own loop from whatever loop asks; cancelling the caller cancels it.

    On a passing loop, which runs while the own one waits for it, it runs where it is.
    """
    here = asyncio.get_running_loop()
    if here is _background().loop or here in _passing:
        return await coroutine
    call = start(coroutine)
    try:
        return await asyncio.wrap_future(call.outcome)
    except asyncio.CancelledError:
        call.cancel()
        raise


def is_passing() -> bool:
    """Whether the running loop will be closed soon: nothing that outlives it may be kept on it."""
    return asyncio.get_running_loop() is not _background().loop


class LoopThread:
    """An event loop that runs for as long as the process does."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="pinnacle-loop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            # A coroutine that raises SystemExit stops the loop; the call gets the error, the others go on.
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                continue


class Call(Generic[T]):
    """One coroutine on its way through the loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self.coroutine, self.loop = coroutine, loop
        self.context = contextvars.copy_context()
        self.outcome: Future[T] = Future()
        self.task: asyncio.Task[T] | None = None

    def start(self) -> None:
        self.loop.call_soon_threadsafe(self._start)

    def cancel(self) -> None:
        """Cancel the coroutine; an interrupt may have come before it was started."""
        self.loop.call_soon_threadsafe(self._start)
        self.loop.call_soon_threadsafe(self._cancel)

    def _start(self) -> None:
        if self.task is None:
            self.task = self.loop.create_task(self.coroutine, context=self.context)
            self.task.add_done_callback(self._finish)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _finish(self, task: asyncio.Task[T]) -> None:
        if self.outcome.done():  # who asked was cancelled, and waits no more
            return
        if task.cancelled():
            self.outcome.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


def _background() -> LoopThread:
    """This process's loop; a forked child gets its own."""
    with _lock:
        if not _threads:
            _threads.append(LoopThread())
        return _threads[0]


def _renew() -> None:
    """The parent's loop is left as it is: to close it here would take its wakeups away there."""
    forks.leave_to_parent(*_threads, *_passing)
    _threads.clear()


forks.renew_in_child(_renew)


def _run_beside(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on a passing loop: the caller is the loop's own thread, which cannot wait for itself."""
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    async def passing() -> T:
        _passing.add(asyncio.get_running_loop())
        return await coroutine

    def body() -> None:
        try:
            outcome.set_result(context.run(asyncio.run, passing()))
        except BaseException as error:  # the unit of work: one coroutine; raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=body, name="pinnacle-nested-loop", daemon=True).start()
    return outcome.result()
