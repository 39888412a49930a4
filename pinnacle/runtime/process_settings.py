"""Settings of the whole process that are others while predictions are at work."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Generic, TypeVar

from pinnacle.base import forks

T = TypeVar("T")

SWITCH_INTERVAL_S = 0.0005
YOUNG_OBJECTS = 10_000


class BorrowedSetting(Generic[T]):
    """A setting that is another one while anybody has entered it as a context, in any thread.

    ``read`` and ``write`` get at it, and ``changed`` tells what becomes of the usual one, which is put back when the
    last one leaves, unless somebody else has set it meanwhile.
    """

    def __init__(self, read: Callable[[], T], write: Callable[[T], object], changed: Callable[[T], T]) -> None:
        self._read, self._write, self._changed = read, write, changed
        self._lock, self._users, self._usual, self._mine = forks.lock(), 0, read(), read()
        forks.renew_in_child(self._renew)

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._usual = self._read()
                self._write(self._changed(self._usual))
                self._mine = self._read()
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._put_back()

    def _put_back(self) -> None:
        if self._read() == self._mine:
            self._write(self._usual)

    def _renew(self) -> None:
        """Nothing of the parent's is at work in a forked child."""
        if self._users:
            self._users = 0
            self._put_back()


brisk = BorrowedSetting(sys.getswitchinterval, sys.setswitchinterval, lambda usual_s: min(usual_s, SWITCH_INTERVAL_S))
"""The interpreter lock is handed over ten times as often as usual.

A writer asks for the lock after each step of the database, and with Python's 5 ms a model that computes in Python would
keep it waiting longer than the steps take.
"""


def _rare(usual: tuple[int, int, int]) -> tuple[int, int, int]:
    is_on = usual[0] > 0  # else the program collects by itself
    return (max(usual[0], YOUNG_OBJECTS), *usual[1:]) if is_on else usual


rare_collections = BorrowedSetting(gc.get_threshold, lambda threshold: gc.set_threshold(*threshold), _rare)
"""More objects are made before the garbage collector looks through the young ones.

A request holds some hundred objects until its answer comes. By Python's usual 700 the collector would walk over those
of all that are in flight again and again, and every hundredth time over all that the program holds, which takes longer
than the requests.
"""
