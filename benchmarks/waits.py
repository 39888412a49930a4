"""How long the application's own statements wait: beside a model that takes 3 s a call, and beside a bulk predict."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

from benchmarks.bulk import require
from benchmarks.ceilings.postgres import connect
from benchmarks.listened import worker
from benchmarks.models import slow_batch, word_count
from benchmarks.places import Place, opened
from benchmarks.table import Table
from pinnacle import BackendError, Listener, pinnacle

ROWS, COUNT, TRUNCATES = 5_000, 200, 50
SHARE, BOUND_MS = 0.99, 50.0
LOG_SEGMENTS = 50
HEADINGS = (
    "database", "statement", "beside", "times", "p50 ms", "p99 ms", "longest", "p99 - usual", "at most", "holds",
)  # fmt: skip
BESIDE = ("nothing", "a call of 3 s", "a predict")


def run(
    databases: tuple[str, ...], *, rows: int = ROWS, count: int = COUNT, truncates: int = TRUNCATES
) -> Iterator[Table]:
    """A wait is what a statement takes beyond the usual: the median of its kind with nothing else at work.

    Triggers are there in every case. The worker has all rows to do, and calls of 3 s follow one another.
    """
    table = Table("L5. The application's own statements on the rows that are worked on", HEADINGS)
    for name in databases:
        usual: dict[str, float] = {}
        with opened(name, rows) as place:
            for beside in BESIDE:
                times = measured(name, place, beside, (rows, count, truncates))
                for kind, found in times.items():
                    p50, p99 = (quantile(found, share) for share in (0.5, SHARE))
                    usual.setdefault(kind, p50)
                    wait = p99 - usual[kind]
                    table.add(
                        place.name, kind, beside, len(found), p50, p99, max(found), wait, BOUND_MS,
                        holds=None if beside == BESIDE[0] else wait <= BOUND_MS,
                    )  # fmt: skip
    table.notes.append(f"of {truncates} truncates the p99 is the longest; SQLite deletes all rows, MongoDB drops them")
    yield table


def measured(name: str, place: Place, beside: str, counts: tuple[int, ...]) -> dict[str, list[float]]:
    """Milliseconds of the statements of another process, by kind."""
    url = place.renew()
    if name == "postgres":
        recycle_log(url)
    with pinnacle(url) as db:
        db.add(Listener(model=slow_batch, key="body", select=place.query(), output="slow"))
    with worker(url) if beside == BESIDE[1] else nullcontext():
        command = [sys.executable, "-m", "benchmarks.application", name, url, *map(str, counts)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            if beside == BESIDE[2]:
                predict_until(place, url, lambda: process.poll() is not None)
            output = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"the statements failed with {process.returncode}")
    times: dict[str, list[float]] = json.loads(output)
    return times


def recycle_log(url: str) -> None:
    """Make segments of the log ready, as a server has them that has run for a while: to write 16 MB of zeros
    takes 50 ms, and whoever needs them holds its locks meanwhile."""
    with connect(url) as connection:
        connection.execute(f"ALTER SYSTEM SET min_wal_size = '{16 * LOG_SEGMENTS}MB'")
        connection.execute("SELECT pg_reload_conf()")
        for _ in range(LOG_SEGMENTS):
            connection.execute("SELECT pg_logical_emit_message(true, 'benchmark', 'something'), pg_switch_wal()")
        connection.execute("CHECKPOINT")


def predict_until(place: Place, url: str, is_over: Callable[[], bool]) -> None:
    """Over and over; one whose collection is dropped under it fails, and is begun again."""
    written = 0
    with pinnacle(url) as db:
        while not is_over():
            with suppress(BackendError):
                written += word_count.predict(
                    X="body", db=db, select=place.query(), output="words", overwrite=True, progress=False
                ).written
    require(written > 0, "no predict wrote anything")


def quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]
