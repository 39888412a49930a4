"""The right to train a model: one process has it at a time, and renews it while it trains."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from pinnacle.backends.protocol import RunStore
from pinnacle.base.errors import BackendError, Conflict, PinnacleError
from pinnacle.base.told import logger

RENEWALS = 3
"""Attempts to renew a lease before it expires."""

log = logger(__name__)


@contextmanager
def leased(runs: RunStore, model: str, ttl_s: float) -> Iterator[TrainingLease]:
    """The lease of a model, given up at the end. Conflict, naming the process that has it, where it is taken."""
    lease = TrainingLease(runs, model, ttl_s)
    lease.start()
    try:
        yield lease
    finally:
        lease.stop()


class TrainingLease:
    """A lease that a thread renews."""

    _left: ClassVar[dict[str, str]] = {}
    """Leases of this process, by model, that could not be given up: the database did not take it, or was not there."""

    def __init__(self, runs: RunStore, model: str, ttl_s: float) -> None:
        self._runs, self._model, self._ttl_s, self._token = runs, model, ttl_s, uuid.uuid4().hex
        self._stop, self._is_lost = threading.Event(), False
        self._thread = threading.Thread(target=self._keep, name="pinnacle-training-lease", daemon=True)

    def start(self) -> None:
        """Take the lease, and renew it from now on."""
        if (left := self._left.pop(self._model, None)) is not None:
            self._runs.release(self._model, left)
        if (owner := self._runs.lease(self._model, self._token, self._ttl_s)) is not None:
            raise Conflict(
                f"model {self._model!r} is being trained by process {owner}; wait for it, or stop it: its lease ends "
                "with it"
            )
        self._thread.start()

    def check(self) -> None:
        """Renew the lease now: this process, or the database, may have been stopped for a while. Conflict where it was
        lost to another process, also to one that is through with it."""
        self._renew()
        if self._is_lost:
            raise Conflict(
                f"the right to train model {self._model!r} was taken over by another process; this one stops, and what "
                "it has stored stays"
            )

    def stop(self) -> None:
        """Give the lease up."""
        self._stop.set()
        self._thread.join()
        try:
            self._runs.release(self._model, self._token)
        except BackendError as error:
            self._left[self._model] = self._token
            log.warning("the lease of model %r could not be given up yet: %s", self._model, error)

    def _keep(self) -> None:
        while not self._is_lost and not self._stop.wait(self._ttl_s / RENEWALS):
            try:
                self._renew()
            except PinnacleError as error:
                log.warning("the lease of model %r could not be renewed yet: %s", self._model, error)

    def _renew(self) -> None:
        if not self._runs.renew(self._model, self._token, self._ttl_s):
            self._is_lost = True
