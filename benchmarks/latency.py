"""From another process's commit to an output that a third connection sees, with a worker that idles, beside a worker
by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pymongo
import sqlalchemy as sa

from benchmarks.ceilings.workers import READY
from benchmarks.commits import FIRST_NUMBER
from benchmarks.listened import listen, workers
from benchmarks.models import last_number
from benchmarks.places import TABLE, Place, connected, opened
from benchmarks.table import Table
from benchmarks.wiretap import Tally, tapped

ROWS, WRITES, COUNTED = 1_000, 500, 200
TIMES_BY_HAND, P95_MS = 2.5, 100.0
TRANSACTIONS, ROUND_TRIPS = 5.0, 18.0
LOOK_S, PATIENCE_S = 0.0005, 30.0
HEADINGS = (
    "database", "writes", "seen", "p50 ms", "by hand", "ratio", "at most", "p95 ms", "by hand", "at most", "p99 ms",
    "longest", "holds",
)  # fmt: skip
ASKED = ("database", "writes", "transactions", "at most", "round trips", "at most", "pings", "holds")


class Look(Protocol):
    """The outputs from a number on, as a connection of its own sees them."""

    def __call__(self, first: int) -> list[int]: ...


def run(databases: tuple[str, ...], *, rows: int = ROWS, count: int = WRITES) -> Iterator[Table]:
    """An output of a row that is written twice in a row may be seen once: the newer counts for it alone."""
    table = Table("L1. From another process's commit to the output, worker idle, one write each 20 to 40 ms", HEADINGS)
    asked = Table("L1. What a worker asks the server for each of these writes, whatever it asks between them", ASKED)
    for name in databases:
        with opened(name, rows) as place:
            by_hand = measured_by_hand(name, place, rows, count)
            times_ms = measured(name, place, rows, count)
            if name == "postgres":
                add_asked(asked, place, rows)
        p50, p95, p99 = (at(times_ms, share) for share in (0.5, 0.95, 0.99))
        ratio = p50 / at(by_hand, 0.5)
        table.add(
            place.name, count, len(times_ms), p50, at(by_hand, 0.5), ratio, TIMES_BY_HAND, p95, at(by_hand, 0.95),
            P95_MS, p99, times_ms[-1], holds=ratio <= TIMES_BY_HAND and p95 <= P95_MS,
        )  # fmt: skip
    yield table
    if asked.rows:
        yield asked


def at(times_ms: list[float], share: float) -> float:
    return times_ms[int(share * (len(times_ms) - 1))]


def measured(name: str, place: Place, rows: int, count: int) -> list[float]:
    url = place.renew()
    listen(place, url, last_number, "number")
    with workers(url), looking(name, url) as look:
        return measure(name, url, rows, count, look)


def measured_by_hand(name: str, place: Place, rows: int, count: int) -> list[float]:
    url = place.renew()
    command = [sys.executable, "-m", "benchmarks.ceilings.workers", name, url]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        if process.stderr is None or not process.stderr.readline().startswith(READY):
            raise RuntimeError("the worker by hand did not start")
        try:
            with looking(name, url) as look:
                return measure(name, url, rows, count, look)
        finally:
            process.terminate()


def add_asked(asked: Table, place: Place, rows: int) -> None:
    """Counted in a run of its own, as who listens in costs time."""
    url = place.renew()
    listen(place, url, last_number, "number")
    with tapped(url) as (through, tally), workers(through), looking("postgres", url) as look:
        before = tally.now()
        measure("postgres", url, rows, COUNTED, look)
        spent: Tally = tally.now().minus(before)
    each = [number / COUNTED for number in (spent.transactions, spent.round_trips, spent.pings)]
    holds = each[0] <= TRANSACTIONS and each[1] <= ROUND_TRIPS
    asked.add(place.name, COUNTED, each[0], TRANSACTIONS, each[1], ROUND_TRIPS, each[2], holds=holds)


def measure(name: str, url: str, rows: int, count: int, look: Look) -> list[float]:
    """Sorted milliseconds from each commit to the first look that saw its output."""
    command = [sys.executable, "-m", "benchmarks.commits", name, url, str(rows), str(count)]
    last, seen = FIRST_NUMBER + count - 1, dict[int, float]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        patience = time.monotonic() + PATIENCE_S + count * 0.05
        while last not in seen:
            for number in look(FIRST_NUMBER):
                seen.setdefault(number, time.monotonic())
            if time.monotonic() > patience or process.poll() not in (None, 0):
                raise RuntimeError(f"{len(seen)} of {count} outputs were seen")
            time.sleep(LOOK_S)
        committed = json.loads(process.communicate()[0])
    times = [1000 * (seen[number] - at) for number, at in committed if number in seen]
    if len(times) < 0.9 * count:
        raise RuntimeError(f"{len(times)} of {count} outputs were seen")
    return sorted(times)


@contextmanager
def looking(name: str, url: str) -> Iterator[Look]:
    """A connection that sees what is committed, and reads nothing else."""
    if name == "mongodb":
        with pymongo.MongoClient[Any](url) as client:
            collection = client.get_default_database()[TABLE]
            yield lambda first: [row["number"] for row in collection.find({"number": {"$gte": first}}, {"number": 1})]
        return
    query = sa.text(f"SELECT number FROM {TABLE} WHERE number >= :first")
    with connected(url) as connection:

        def look(first: int) -> list[int]:
            with connection.begin():
                return list(connection.scalars(query, {"first": first}))

        yield look
