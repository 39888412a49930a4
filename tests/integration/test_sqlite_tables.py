"""SQLite tables as people declare them: keys of any declaration, STRICT, CHECK constraints."""

from __future__ import annotations

import sqlite3
from datetime import datetime

import pytest
import sqlalchemy as sa

from pinnacle import ConfigError, model, pinnacle


@model
def halves(body: str) -> float:
    return len(body) / 2


@model
def is_long(body: str) -> bool:
    return len(body) > 2


@model
def seen_at(body: str) -> datetime:
    return datetime(2020, 1, len(body))


@model
def described(body: str) -> dict:
    return {"length": len(body)}


EXPECTED = {
    "halves": [0.5, 1.0, 1.5],
    "is_long": [False, False, True],
    "seen_at": [datetime(2020, 1, n) for n in (1, 2, 3)],
    "described": [{"length": n} for n in (1, 2, 3)],
}


def open_with(path, statement, keys):
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
        connection.executemany("INSERT INTO t (id, body) VALUES (?, ?)", zip(keys, ("a", "bb", "ccc"), strict=True))
    connection.close()
    db = pinnacle(f"sqlite:///{path}")
    return db, sa.Table("t", sa.MetaData(), autoload_with=db.engine)


@pytest.mark.parametrize(
    ("declaration", "keys"),
    [
        ("DATETIME", ("2020-01-01", "x", 5)), ("UUID", ("ab", "cd", "ef")), ("NUMERIC", (1, "b", 2.5)),
        ("", (1, "b", b"zz")), ("BLOB", (b"1", b"2", b"3")), ("VARCHAR(2) COLLATE NOCASE", ("A", "b", "C")),
    ],
)  # fmt: skip
def test_keys_of_any_declaration_find_their_rows_again(tmp_path, declaration, keys):
    db, table = open_with(tmp_path / "odd.db", f"CREATE TABLE t (id {declaration} PRIMARY KEY, body TEXT)", keys)
    first = halves.predict(X="body", db=db, select=sa.select(table))
    again = halves.predict(X="body", db=db, select=sa.select(table))
    column = db.output(table, "body", "halves")
    found = db.execute(sa.select(column).order_by(table.c.body)).scalars().all()
    assert (first.written, again.fresh, again.calls) == (3, 3, 0)
    assert found == EXPECTED["halves"]
    db.close()


@pytest.mark.parametrize("made", [halves, is_long, seen_at, described], ids=lambda made: made.identifier)
def test_strict_tables_take_every_kind_of_output(tmp_path, made):
    db, table = open_with(
        tmp_path / "strict.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT) STRICT", (1, 2, 3)
    )
    made.predict(X="body", db=db, select=sa.select(table))
    assert made.predict(X="body", db=db, select=sa.select(table)).fresh == 3
    found = db.execute(sa.select(db.output(table, "body", made)).order_by(table.c.id)).scalars().all()
    assert found == EXPECTED[made.identifier]
    db.close()


def test_a_value_the_table_refuses_leaves_its_neighbours_as_they_should_be(tmp_path):
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, j JSON CHECK (j NOT LIKE '%2%'))"
    db, table = open_with(tmp_path / "check.db", statement, (1, 2, 3))
    result = described.predict(X="body", db=db, select=sa.select(table), output="j")
    found = db.execute(sa.select(table.c.j).order_by(table.c.id)).scalars().all()
    assert (result.written, result.failed) == (2, 1)
    assert found == [{"length": 1}, None, {"length": 3}]
    assert [error.error for error in db.errors()] == ["RowRejected"]
    db.close()


def test_an_output_named_as_a_column_but_for_case_is_refused_before_anything_is_made(tmp_path):
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, Half REAL)"
    db, table = open_with(tmp_path / "alike.db", statement, (1, 2, 3))
    with pytest.raises(ConfigError, match="has a column 'Half', and the database takes 'half' for the same name"):
        halves.predict(X="body", db=db, select=sa.select(table), output="half")
    assert db.outputs() == []
    db.close()
