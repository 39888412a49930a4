"""How long a prediction waits for its database: what met no server is run again until there is one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from pinnacle.base.errors import ConnectionLost
from pinnacle.base.told import logger

T = TypeVar("T")
log = logger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
BRIEF_S = 3.0
"""The patience of a listener, which rests by itself and is to end when it is told to."""


class DatabasePatience:
    """One prediction's patience with its database, in all of its threads.

    As a context: once something has ended the prediction, nothing waits any more.
    """

    def __init__(self, patience_s: float = BRIEF_S) -> None:
        self._patience_s, self._is_over = patience_s, threading.Event()

    def run(self, operation: Callable[[], T]) -> T:
        """Run an operation, again on a new connection whenever its own dropped; the last ConnectionLost when the
        server stays away for longer than is waited.

        Whatever a prediction does may be repeated: writes are conditional, and a lease of one's own is no obstacle.
        """
        since, pause_s = 0.0, FIRST_PAUSE_S
        while True:
            try:
                return operation()
            except ConnectionLost as error:
                since = since or time.monotonic()
                left_s = since + self._patience_s - time.monotonic()
                if left_s <= 0:
                    raise
                log.warning("%s; trying again for %.0f s", error, left_s)
                if self._is_over.wait(min(pause_s, left_s)):
                    raise
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    def __enter__(self) -> DatabasePatience:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._is_over.set()
