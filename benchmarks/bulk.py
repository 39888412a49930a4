"""Figures 1 and 4: a trivial function over 100,000 rows, and the same predict again."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from benchmarks.models import word_count
from benchmarks.places import Place, opened
from benchmarks.rows import bodies
from benchmarks.table import Table
from pinnacle import pinnacle

ROWS = 100_000
FILL_BOUND, AGAIN_BOUND = 1.3, 1.5
HEADINGS = ("database", "ours s", "median", "ceiling s", "median", "ratio", "of medians", "bound", "holds")


def run(databases: tuple[str, ...], repeats: int, rows: int = ROWS) -> Iterator[Table]:
    fill = Table(f"1. A trivial function over {rows:,} text rows, from read to committed column", HEADINGS)
    again = Table("4. The same predict again: no model call", HEADINGS)
    for name in databases:
        with opened(name, rows) as place:
            ceiling = import_module(f"benchmarks.ceilings.{name}")
            way, tried = quickest(place, ceiling.WAYS)
            fill.notes.append(f"{place.name}, by hand: {tried}; the quickest is the ceiling")
            ours, theirs = [], []
            for _ in range(repeats):
                ours.append(predict_twice(place, rows))
                theirs.append(by_hand_twice(place, ceiling, way, rows))
            compare(fill, place.name, [t[0] for t in ours], [t[0] for t in theirs], FILL_BOUND)
            compare(again, place.name, [t[1] for t in ours], [t[1] for t in theirs], AGAIN_BOUND)
            again.notes += notes(place, ceiling, way)
    yield fill
    yield again


def notes(place: Place, ceiling: Any, way: str) -> list[str]:
    """What a single statement inside the server takes, where there is one; it is no pass that reads."""
    if not hasattr(ceiling, "verify_in_server"):
        return []
    url = place.renew()
    ceiling.WAYS[way](url, word_count.function)
    place.settle(url)
    seconds = min(timed(ceiling.verify_in_server, url) for _ in range(3))
    return [f"{place.name}: one statement by hand that counts stale rows inside the server takes {seconds:.3g} s"]


def compare(table: Table, name: str, ours: list[float], theirs: list[float], bound: float) -> None:
    """One row, judged by the best run of each side: what the others took longer is mostly the machine's other work."""
    best, medians = min(ours) / min(theirs), statistics.median(ours) / statistics.median(theirs)
    table.add(
        name, min(ours), statistics.median(ours), min(theirs), statistics.median(theirs), best, medians, bound,
        holds=best <= bound,
    )  # fmt: skip


def quickest(place: Place, ways: dict[str, Callable[..., None]]) -> tuple[str, str]:
    """The best way to write by hand on this machine now: each is tried twice."""
    runs = {way: [timed(fill, place.renew(), word_count.function) for _ in range(2)] for way, fill in ways.items()}
    seconds = {way: min(tried) for way, tried in runs.items()}
    return min(seconds, key=seconds.__getitem__), "; ".join(f"{way}: {s:.2f} s" for way, s in seconds.items())


def predict_twice(place: Place, rows: int) -> tuple[float, float]:
    """Seconds of the first predict and of the second; checks both."""
    url = place.renew()
    with pinnacle(url) as db:
        db.add(word_count)

        def predict() -> Any:
            return word_count.predict(X="body", db=db, select=place.query(), output="words", progress=False)

        gc.collect()
        began = time.perf_counter()
        result = predict()
        first = time.perf_counter() - began
        require(result.written == rows, f"{result}")
    check(place, url, rows)
    place.settle(url)
    with pinnacle(url) as db:
        second = timed(lambda: require(predict().calls == 0, "the second predict called the model"))
    return first, second


def by_hand_twice(place: Place, ceiling: Any, way: str, rows: int) -> tuple[float, float]:
    url = place.renew()
    first = timed(ceiling.WAYS[way], url, word_count.function)
    check(place, url, rows)
    place.settle(url)
    return first, timed(lambda: require(ceiling.verify(url) == 0, "some row is not fresh"))


def check(place: Place, url: str, rows: int) -> None:
    """Every row has the output that its text asks for."""
    expected = {key: len(body.split()) for key, body in enumerate(bodies(rows), 1)}
    require(place.values(url, "words") == expected, f"{place.name}: the column is not as it must be")


def require(holds: bool, message: str) -> None:
    if not holds:
        raise RuntimeError(message)


def timed(job: Callable[..., object], *arguments: object) -> float:
    gc.collect()
    began = time.perf_counter()
    job(*arguments)
    return time.perf_counter() - began
