"""A predict that watches its own memory: ``python -m benchmarks.predictor URL EARLY``.

Prints as JSON the seconds it took, its resident memory in MB after EARLY calls, and the most after that.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import psutil  # type: ignore[import-untyped]
import sqlalchemy as sa

from benchmarks.models import counted, word_count_counted
from pinnacle import pinnacle
from pinnacle.backends.mongodb import Collection

SAMPLE_S = 0.02


class MemoryWatch:
    """Samples this process's resident memory until it is stopped."""

    def __init__(self, early: int) -> None:
        self._early, self._process, self._stop = early, psutil.Process(), threading.Event()
        self.early_mb = self.peak_mb = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        used_mb = self._process.memory_info().rss / 2**20
        if counted.calls >= self._early:
            self.early_mb = self.early_mb or used_mb
            self.peak_mb = max(self.peak_mb, used_mb)


def main(url: str, early: int) -> None:
    select: Any = Collection("docs").find()
    if not url.startswith("mongodb"):
        select = sa.select(sa.table("docs", sa.column("id"), sa.column("body")))
    with pinnacle(url) as db, MemoryWatch(early) as memory:
        db.add(word_count_counted)
        began = time.perf_counter()
        word_count_counted.predict(X="body", db=db, select=select, output="words", progress=False)
        seconds = time.perf_counter() - began
    print(json.dumps([seconds, memory.early_mb, memory.peak_mb]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
