"""Has the garbage collector look around less often while many calls are in flight."""

from __future__ import annotations

import gc

from pinnacle.base import forks

YOUNG_OBJECTS = 10_000


class _Collector:
    """Between `begin` and `end` more objects are made before the collector looks through the young ones.

    A request holds some hundred objects until its answer comes. By Python's usual 700 the collector would walk over
    those of all that are in flight again and again, and every hundredth time over all that the program holds, which
    takes longer than the requests. Put back when the last one ends.
    """

    def __init__(self) -> None:
        self._lock, self._users, self._usual = forks.lock(), 0, gc.get_threshold()
        forks.renew_in_child(self._renew)

    def begin(self) -> None:
        with self._lock:
            if self._users == 0:
                self._usual = gc.get_threshold()
                if 0 < self._usual[0] < YOUNG_OBJECTS:  # 0: the program collects by itself
                    gc.set_threshold(YOUNG_OBJECTS, *self._usual[1:])
            self._users += 1

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                gc.set_threshold(*self._usual)

    def _renew(self) -> None:
        """Nothing of the parent's is in flight in a forked child."""
        if self._users:
            self._users = 0
            gc.set_threshold(*self._usual)


rare_collections = _Collector()
