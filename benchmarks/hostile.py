"""Rows of hostile values of every type of a database: each is right, or set aside with its key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from benchmarks import hostile_documents
from benchmarks.places import opened
from benchmarks.table import Table
from pinnacle import Database, Listener, model, pinnacle
from tests import hostile
from tests.hostile import TABLE, UNREADABLE, Hostile

ROWS, SEED, PATIENCE_S = 10_000, 12, 300.0
HEADINGS = (
    "database", "way", "rows", "types", "readable", "set aside", "wrong", "calls", "fresh", "failed", "s", "holds",
)  # fmt: skip
CALLS: list[Any] = []


@model(identifier="tell", max_attempts=1, skip_null=False)
def tell(*values: object) -> str:
    """Of a row that has one value, tells that."""
    CALLS.append(values[-1])
    found = [value for value in values[:-1] if value is not None]
    return hostile.told(found[0]) if found else "nothing"


def run(databases: tuple[str, ...], *, rows: int = ROWS, seed: int = SEED) -> Iterator[Table]:
    """By a predict, and by a listener over the same table, which then is changed as a whole."""
    table = Table(f"{rows:,} rows of hostile values, a generator over all types of the database, seed {seed}", HEADINGS)
    for name in databases:
        with opened(name, 1) as place:
            url = place.renew()
            if name == "mongodb":
                hostile_documents.measure(table, place.name, url, rows=rows, seed=seed)
                continue
            engine = sa.create_engine(url)
            made = (hostile.sqlite_table if name == "sqlite" else hostile.postgres_table)(engine, rows, seed)
            with pinnacle(url) as db:
                for way, work in (("predict", predicted), ("listener", listened)):
                    CALLS.clear()
                    began = time.monotonic()
                    work(db, made)
                    seconds = time.monotonic() - began
                    verdict(table, place.name, way, engine, db, made, seconds)
            engine.dispose()
    yield table


def query(made: Hostile) -> Any:
    return sa.select(made.table)


def predicted(db: Database, made: Hostile) -> None:
    tell.predict(X=(*made.columns, "id"), db=db, select=query(made), output="predicted", progress=False)


def listened(db: Database, made: Hostile) -> None:
    key = (*made.columns, "id")
    db.add(Listener(model=tell, key=key, select=query(made), output="listened", identifier="listener"))
    db.listen()
    db.drain(PATIENCE_S)


def verdict(
    table: Table, database: str, way: str, engine: sa.Engine, db: Database, made: Hostile, seconds: float
) -> None:
    """One row of the table: what came of each row beside what SQLAlchemy alone reads."""
    name = f"{way}ed" if way == "predict" else "listened"
    wanted = hostile.expected(engine, made)
    bad = {key for key, value in wanted.items() if value is UNREADABLE}
    errors = {error.key for error in db.errors(limit=4 * len(wanted)) if error.output.endswith(f".{name}")}
    with engine.connect() as connection:
        found = dict(map(tuple, connection.execute(sa.text(f"SELECT id, {name} FROM {TABLE}"))))
    right = {key: "nothing" if value is None else value for key, value in wanted.items() if key not in bad}
    wrong = sum(found[key] != value for key, value in right.items()) + len(errors ^ bad)
    counts = db.fresh("listener") if way == "listener" else None
    fresh, failed = (counts.fresh, counts.failed) if counts else (len(right), len(bad))
    adds_up = (fresh, failed) == (len(right), len(bad))
    table.add(
        database, way, len(wanted), len(made.columns), len(right), len(errors), wrong, len(CALLS), fresh, failed,
        seconds, holds=wrong == 0 and adds_up and len(CALLS) == len(right),
    )  # fmt: skip
