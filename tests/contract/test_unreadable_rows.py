"""Values that a row holds and that no program can take: the row is set aside, its neighbours are not."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pinnacle import Dataset, Listener, ModelError, model
from pinnacle.backends.protocol import Capability
from tests.contract.lines import create_points, fit
from tests.databases import UserDatabase
from tests.models import note

TABLE = "events"

pytestmark = pytest.mark.requires(Capability.SQL)


@model(identifier="told", max_attempts=1)
def told(value: object) -> str:
    return f"{note(value)}"


def create(backend: UserDatabase) -> None:
    """A table of five moments; the third is none that Python has."""
    kind = "DATETIME" if backend.name == "sqlite" else "timestamp"
    statement(backend, f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, at {kind})")
    for key in range(1, 6):
        moment = bad(backend) if key == 3 else f"2024-01-0{key} 00:00:00"
        statement(backend, f"INSERT INTO {TABLE} (id, at) VALUES ({key}, '{moment}')")


def bad(backend: UserDatabase) -> str:
    return "" if backend.name == "sqlite" else "infinity"


def statement(backend: UserDatabase, text: str) -> None:
    with backend.engine.begin() as connection:
        connection.exec_driver_sql(text)


def found(backend: UserDatabase) -> dict[int, str]:
    with backend.engine.connect() as connection:
        return dict(map(tuple, connection.execute(sa.text(f"SELECT id, said FROM {TABLE} ORDER BY id"))))


def query() -> sa.Select:
    return sa.select(sa.table(TABLE, sa.column("id"), sa.column("at")))


OUTPUTS = {key: f"2024-01-0{key} 00:00:00" for key in (1, 2, 4, 5)} | {3: None}


def test_a_value_that_cannot_be_read_costs_its_row_alone(backend, db, calls):
    create(backend)
    first = told.predict(X="at", db=db, select=query(), output="said")
    again = told.predict(X="at", db=db, select=query(), output="said")
    assert found(backend) == OUTPUTS
    assert (first.written, first.failed, first.read, len(calls)) == (4, 1, 5, 4)
    assert (again.fresh, again.set_aside, again.failed) == (4, 1, 0)
    (error,) = db.errors()
    assert (error.key, error.attempts) == (3, 1)
    assert error.message
    assert error.traceback


def test_a_change_of_the_row_tries_it_again(backend, db):
    create(backend)
    told.predict(X="at", db=db, select=query(), output="said")
    statement(backend, f"UPDATE {TABLE} SET at = '2024-01-03 00:00:00' WHERE id = 3")
    assert told.predict(X="at", db=db, select=query(), output="said").written == 1
    assert found(backend) == OUTPUTS | {3: "2024-01-03 00:00:00"}
    assert db.errors() == []


def test_the_same_value_can_be_tried_again(backend, db):
    create(backend)
    told.predict(X="at", db=db, select=query(), output="said")
    (result,) = db.retry_errors()
    assert (result.failed, result.written) == (1, 0)
    assert [error.key for error in db.errors()] == [3]


def test_such_a_row_is_raised_for_where_that_is_asked_for(backend, db):
    create(backend)
    with pytest.raises(ModelError, match="the row with key 3 cannot be read") as raised:
        told.predict(X="at", db=db, select=query(), output="said", on_error="raise")
    assert raised.value.keys == (3,)
    assert [error.key for error in db.errors()] == [3]


def test_a_dry_run_tells_of_such_a_row(backend, db):
    create(backend)
    result = told.predict(X="at", db=db, select=query(), output="said", dry_run=True)
    assert (result.computed, result.failed) == (4, 1)
    assert db.errors() == []


def test_a_listener_works_off_the_neighbours_and_drains(backend, db, calls):
    create(backend)
    db.add(Listener(model=told, key="at", select=query(), output="said", identifier="ears"))
    before = db.fresh("ears")
    db.listen()
    db.drain()
    statement(backend, f"UPDATE {TABLE} SET at = '{bad(backend)}' WHERE id = 1")
    statement(backend, f"INSERT INTO {TABLE} (id, at) VALUES (6, '2024-01-06 00:00:00')")
    db.drain()
    assert {key: value for key, value in found(backend).items() if key != 1} == {
        key: value for key, value in {**OUTPUTS, 6: "2024-01-06 00:00:00"}.items() if key != 1
    }
    fresh = db.fresh("ears")
    assert (before.missing, before.failed, before.stale) == (4, 1, 0)
    assert (fresh.fresh, fresh.failed, fresh.missing, fresh.stale) == (4, 2, 0, 0)
    assert sorted(error.key for error in db.errors()) == [1, 3]
    assert len(calls) == 5
    statement(backend, f"UPDATE {TABLE} SET at = '2024-01-03 00:00:00' WHERE id IN (1, 3)")
    db.drain()
    assert db.fresh("ears").fresh == 6
    assert db.errors() == []


def test_a_fit_leaves_such_rows_out_and_counts_them(backend, db, cache_dir):
    create_points(backend)
    deep = '{"a":' * 5_000 + "1" + "}" * 5_000
    statement(backend, f"UPDATE points SET meta = '{deep}' WHERE id = 3")
    held_out = Dataset("held_out", select=backend.query("points"), X=("meta.x", "y"))
    run = fit(backend, db, X=("meta.x", "y"), validation_sets=[held_out])
    assert run.rows == {"train": 7, "held_out": 7}
    assert run.left_out == {"that cannot be read": 2}
