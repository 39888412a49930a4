"""Wakes a worker by LISTEN, on a connection of its own; behind it stands slow polling."""

from __future__ import annotations

import threading
import time
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.postgres.connections import is_pooled
from pinnacle.base.told import logger

log = logger(__name__)

CHANNEL = "pinnacle"
"""What triggers notify on."""
SLICE_S = 0.25


class PostgresWake:
    """See `Wake`. Where LISTEN does not work (a transaction pooler, a lost connection) it only waits."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None
        self._is_pooled = False
        self._connect()

    def _connect(self) -> None:
        import psycopg

        try:
            self._connection = self._engine.connect()
            self._is_pooled = is_pooled(self._driver())
            if self._is_pooled:
                log.info("a pooler stands before the database, so changes are polled for")
                self._connection.close()
                self._connection = None
                return
            self._driver().execute(f"LISTEN {CHANNEL}")
        except (sa.exc.SQLAlchemyError, psycopg.Error) as error:
            log.warning("cannot listen for changes, polling instead: %s", error)
            self._discard()

    def wait(self, timeout_s: float, stop: threading.Event) -> bool:
        import psycopg

        until = time.monotonic() + timeout_s
        while not stop.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return False
            if self._connection is None:
                stop.wait(min(left, SLICE_S * 4))
                if not self._is_pooled:
                    self._connect()
                return True
            try:
                for _ in self._driver().notifies(timeout=min(left, SLICE_S), stop_after=1):
                    return True
            except psycopg.Error as error:
                log.warning("the connection that listened for changes dropped: %s", error)
                self._discard()
        return False

    def _driver(self) -> Any:
        if self._connection is None:
            raise RuntimeError("not connected")
        return self._connection.connection.driver_connection

    def _discard(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Stop listening first: the connection may go back to a pool of the user's own."""
        import psycopg

        try:
            if self._connection is not None:
                self._driver().execute(f"UNLISTEN {CHANNEL}")
        except psycopg.Error as error:
            log.debug("the connection that listened for changes dropped: %s", error)
        self._discard()
