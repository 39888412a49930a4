"""A PostgreSQL server that keeps text as LATIN1, which has no form for most characters."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pinnacle import Listener, Model, model, pinnacle
from tests.databases import database_on, new_name, run_on
from tests.models import CALLS, note

DOCS = sa.table("docs", sa.column("id"), sa.column("body"))


@model(identifier="quoting", max_attempts=1)
def quoting(body: str) -> str:
    note(body)
    if body == "row 5":
        raise ValueError("not “this” one \U0001f600")
    return "a “curly” answer" if body == "row 3" else f"é {body}"


@pytest.fixture
def db(postgres_server):
    CALLS.clear()
    name = new_name()
    run_on(postgres_server, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pinnacle(database_on(postgres_server, name)) as handle:
        with handle.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE docs (id integer PRIMARY KEY, body text)")
            connection.exec_driver_sql("INSERT INTO docs SELECT g, 'row ' || g FROM generate_series(1, 9) g")
        yield handle
    run_on(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def outputs(db, name):
    return dict(map(tuple, db.execute(sa.text(f"SELECT id, {name} FROM docs ORDER BY id"))))


RIGHT = {key: None if key in (3, 5) else f"é row {key}" for key in range(1, 10)}


def test_an_answer_that_the_encoding_lacks_costs_its_row_alone(db):
    first = quoting.predict(X="body", db=db, select=sa.select(DOCS), output="said")
    again = quoting.predict(X="body", db=db, select=sa.select(DOCS), output="said")
    assert outputs(db, "said") == RIGHT
    assert (first.written, first.failed, again.set_aside, len(CALLS)) == (7, 2, 2, 9)
    errors = {error.key: error for error in db.errors()}
    assert set(errors) == {3, 5}
    assert errors[5].message == r"not \u201cthis\u201d one \U0001f600"


def test_a_paid_answer_that_the_encoding_lacks_is_not_paid_for_twice(db):
    async def answer(model, prompt):
        note(prompt)
        return ("\u201ccurly\u201d" if prompt == "row 3" else prompt), (1, 1)

    paid = Model.from_function("paid", fn=answer, cost=(1e-6, 1e-6), max_attempts=1)
    first = paid.predict(X="body", db=db, select=sa.select(DOCS), output="said")
    db.retry_errors()
    assert (first.written, first.failed, len(CALLS)) == (8, 1, 9)
    assert [error.key for error in db.errors()] == [3]


def test_a_listener_goes_on_past_it(db):
    db.add(Listener(model=quoting, key="body", select=sa.select(DOCS), output="said", identifier="ears"))
    db.listen()
    db.drain()
    assert outputs(db, "said") == RIGHT
    assert (db.fresh("ears").fresh, db.fresh("ears").failed) == (7, 2)
