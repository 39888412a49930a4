"""The worker: keeps the outputs of a database's listeners fresh until it is told to stop.

The calling thread waits for changes, looks at the registry now and then, and renews what
is leased. Every listener has a thread of its own, so that a slow model delays no other.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable

from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import BackendError, PinnacleError
from pinnacle.base.listening import ListenerRecord
from pinnacle.base.settings import Settings
from pinnacle.runtime.job import Job

log = logging.getLogger(__name__)

POLL_S = 1.0
REGISTRY_S = 0.5
PATIENCE_S = 0.05
RELOAD_S = 10.0


class Worker:
    """All listeners of one database, worked on by this process.

    ``build`` makes the job of a listener from its record; PinnacleError where this process
    cannot (its model's code is not here), which is tried again later.
    """

    def __init__(self, backend: Backend, settings: Settings, build: Callable[[ListenerRecord, str], Job]) -> None:
        self._backend, self._settings, self._build = backend, settings, build
        self.identifier = uuid.uuid4().hex
        self.standing_by_for: str | None = None
        self._jobs: dict[int, Job] = {}
        self._failed: dict[int, tuple[int, float]] = {}

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; what is in hand is finished and what was computed is written."""
        wake = self._backend.wake()
        try:
            self._loop(wake, stop)
        finally:
            wake.close()
            self._end_all()
            self._step_down()

    def _loop(self, wake: object, stop: threading.Event) -> None:
        looked_at = float("-inf")
        while not stop.is_set():
            try:
                if time.monotonic() - looked_at >= REGISTRY_S:
                    looked_at = time.monotonic()
                    self._look()
                has_changes = wake.wait(min(POLL_S, REGISTRY_S), stop)  # type: ignore[attr-defined]
            except BackendError as error:
                log.warning("the worker cannot reach its database: %s", error)
                stop.wait(POLL_S)
                continue
            for job in self._jobs.values() if has_changes else ():
                job.wake()

    # -- the registry ------------------------------------------------------------------------------

    def _look(self) -> None:
        """Start, replace and end jobs as the registry says; renew leases.

        A job that has rows in hand ends when it is done with them, and only then is it replaced.
        """
        self.standing_by_for = self._backend.lead(self.identifier, self._settings.lease_ttl_s)
        records = {} if self.standing_by_for else {record.output: record for record in self._backend.listeners()}
        for number, job in list(self._jobs.items()):
            if job.is_as(records.get(number)):
                job.update(records[number])
            elif job.end(PATIENCE_S):
                del self._jobs[number]
        for number, record in records.items():
            if number not in self._jobs and record.paused is None:
                self._start(record)
        for job in self._jobs.values():
            job.renew()

    def _start(self, record: ListenerRecord) -> None:
        version, failed_at = self._failed.get(record.output, (None, 0.0))
        if version == record.version and time.monotonic() - failed_at < RELOAD_S:
            return
        try:
            job = self._build(record, self.identifier)
        except Exception as error:  # the unit of work: one listener, beside which the others go on
            is_ours = isinstance(error, PinnacleError)
            log.warning("listener %s cannot be worked on here: %s", record.identifier, error, exc_info=not is_ours)
            self._failed[record.output] = (record.version, time.monotonic())
            self._backend.set_listener(record.output, error=str(error), error_at=time.time())
            return
        self._jobs[record.output] = job
        job.start()

    def _end_all(self) -> None:
        """Let each job finish what it has in hand, under its lease."""
        for job in self._jobs.values():
            job.stop()
        while self._jobs:
            number, job = next(iter(self._jobs.items()))
            if job.end(POLL_S):
                del self._jobs[number]
                continue
            try:
                for other in self._jobs.values():
                    other.renew()
            except BackendError as error:
                log.warning("leases could not be renewed: %s", error)

    def _step_down(self) -> None:
        try:
            self._backend.lead(self.identifier, 0.0)
        except BackendError as error:  # it expires by itself
            log.warning("the worker's lease could not be given up: %s", error)
