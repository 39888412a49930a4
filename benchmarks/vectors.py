"""What a listener costs an update of a column that it does not read, in rows that hold a large vector."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pgvector.sqlalchemy  # noqa: F401 - teaches SQLAlchemy to reflect vector columns
import psycopg
import sqlalchemy as sa

from benchmarks.ceilings.postgres import connect
from benchmarks.models import word_count
from benchmarks.places import Place, connected, opened
from benchmarks.table import Table
from benchmarks.writer_cost import Run, total
from pinnacle import Listener, pinnacle

ROWS, DIM, REPEATS = 10_000, 1536, 5
MANY, SINGLES = 250, 1_000
BOUND = 1.15
PLAIN, LISTENED = "plain", "listened"
HEADINGS = (
    "database", "rows a statement", "rows", "no trigger s", "median", "ours s", "median", "ratio", "of medians",
    "at most", "holds",
)  # fmt: skip


def run(databases: tuple[str, ...], *, rows: int = ROWS) -> Iterator[Table]:
    """Every row is updated once a repeat; the two tables take turns, statement by statement."""
    if "postgres" not in databases:
        return
    table = Table(f"L3. An update of another column beside a vector({DIM}), listener on the text", HEADINGS)
    many, single = list[Run](), list[Run]()
    with opened("postgres", 0) as place:
        for _ in range(REPEATS):
            with connect(prepared(place, rows)) as connection:
                single.append(in_turns(connection, range(1, SINGLES + 1), 1))
                many.append(in_turns(connection, range(SINGLES + 1, rows + 1), MANY))
    for a_statement, count, runs in ((MANY, rows - SINGLES, many), (1, SINGLES, single)):
        best, medians = ([total(runs, side, of) for side in (PLAIN, LISTENED)] for of in (min, statistics.median))
        ratio = best[1] / best[0]
        table.add(
            "PostgreSQL", a_statement, count, best[0], medians[0], best[1], medians[1], ratio, medians[1] / medians[0],
            BOUND, holds=ratio <= BOUND,
        )  # fmt: skip
    yield table


def prepared(place: Place, rows: int) -> str:
    """A fresh database with two tables of the same rows, one of them listened to."""
    url = place.renew()
    vector = str(np.random.default_rng(3).random(DIM, dtype=np.float32).tolist())
    columns = f"id integer PRIMARY KEY, body text, views integer, embedding vector({DIM})"
    with connect(url) as connection:
        connection.execute("CREATE EXTENSION vector")
        for name in (PLAIN, LISTENED):
            connection.execute(f"CREATE TABLE {name} ({columns})")
            connection.execute(
                f"INSERT INTO {name} SELECT n, 'a text that is not changed ' || n, 0, %s FROM generate_series(1, %s) n",
                (vector, rows),
            )
        connection.execute(f"ALTER TABLE {PLAIN} ADD COLUMN words bigint")
    with connected(url) as reading, pinnacle(url) as db:
        listened = sa.Table(LISTENED, sa.MetaData(), autoload_with=reading)
        db.add(Listener(model=word_count, key="body", select=sa.select(listened), output="words"))
    with connect(url) as connection:
        connection.execute(f"VACUUM ANALYZE {PLAIN}, {LISTENED}")
        connection.execute("CHECKPOINT")
    return url


def in_turns(connection: psycopg.Connection[tuple[object, ...]], keys: Sequence[int], a_statement: int) -> Run:
    """The seconds of each statement, by table."""
    seconds: Run = {PLAIN: [], LISTENED: []}
    for turn, first in enumerate(keys[::a_statement]):
        for name in (PLAIN, LISTENED) if turn % 2 else (LISTENED, PLAIN):
            statement = f"UPDATE {name} SET views = views + 1 WHERE id BETWEEN %s AND %s"
            began = time.perf_counter()
            connection.execute(statement, (first, first + a_statement - 1))
            seconds[name].append(time.perf_counter() - began)
    return seconds
