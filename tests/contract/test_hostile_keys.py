"""Keys of every type that a primary key can have, also with values that Python has none for: their rows are rows."""

from __future__ import annotations

from collections import Counter

import pytest
import sqlalchemy as sa

from pinnacle import Database, Listener, model
from pinnacle.backends.protocol import Capability
from tests import hostile
from tests.databases import UserDatabase
from tests.hostile import SQLITE_TYPES
from tests.models import CALLS, note

pytestmark = [
    pytest.mark.requires(Capability.SQL),
    pytest.mark.filterwarnings("ignore:Type object .* does not refer to an OperatorClass"),  # of SQLAlchemy's MONEY
]
SEED = 7


@model(identifier="fussy", max_attempts=1)
def fussy(body: str) -> str:
    if note(body).endswith("3"):
        raise ValueError(body)
    return body.upper()


def tables(backend: UserDatabase, every: int = 1) -> dict[str, int]:
    """A table for each type of key, or for some of them, with how many rows it has."""
    found = {}
    if backend.name == "sqlite":
        for number, kind in enumerate([kind for kind in SQLITE_TYPES if kind != "INTEGER"][::every]):
            found[f"t{number}"] = hostile.sqlite_keys(backend.engine, f"t{number}", kind, SEED)
    else:
        for number, (kind, generate) in enumerate(hostile.postgres_key_types(backend.engine)[::every]):
            found[f"t{number}"] = hostile.postgres_keys(backend.engine, f"t{number}", kind, generate, SEED)
    return {table: rows for table, rows in found.items() if rows}


def query(table: str) -> sa.Select:
    return sa.select(sa.table(table, sa.column("k"), sa.column("body")))


def check(backend: UserDatabase, db: Database, table: str) -> None:
    """All rows are right, but those whose body the model refuses."""
    with backend.engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(sa.text(f"SELECT body, said FROM {table}"))]
    refused = sum(body.endswith("3") for body, _ in rows)
    right = {body: said for body, said in rows if not body.endswith("3")}
    assert right == {body: body.upper() for body in right}
    assert len([error for error in db.errors() if error.output.endswith(f"{table}.said")]) == refused


def test_rows_with_keys_of_any_type_are_computed_and_stay_fresh(backend, db):
    for table, rows in tables(backend).items():
        CALLS.clear()
        first = fussy.predict(X="body", db=db, select=query(table), output="said")
        again = fussy.predict(X="body", db=db, select=query(table), output="said")
        check(backend, db, table)
        assert (first.read, first.written + first.failed, again.calls) == (rows, rows, 0)
        assert again.fresh == first.written
        assert max(Counter(CALLS).values()) == 1


def test_such_rows_can_be_tried_again(backend, db):
    for table in tables(backend, every=4):
        fussy.predict(X="body", db=db, select=query(table), output="said")
    before = len(db.errors())
    with backend.engine.begin() as connection:
        for table in tables_in(backend):
            connection.exec_driver_sql(f"UPDATE {table} SET body = body || '.'")
    results = db.retry_errors()
    assert sum(result.written for result in results) == before > 0
    assert db.errors() == []


def tables_in(backend: UserDatabase) -> list[str]:
    return [name for name in sa.inspect(backend.engine).get_table_names() if not name.startswith("pinnacle")]


def test_a_listener_works_off_changes_of_such_rows(backend, db):
    found = tables(backend, every=2)
    for table in found:
        db.add(Listener(model=fussy, key="body", select=query(table), output="said", identifier=table))
    db.listen()
    db.drain()
    with backend.engine.begin() as connection:
        for table in found:
            connection.exec_driver_sql(f"UPDATE {table} SET body = body || ' more'")
    db.drain()
    for table, rows in found.items():
        check(backend, db, table)
        assert db.fresh(table).fresh == rows
    with backend.engine.begin() as connection:
        for table in found:
            connection.exec_driver_sql(f"UPDATE {table} SET body = body || '3'")
    db.drain()
    for table, rows in found.items():
        assert db.fresh(table).failed == rows
    with backend.engine.begin() as connection:
        for table in found:
            connection.exec_driver_sql(f"DELETE FROM {table}")
    db.drain()
    assert db.errors() == []
