"""The writer thread: commits finished batches while the model works on the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

WAITING_BATCHES = 2


class _AtOnce(Executor):
    """Runs what is submitted before it returns."""

    def submit(self, task: Callable[..., T], /, *args: Any, **named: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(task(*args, **named))
        except BaseException as error:  # the unit of work: raised to whoever asks for its result
            done.set_exception(error)
        return done


class WriterThread:
    """One thread that runs writes in order, while it is entered as a context. At most two are waiting or running: a
    third waits for its turn in the caller's thread, which bounds what a crash can lose.

    After a write fails, later ones are dropped, and its error is raised to whoever asks, at last at the end of
    the context.
    """

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(WAITING_BATCHES)
        self._failure: BaseException | None = None

    def __enter__(self) -> None:
        self._enter(ThreadPoolExecutor(1, thread_name_prefix="pinnacle-writer"))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In the place of the thread: who queues a write runs it. For few rows, whose writes take no longer than to
        hand them over."""
        self._enter(_AtOnce())
        yield
        self.raise_failure()

    def _enter(self, pool: Executor) -> None:
        self._failure, self._pool = None, pool

    def __exit__(self, *error: object) -> None:
        """Wait until all that is queued is done; raises what a write failed with where nothing else was raised."""
        self._pool.shutdown(wait=True)
        if error[0] is None:
            self.raise_failure()

    def write(self, task: Callable[[], None]) -> Future[None]:
        """Queue a write; raises the error of an earlier one."""
        self.raise_failure()
        self._slots.acquire()
        try:
            return self._pool.submit(self._run, task)
        except BaseException:  # nothing was queued, and the place is given back; raised again
            self._slots.release()
            raise

    def do(self, task: Callable[[], T]) -> Future[T]:
        """Queue something that is no write, in order with the writes."""
        return self._pool.submit(task)

    def drain(self) -> None:
        """Wait until all that is queued by now is done."""
        self.do(lambda: None).result()

    def raise_failure(self) -> None:
        """Raise the error of the first write that failed, if any did."""
        if self._failure is not None:
            raise self._failure

    def _run(self, task: Callable[[], None]) -> None:
        try:
            if self._failure is None:
                task()
        except BaseException as error:  # the unit of work: raised in the caller's thread
            self._failure = error
            raise
        finally:
            self._slots.release()
