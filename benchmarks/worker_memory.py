"""The memory of a worker process over a large backlog: flat."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]

from benchmarks.listened import lengthen_all, listen, progress, workers
from benchmarks.models import word_count
from benchmarks.places import Place, opened
from benchmarks.table import Table

ROWS, EARLY_SHARE = 300_000, 0.1
SAMPLE_S, PATIENCE_S = 0.5, 900.0
GROWTH_BOUND_MB = 30.0
HEADINGS = ("database", "rows", "seconds", "idle MB", "early MB", "peak MB", "last MB", "grows", "at most", "holds")


def run(databases: tuple[str, ...], *, rows: int = ROWS) -> Iterator[Table]:
    """Memory grows from what the worker holds when a tenth of the backlog is done, to its peak after that."""
    table = Table(f"L7. The resident memory of one worker over a backlog of {rows:,} rows", HEADINGS)
    for name in databases:
        if name == "mongodb":
            continue
        with opened(name, rows) as place:
            idle, samples, seconds = watched(name, place, rows)
        early = next(used for done, used in samples if done >= EARLY_SHARE * rows)
        late = [used for done, used in samples if done >= EARLY_SHARE * rows]
        grown = max(late) - early
        table.add(
            place.name, rows, seconds, idle, early, max(late), late[-1], grown, GROWTH_BOUND_MB,
            holds=grown <= GROWTH_BOUND_MB,
        )  # fmt: skip
    yield table


def watched(name: str, place: Place, rows: int) -> tuple[float, list[tuple[int, float]], float]:
    """The worker's MB while it idles, its MB by rows done, and the seconds."""
    url = place.renew()
    listen(place, url, word_count, "words")
    with workers(url) as (process,), progress(url) as processed:
        memory = psutil.Process(process.pid).memory_info
        idle, before, samples = memory().rss / 2**20, processed(), list[tuple[int, float]]()
        lengthen_all(name, url)
        began = time.monotonic()
        while not samples or samples[-1][0] < rows:
            time.sleep(SAMPLE_S)
            samples.append((processed() - before, memory().rss / 2**20))
            if time.monotonic() - began > PATIENCE_S:
                raise RuntimeError(f"{samples[-1][0]:,} of {rows:,} rows were done")
        return idle, samples, time.monotonic() - began
