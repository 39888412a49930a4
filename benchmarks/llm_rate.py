"""A language model over 1,000 rows, beside a bare loop that posts the same texts at the same concurrency."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from benchmarks.hosted import Timed, by_aiohttp, by_openai, by_pinnacle, in_process
from benchmarks.table import Table
from pinnacle.testing import Faults, ServerProcess

ROWS, PLACES, LATENCY_S, REPEATS = 1_000, 64, 0.05, 3
RATE_BOUND = 0.75
SLOW_ROWS, SLOW_SHARE, SLOW_S, SLOW_BOUND = 4_000, 0.01, 6.0, 1.2
CLIENTS: dict[str, Callable[[str, int, int], Timed]] = {
    "bare aiohttp": by_aiohttp,
    "pinnacle": by_pinnacle,
    "openai client": by_openai,
}
HEADINGS = (
    "limit headers", "client", "rows/s", "median", "CPU ms a row", "ratio", "of medians", "at least", "holds",
)  # fmt: skip


def run(*, rows: int = ROWS, repeats: int = REPEATS) -> Iterator[Table]:
    """Ours reads from and writes to SQLite; the others hold the texts in memory. Ratios are to the bare loop."""
    table = Table(f"LLM 1. {rows:,} rows, {PLACES} in flight, a server that takes {LATENCY_S * 1000:g} ms", HEADINGS)
    for headers in (True, False):
        # A limit far away, so that its headers are sent and it is never met.
        with ServerProcess(latency_s=LATENCY_S, rate_limit=(1_000_000, 60), headers=headers) as server:
            timed: dict[str, list[Timed]] = {name: [] for name in CLIENTS}
            for _ in range(repeats):
                for name, client in CLIENTS.items():
                    timed[name].append(in_process(client, server.url, rows, PLACES))
        for name, runs in timed.items():
            add(table, "with" if headers else "without", name, runs, timed["bare aiohttp"])
    yield table
    yield slow_rows()


def slow_rows(*, rows: int = SLOW_ROWS, seed: int = 7) -> Table:
    """One row in a hundred takes seconds: it is to hold one place, as it does of a semaphore's, and nothing else."""
    headings = ("client", "seconds", "times a semaphore's", "at most", "holds")
    table = Table(f"LLM 1b. {rows:,} rows, of which {SLOW_SHARE:.0%} take {SLOW_S:g} s; {PLACES} in flight", headings)
    faults = Faults({"slow": SLOW_SHARE}, seed=seed, slow_s=SLOW_S)
    seconds: list[float] = []
    for client in (by_aiohttp, by_pinnacle):
        with ServerProcess(latency_s=LATENCY_S, faults=faults) as server:  # for each the same rows of all are slow
            seconds.append(in_process(client, server.url, rows, PLACES).seconds)
    plain, ours = seconds
    table.add("semaphore", plain, 1.0)
    table.add("pinnacle", ours, ours / plain, SLOW_BOUND, holds=ours <= SLOW_BOUND * plain)
    return table


def add(table: Table, headers: str, name: str, runs: list[Timed], bare: list[Timed]) -> None:
    """One client, judged by its best run: what the others took longer is mostly the machine's other work."""
    rates, theirs = [run.rate for run in runs], [run.rate for run in bare]
    best, medians = max(rates) / max(theirs), statistics.median(rates) / statistics.median(theirs)
    cells = (headers, name, max(rates), statistics.median(rates), min(run.cpu_ms for run in runs), best, medians)
    if name == "pinnacle":
        table.add(*cells, RATE_BOUND, holds=best >= RATE_BOUND)
    else:
        table.add(*cells)
