"""Wakes a worker when another connection has written to the SQLite file."""

from __future__ import annotations

import threading
import time

import sqlalchemy as sa

from pinnacle.backends.sql.session import wrapped_errors

POLL_S = 0.005


class SqliteWake:
    """See `Wake`. ``PRAGMA data_version`` costs microseconds and does not see the connection's own writes."""

    def __init__(self, engine: sa.Engine) -> None:
        self._connection = engine.connect()
        self._seen = self._version()

    def wait(self, timeout_s: float, stop: threading.Event) -> bool:
        until = time.monotonic() + timeout_s
        while not stop.is_set():
            version = self._version()
            if version != self._seen:
                self._seen = version
                return True
            if time.monotonic() >= until:
                return False
            stop.wait(POLL_S)
        return False

    def _version(self) -> int:
        with wrapped_errors():
            return int(self._connection.exec_driver_sql("PRAGMA data_version").scalar() or 0)

    def close(self) -> None:
        self._connection.close()
