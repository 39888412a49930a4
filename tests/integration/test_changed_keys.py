"""SQL: the primary key of a table with outputs becomes another: what is recorded follows, listeners pause and go on."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pinnacle import Listener, Side, pinnacle
from tests.contract.documents import wait_until
from tests.models import CALLS, shout, words

BOTH = ("sqlite", "postgres")
AFTER = {
    "of text": ("id TEXT PRIMARY KEY NOT NULL, n INTEGER", "'a', 1"),
    "of decimals": ("id NUMERIC(9, 1) PRIMARY KEY NOT NULL, n INTEGER", "1.5, 1"),
    "of uuids": ("id UUID PRIMARY KEY NOT NULL, n INTEGER", "'00000000-0000-0000-0000-000000000001', 1"),
    "of two columns": ("id INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (id, n)", "1, 1"),
    "of another column": ("id INTEGER, n INTEGER PRIMARY KEY NOT NULL", "1, 1"),
}
BEFORE = "id INTEGER PRIMARY KEY, n INTEGER"


@pytest.fixture(params=BOTH)
def url(request, impatient_workers):
    CALLS.clear()
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def db(url):
    with pinnacle(url) as handle:
        yield handle


def make(db, columns, *rows, body="'one'"):
    """The table, anew: a migration may do so."""
    head, comma, constraint = columns.partition(", PRIMARY KEY (")
    with db.engine.begin() as connection:
        for statement in (
            "DROP TABLE IF EXISTS docs",
            f"CREATE TABLE docs ({head}, body TEXT, loud TEXT{comma}{constraint})",
            *(f"INSERT INTO docs (id, n, body) VALUES ({row}, {body})" for row in rows),
        ):
            connection.exec_driver_sql(statement)


def run(db, statement):
    with db.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def select(db):
    return sa.select(sa.Table("docs", sa.MetaData(), autoload_with=db.engine))


def loud(db):
    return [row[0] for row in db.execute("SELECT loud FROM docs ORDER BY body").all()]


@pytest.mark.parametrize("key", AFTER)
def test_predict_goes_on_with_another_key_and_back(url, db, key):
    def fill(handle):
        return shout.predict(X="body", db=handle, select=select(handle), output="loud").written

    columns, row = AFTER[key]
    for shape, values in ((BEFORE, "1, 1"), (columns, row), (BEFORE, "7, 1")):
        make(db, shape, values)
        with pinnacle(url) as other:
            assert shout.predict(X="body", db=other, select=select(other), output="loud", dry_run=True).failed == 0
        assert (fill(db), fill(db)) == (1, 0)
        assert loud(db) == ["ONE"]


@pytest.mark.parametrize("key", AFTER)
def test_a_listener_pauses_with_what_to_do_and_goes_on(url, db, key):
    columns, row = AFTER[key]
    make(db, BEFORE, "1, 1", "2, 2")
    listener = db.add(Listener(model=shout, key="body", select=select(db), output="loud"))
    db.listen()
    db.drain(timeout_s=600)
    make(db, columns, row)
    wait_until(lambda: db.listeners()[0].paused is not None)
    assert "now; resume the listener to go on" in db.listeners()[0].paused
    db.resume(listener)
    db.drain(timeout_s=600)
    assert loud(db) == ["ONE"]
    run(db, "UPDATE docs SET body = 'two'")
    db.drain(timeout_s=600)
    assert (loud(db), db.fresh(listener).fresh, db.errors()) == (["TWO"], 1, [])


@pytest.mark.parametrize("key", ["of text", "of two columns"])
def test_a_key_that_changes_while_no_worker_runs_is_followed_by_the_next(url, db, key):
    columns, row = AFTER[key]
    make(db, BEFORE, "1, 1", "2, 2")
    db.add(Listener(model=shout, key="body", select=select(db), output="loud"))
    db.listen()
    db.drain(timeout_s=600)
    db.stop()
    make(db, columns, row)
    with pinnacle(url) as other:
        assert other.fresh("docs.loud").fresh == 0
        other.listen()
        wait_until(lambda: other.listeners()[0].paused is not None or loud(other) == ["ONE"])
        if other.listeners()[0].paused:
            other.resume("docs.loud")
        other.drain(timeout_s=600)
    assert loud(db) == ["ONE"]


def test_items_that_are_kept_by_another_key_are_told_of(url, db):
    make(db, BEFORE, "1, 1")
    db.add(Listener(model=words, key="body", select=select(db), output=Side("parts")))
    db.listen()
    db.drain(timeout_s=600)
    make(db, AFTER["of two columns"][0], "1, 1")
    wait_until(lambda: db.listeners()[0].paused is not None)
    run(db, "DROP TABLE parts")
    db.resume("docs.parts")
    db.drain(timeout_s=600)
    assert db.execute("SELECT value FROM parts").all() == [("one",)]
