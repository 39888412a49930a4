"""A backlog of changed rows: drained by workers, beside the bulk predict over the same changes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks.bulk import require
from benchmarks.listened import lengthen_all, listen, progress, wait_for, workers
from benchmarks.models import laborious, word_count
from benchmarks.places import Place, opened
from benchmarks.rows import bodies
from benchmarks.table import Table
from pinnacle import Model, pinnacle

ROWS, REPEATS, SHARED_REPEATS = 50_000, 3, 2
RATE_BOUND, DRAIN_S = 0.6, 300.0
SHARING = ("postgres", "mongodb")
ONE = (
    "database", "predict s", "median", "rows/s", "worker s", "median", "rows/s", "ratio", "of medians", "at least",
    "holds",
)  # fmt: skip
TWO = ("database", "one worker s", "median", "two s", "median", "ratio", "of medians", "below", "holds")


def run(databases: tuple[str, ...], *, rows: int = ROWS, repeats: int = REPEATS) -> Iterator[Table]:
    """The clock starts when the change of all rows is committed, on both sides; a worker idles until then."""
    one = Table(f"L2. {rows:,} changed rows: one worker beside the bulk predict, a trivial function", ONE)
    two = Table(f"L2. {rows:,} changed rows: two worker processes, a model that sleeps 0.2 ms a row", TWO)
    for name in databases:
        with opened(name, rows) as place:
            runs = [(predicted(name, place, rows), worked(name, place, rows, word_count, 1)) for _ in range(repeats)]
            compare(one, place.name, rows, [bulk for bulk, _ in runs], [drain for _, drain in runs])
            if name in SHARING:
                shared = [
                    [worked(name, place, rows, laborious, count) for count in (1, 2)] for _ in range(SHARED_REPEATS)
                ]
                alone, both = ([seconds[i] for seconds in shared] for i in (0, 1))
                best, medians = min(both) / min(alone), statistics.median(both) / statistics.median(alone)
                two.add(
                    place.name, min(alone), statistics.median(alone), min(both), statistics.median(both), best, medians,
                    1.0, holds=best < 1,
                )  # fmt: skip
    yield one
    if two.rows:
        yield two


def compare(table: Table, name: str, rows: int, bulk: list[float], drain: list[float]) -> None:
    """One row, judged by the best run of each side, as figure 1 is."""
    best, medians = min(bulk) / min(drain), statistics.median(bulk) / statistics.median(drain)
    table.add(
        name, min(bulk), statistics.median(bulk), rows / min(bulk), min(drain), statistics.median(drain),
        rows / min(drain), best, medians, RATE_BOUND, holds=best >= RATE_BOUND,
    )  # fmt: skip


def predicted(name: str, place: Place, rows: int) -> float:
    """Seconds of the predict that computes all rows anew; no listener is there."""
    url = place.renew()
    with pinnacle(url) as db:

        def predict() -> None:
            result = word_count.predict(X="body", db=db, select=place.query(), output="words", progress=False)
            require(result.written == rows, f"{result}")

        predict()
        place.settle(url)
        lengthen_all(name, url)
        began = time.perf_counter()
        predict()
        return time.perf_counter() - began


def worked(name: str, place: Place, rows: int, model: Model, count: int) -> float:
    """Seconds that ``count`` idle workers take for all rows, once these have changed."""
    url = place.renew()
    listen(place, url, model, "words")
    place.settle(url)
    with workers(url, count), progress(url) as processed:
        before = processed()
        lengthen_all(name, url)
        began = time.perf_counter()
        wait_for(processed, before + rows, DRAIN_S)
        seconds = time.perf_counter() - began
    expected = {key: 1 + len(body.split()) for key, body in enumerate(bodies(rows), 1)}
    require(place.values(url, "words") == expected, f"{place.name}: the column is not as it must be")
    return seconds
