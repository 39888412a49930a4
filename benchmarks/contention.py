"""Figure 7: another process's single-row updates, without and with a bulk predict on the same table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.models import word_count
from benchmarks.places import Place, opened
from benchmarks.table import Table
from pinnacle import pinnacle

ROWS = 100_000
ROUNDS, SECONDS = 5, 5.0
SHARE, BOUND_MS = 0.99, 50.0
HEADINGS = ("database", "the table is", "updates", "p50 ms", "p99 ms", "longest", "p99 - idle", "at most", "holds")
Times = list[float]


def run(databases: tuple[str, ...], *, rows: int = ROWS, seconds: float = SECONDS) -> Iterator[Table]:
    """The predict's function is trivial, so that it writes without pause: no model slows it down.

    Quantiles are medians over rounds, each of them idle, then busy: one stall of the machine spoils one round.
    """
    table = Table("7. Another process's single-row updates while a bulk predict writes without pause", HEADINGS)
    for name in databases:
        with opened(name, rows) as place:
            idle: list[Times] = []
            busy: list[Times] = []
            runs = 0
            for _ in range(ROUNDS):
                url = place.renew()
                with updater(name, url, rows, seconds) as process:
                    idle.append(times_of(process))
                url = place.renew()
                with updater(name, url, rows, seconds) as process:
                    runs += predict_until_done(place, url, process)
                    busy.append(times_of(process))
            added = quantile(busy, SHARE) - quantile(idle, SHARE)
            table.add(place.name, "idle", *shape(idle), "", BOUND_MS)
            table.add(place.name, "predicted", *shape(busy), added, BOUND_MS, holds=added <= BOUND_MS)
            table.notes.append(f"{place.name}: {runs} predicts of {rows:,} rows meanwhile")
    yield table


@contextmanager
def updater(name: str, url: str, rows: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.updater", name, url, str(rows), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process


def times_of(process: subprocess.Popen[str]) -> Times:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the updates failed with {process.returncode}")
    return sorted(json.loads(output))


def predict_until_done(place: Place, url: str, process: subprocess.Popen[str]) -> int:
    """Compute all rows over and over while the updates run; how many times."""
    runs = 0
    with pinnacle(url) as db:
        while process.poll() is None:
            word_count.predict(X="body", db=db, select=place.query(), output="words", overwrite=True, progress=False)
            runs += 1
    return runs


def shape(rounds: list[Times]) -> tuple[int, float, float, float]:
    return sum(map(len, rounds)), quantile(rounds, 0.5), quantile(rounds, SHARE), max(times[-1] for times in rounds)


def quantile(rounds: list[Times], share: float) -> float:
    """The median over rounds of a quantile of their sorted times."""
    return statistics.median(times[min(len(times) - 1, int(share * len(times)))] for times in rounds)
