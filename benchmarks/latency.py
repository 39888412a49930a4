"""From another process's commit to an output that a third connection sees, with a worker that idles."""

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

from benchmarks.commits import FIRST_NUMBER
from benchmarks.listened import listen, workers
from benchmarks.models import last_number
from benchmarks.places import TABLE, connected, opened
from benchmarks.table import Table

ROWS, WRITES = 1_000, 500
MEDIAN_MS, P95_MS = 20.0, 100.0
LOOK_S, PATIENCE_S = 0.002, 30.0
HEADINGS = ("database", "writes", "seen", "p50 ms", "at most", "p95 ms", "at most", "p99 ms", "longest", "holds")


class Look(Protocol):
    """The outputs from a number on, as a connection of its own sees them."""

    def __call__(self, first: int) -> list[int]: ...


def run(databases: tuple[str, ...], *, rows: int = ROWS, count: int = WRITES) -> Iterator[Table]:
    """An output of a row that is written twice in a row may be seen once: the newer counts for it alone."""
    table = Table("L1. From another process's commit to the output, worker idle, one write each 20 to 40 ms", HEADINGS)
    for name in databases:
        with opened(name, rows) as place:
            url = place.renew()
            listen(place, url, last_number, "number")
            with workers(url), looking(name, url) as look:
                times_ms = measure(name, url, rows, count, look)
        p50, p95, p99 = (times_ms[int(share * (len(times_ms) - 1))] for share in (0.5, 0.95, 0.99))
        table.add(
            place.name, count, len(times_ms), p50, MEDIAN_MS, p95, P95_MS, p99, times_ms[-1],
            holds=p50 <= MEDIAN_MS and p95 <= P95_MS,
        )  # fmt: skip
    yield table


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
