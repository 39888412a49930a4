"""Rows of hostile values, from a generator over all types of a database: each is right, or set aside with its key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from pinnacle import Database, Listener, model
from pinnacle.backends.protocol import Capability
from tests import hostile
from tests.databases import UserDatabase
from tests.hostile import TABLE, UNREADABLE, Hostile
from tests.models import CALLS, note

pytestmark = pytest.mark.requires(Capability.SQL)
ROWS, SEED = 450, 20_261_130
NOTHING = "nothing"


@model(identifier="tell", max_attempts=1, skip_null=False)
def tell(*values: object) -> str:
    """Of a row that has one value, tells that."""
    found = [value for value in note(values)[:-1] if value is not None]
    return hostile.told(found[0]) if found else NOTHING


@model(identifier="tell_one", max_attempts=1)
def tell_one(value: object) -> str:
    note(None)
    return hostile.told(value)


@pytest.fixture
def rows(backend) -> Hostile:
    make = hostile.sqlite_table if backend.name == "sqlite" else hostile.postgres_table
    return make(backend.engine, ROWS, SEED)


def stored(backend: UserDatabase, name: str) -> dict[int, Any]:
    with backend.engine.connect() as connection:
        return dict(map(tuple, connection.execute(sa.text(f"SELECT id, {name} FROM {TABLE}"))))


def check(backend: UserDatabase, db: Database, rows: Hostile, name: str, *, keeps_old: bool = False) -> int:
    """Every row is right or set aside; how many are right. ``keeps_old``: rows set aside had an output before."""
    wanted = hostile.expected(backend.engine, rows)
    found, errors = stored(backend, name), {error.key for error in db.errors()}
    bad = {key for key, value in wanted.items() if value is UNREADABLE}
    assert bad
    assert errors == bad
    right = {key: NOTHING if value is None else value for key, value in wanted.items() if key not in bad}
    assert {key: value for key, value in found.items() if key in right} == right
    assert keeps_old or not any(found[key] for key in bad)
    return len(wanted) - len(bad)


def test_each_row_of_a_bulk_predict_is_right_or_set_aside(backend, db, rows):
    first = tell.predict(X=(*rows.columns, "id"), db=db, select=sa.select(rows.table), output="said")
    again = tell.predict(X=(*rows.columns, "id"), db=db, select=sa.select(rows.table), output="said")
    readable = check(backend, db, rows, "said")
    assert (first.read, first.written, first.failed) == (ROWS, readable, ROWS - readable)
    assert len(CALLS) == len(set(map(hash, (values[-1] for values in CALLS)))) == readable
    assert (again.fresh, again.set_aside, again.calls) == (readable, ROWS - readable, 0)


def test_each_row_of_a_listener_is_right_or_set_aside_however_they_change(backend, db, rows):
    db.add(
        Listener(model=tell, key=(*rows.columns, "id"), select=sa.select(rows.table), output="said", identifier="ears")
    )
    db.listen()
    db.drain()
    check(backend, db, rows, "said")
    with backend.engine.begin() as connection:  # each value moves on to another row
        moved = ", ".join(
            f"{name} = (SELECT o.{name} FROM {TABLE} o WHERE o.id = {TABLE}.id + 1)" for name in rows.columns
        )
        connection.exec_driver_sql(f"UPDATE {TABLE} SET {moved} WHERE id < {ROWS}")
        connection.exec_driver_sql(f"DELETE FROM {TABLE} WHERE id = {ROWS}")
    db.drain()
    places = {key - 1: column for key, column in rows.places.items() if key > 1}
    readable = check(backend, db, replace(rows, places=places), "said", keeps_old=True)
    fresh = db.fresh("ears")
    assert (fresh.fresh, fresh.failed, fresh.stale, fresh.missing) == (readable, ROWS - 1 - readable, 0, 0)


def test_each_type_alone_is_right_or_set_aside(backend, db, rows):
    wanted = hostile.expected(backend.engine, rows)
    for column in rows.columns[::7]:
        CALLS.clear()
        place = tell_one.predict(X=column, db=db, select=sa.select(rows.table), output=f"o_{column}")
        mine = {key: value for key, value in wanted.items() if rows.places[key] == column}
        bad = {key for key, value in mine.items() if value is UNREADABLE}
        found = {key: value for key, value in stored(backend, f"o_{column}").items() if key in mine}
        assert found == {key: None if key in bad else value for key, value in mine.items()}
        assert (place.failed, place.written) == (len(bad), ROWS - len(bad))
        assert len(CALLS) <= sum(value not in (None, UNREADABLE) for value in mine.values())
