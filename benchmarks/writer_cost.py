"""What a listener costs the application's inserts, beside no trigger and the leanest outbox by hand.

No worker runs. The sides take turns, a few statements each, so that what else the machine does
slows all of them alike.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

import psycopg
import sqlalchemy as sa

from benchmarks.ceilings.outboxes import WAYS
from benchmarks.ceilings.postgres import connect
from benchmarks.models import word_count
from benchmarks.places import Place, connected, opened
from benchmarks.table import Table
from pinnacle import Listener, pinnacle

ROWS, SINGLES, BATCH_ROWS = 100_000, 2_000, 1_000
REPEATS, BATCH_TURNS, SINGLE_TURNS = 3, 20, 200
BODY = "a row of one kilobyte, more or less " * 28
BATCH_BOUND, SINGLE_BOUND = 1.2, 1.15
NOTHING, BY_HAND, NOTIFYING, OURS = "no trigger", "by hand", "and NOTIFY", "listener"
HEADINGS = (
    "database", "inserts", "no trigger s", "by hand s", "and NOTIFY", "ours s", "by hand x", "of medians", "at most",
    "none x", "of medians", "at most", "holds",
)  # fmt: skip
Write = Callable[[int, int], None]
"""Commits the rows from the first key to before the last, as one statement or transaction."""
Run = dict[str, list[float]]
"""The seconds of each turn, by side."""


def run(databases: tuple[str, ...], *, rows: int = ROWS, singles: int = SINGLES) -> Iterator[Table]:
    """The total time of each side is compared: each turn as the best of its repeats, and as their median."""
    table = Table(f"L3. Inserts of 1 KB while no worker runs: {rows:,} in batches, {singles:,} one by one", HEADINGS)
    for name in databases:
        if name not in WAYS:
            continue
        single, batches = list[Run](), list[Run]()
        with ExitStack() as stack:
            places = {side: stack.enter_context(opened(name, 0)) for side in (NOTHING, *WAYS[name], OURS)}
            for _ in range(REPEATS):
                with ExitStack() as connections:
                    sides = {
                        side: connections.enter_context(written(name, prepared(name, place, side)))
                        for side, place in places.items()
                    }
                    single.append(in_turns(sides, 0, singles, 1, SINGLE_TURNS))
                    batches.append(in_turns(sides, singles, rows, BATCH_ROWS, BATCH_TURNS))
            title = places[OURS].name
        add(table, title, f"{BATCH_ROWS:,} at a time", batches, by_hand=BATCH_BOUND)
        add(table, title, "one at a time", single, by_hand=BATCH_BOUND, nothing=SINGLE_BOUND)
    table.notes.append("every commit waits for the disk: fsync and synchronous_commit on, synchronous = FULL")
    yield table


def prepared(name: str, place: Place, side: str) -> str:
    """A fresh database with an empty table, and what captures its inserts."""
    url = place.renew()
    if side == OURS:
        with pinnacle(url) as db:
            db.add(Listener(model=word_count, key="body", select=place.query(), output="words"))
    elif side != NOTHING:
        with connected(url) as connection:
            for statement in WAYS[name][side]:
                connection.exec_driver_sql(statement)
    return url


def in_turns(sides: Mapping[str, Write], first: int, count: int, a_statement: int, turns: int) -> Run:
    """Have each side commit ``count`` rows from key ``first`` on, a part of them a turn."""
    seconds: Run = {side: [] for side in sides}
    a_turn, order = count // turns, list(sides)
    for start in range(first, first + count, a_turn):
        for side in order:
            began = time.perf_counter()
            for key in range(start, start + a_turn, a_statement):
                sides[side](key, min(key + a_statement, start + a_turn))
            seconds[side].append(time.perf_counter() - began)
        order = [*order[1:], order[0]]
    return seconds


def total(runs: list[Run], side: str, of: Callable[[list[float]], float]) -> float:
    """The sum over turns of the best or the median of each turn's repeats."""
    return sum(of(list(repeats)) for repeats in zip(*(run[side] for run in runs), strict=True))


def add(
    table: Table, database: str, kind: str, runs: list[Run], *, by_hand: float, nothing: float | None = None
) -> None:
    """One row; ``by_hand`` and ``nothing`` bound the ratios to these sides."""
    best, medians = ({side: total(runs, side, of) for side in runs[0]} for of in (min, statistics.median))
    ratios = [which[OURS] / which[other] for other in (BY_HAND, NOTHING) for which in (best, medians)]
    table.add(
        database, kind, best[NOTHING], best[BY_HAND], best.get(NOTIFYING, "-"), best[OURS],
        *ratios[:2], by_hand, *ratios[2:], "-" if nothing is None else nothing,
        holds=ratios[0] <= by_hand and (nothing is None or ratios[2] <= nothing),
    )  # fmt: skip


@contextmanager
def written(name: str, url: str) -> Iterator[Write]:
    """The plain driver's way to commit rows, over a connection of its own."""
    if name == "sqlite":
        with closing(sqlite3.connect(sa.make_url(url).database or "", isolation_level=None)) as file:
            file.execute("PRAGMA synchronous = FULL")
            yield lambda first, last: into_sqlite(file, first, last)
    else:
        with connect(url) as server:
            yield lambda first, last: into_postgres(server, first, last)


def into_sqlite(connection: sqlite3.Connection, first: int, last: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO docs (id, body) VALUES (?, ?)", [(key, BODY) for key in range(first, last)])
    connection.execute("COMMIT")


def into_postgres(connection: psycopg.Connection[tuple[object, ...]], first: int, last: int) -> None:
    if last - first == 1:
        connection.execute("INSERT INTO docs (id, body) VALUES (%s, %s)", (first, BODY))
        return
    keys = list(range(first, last))
    connection.execute(
        "INSERT INTO docs (id, body) SELECT * FROM unnest(%b::integer[], %b::text[])", (keys, [BODY] * len(keys))
    )
