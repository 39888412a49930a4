"""Wakes a worker: by the change stream itself in the process that reads it, elsewhere by looking now and then."""

from __future__ import annotations

import threading
import time
from typing import Any

from pinnacle.backends.mongodb.changes.backlogs import is_sweep_due
from pinnacle.backends.mongodb.changes.listener_registry import ListenerRegistry
from pinnacle.backends.mongodb.changes.reader import ChangeReader
from pinnacle.base.errors import BackendError
from pinnacle.base.told import logger

log = logger(__name__)

SLICE_S = 0.25
POLL_S, POLL_IN_PROCESS_S = 0.1, 0.02
RETRY_S = 1.0


class StreamWake:
    """See `Wake`. The process with the lease reads the stream and writes the work here, others see that it did."""

    def __init__(self, reader: ChangeReader) -> None:
        self._reader, self._folds = reader, 0

    def wait(self, timeout_s: float, stop: threading.Event) -> bool:
        until = time.monotonic() + timeout_s
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            try:
                has_events = self._reader.listen(min(left, SLICE_S))
                if has_events or (has_events is None and self._has_new_work()):
                    return True
            except BackendError as error:
                log.warning("cannot read the changes: %s", error)
                stop.wait(RETRY_S)
                return True
            if has_events is None:
                stop.wait(min(left, POLL_S))
        return False

    def _has_new_work(self) -> bool:
        before, self._folds = self._folds, self._reader.folds()
        return self._folds != before

    def close(self) -> None:
        """The lease goes on to the next process."""
        self._reader.close()


class SweepWake:
    """See `Wake`, where nobody tells of changes: wakes when a sweep is due."""

    def __init__(self, listeners: ListenerRegistry) -> None:
        self._listeners = listeners
        self._poll_s = POLL_IN_PROCESS_S if listeners.wire.in_process else POLL_S

    def wait(self, timeout_s: float, stop: threading.Event) -> bool:
        until = time.monotonic() + timeout_s
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            entries: list[Any] = self._listeners.entries()
            if any(map(is_sweep_due, entries)):
                return True
            stop.wait(min(left, self._poll_s))
        return False

    def close(self) -> None:
        """Nothing is held."""
