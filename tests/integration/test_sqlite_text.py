"""Text in a SQLite file that is not UTF-8, as programs in other languages leave it."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from pinnacle import Listener, model, pinnacle
from pinnacle.base.rows import UnreadableKey

DOCS = sa.table("docs", sa.column("id"), sa.column("body"))


@model
def length_unless_bad(body: str) -> int:
    if body.endswith("\udcee"):
        raise ValueError("cannot read this")
    return len(body)


def test_rows_that_are_not_utf8_are_rows_like_others(tmp_path):
    path = tmp_path / "latin.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)")
        connection.executemany("INSERT INTO docs VALUES (?, ?)", [(i, f"text {i}") for i in range(10)])
        connection.execute("INSERT INTO docs VALUES (100, CAST(x'66e96cff' AS TEXT)), (101, CAST(x'66ee' AS TEXT))")
    connection.close()
    db = pinnacle(f"sqlite:///{path}")
    first = length_unless_bad.predict(X="body", db=db, select=sa.select(DOCS))
    again = length_unless_bad.predict(X="body", db=db, select=sa.select(DOCS))
    found = dict(db.execute(sa.text("SELECT id, body__length_unless_bad FROM docs")).all())
    assert found == {**dict.fromkeys(range(10), 6), 100: 4, 101: None}
    assert (first.written, first.failed) == (11, 1)
    assert (again.fresh, again.set_aside, again.calls) == (11, 1, 0)
    assert [error.key for error in db.errors()] == [101]
    db.close()


def test_a_row_that_comes_without_a_key_stops_no_listener(tmp_path):
    db = pinnacle(f"sqlite:///{tmp_path / 'keyless.db'}")
    with db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE docs (id TEXT PRIMARY KEY, body TEXT)")
        connection.exec_driver_sql("INSERT INTO docs VALUES ('a', 'one')")
    select = sa.select(DOCS)
    db.add(Listener(model=length_unless_bad, key="body", select=select, output="length", identifier="lengths"))
    db.listen()
    db.drain()
    with db.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO docs (id, body) VALUES (NULL, 'x'), (NULL, 'y'), ('b', 'three')")
    db.drain()
    assert dict(db.execute(sa.text("SELECT id, length FROM docs WHERE id IS NOT NULL")).all()) == {"a": 3, "b": 5}
    assert [error.key for error in db.errors()] == [UnreadableKey("NULL")]
    db.close()
