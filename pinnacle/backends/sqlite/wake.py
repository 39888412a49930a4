"""Wakes a worker when another connection has written to the SQLite file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa

POLL_S, BUSY_POLL_S = 0.005, 0.001
BUSY_S = 0.25
"""For so long after a write the next one is looked for more often."""


class SqliteWake:
    """See `Wake`. ``PRAGMA data_version`` costs microseconds and does not see the connection's own writes."""

    def __init__(
        self, connection: sa.Connection, driver: Callable[[sa.Connection], AbstractContextManager[Any]]
    ) -> None:
        self._connection, self._driver = connection, driver
        self._seen, self._seen_at = self._version(), float("-inf")

    def wait(self, timeout_s: float, stop: threading.Event) -> bool:
        until = time.monotonic() + timeout_s
        while not stop.is_set():
            version, now = self._version(), time.monotonic()
            if version != self._seen:
                self._seen, self._seen_at = version, now
                return True
            if now >= until:
                return False
            stop.wait(BUSY_POLL_S if now - self._seen_at < BUSY_S else POLL_S)
        return False

    def _version(self) -> int:
        with self._driver(self._connection) as raw:
            return int(raw.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        self._connection.close()
