"""The worker that a program runs in a thread of its own process."""

from __future__ import annotations

import threading

from pinnacle.base import forks
from pinnacle.base.told import logger
from pinnacle.runtime.worker import Worker

log = logger(__name__)


class LocalWorker:
    """What `Database.listen` returns: a worker at work until it is stopped. Safe to use from several threads."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._stop = worker, threading.Event()
        self.failure: BaseException | None = None
        """What ended it, where nobody stopped it."""
        self._thread = threading.Thread(target=self._run, name="pinnacle-worker", daemon=True)
        self._thread.start()
        forks.renew_in_child(self._renew)

    def _renew(self) -> None:
        """It works in the parent, and not in a forked child, where `stop` has nothing to wait for."""
        self._stop = threading.Event()

    def _run(self) -> None:
        try:
            self._worker.run(self._stop)
        except BaseException as error:  # the unit of work: a worker, whose end is told to who waits for what it does
            self.failure = error
            log.exception("the worker of this process has failed, and keeps nothing fresh any more")

    @property
    def is_alive(self) -> bool:
        """Whether it still works: it has not been stopped, and has not failed."""
        return self._thread.is_alive()

    @property
    def listeners(self) -> list[str]:
        """The listeners that it keeps fresh now, by identifier: not those that are paused, none while it stands by."""
        return self._worker.listeners

    @property
    def standing_by_for(self) -> str | None:
        """The process that has the right to work on this database, which only one may have on SQLite; else None."""
        return self._worker.standing_by_for

    @property
    def followed_at(self) -> float:
        """When it last began a look for newer versions of models that it has finished, as `time.monotonic` has it."""
        return self._worker.followed_at

    def stop(self) -> None:
        """Stop, and wait until what is in hand is finished and what was computed is written."""
        self._stop.set()
        self._thread.join()
