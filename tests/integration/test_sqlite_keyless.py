"""SQLite: rows whose key is NULL are set aside, and their neighbours are computed."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from pinnacle import Listener, pinnacle
from pinnacle.base.rows import UnreadableKey
from tests.models import CALLS, shout

NULL = UnreadableKey("NULL")
TABLES = {
    "one column": ("id TEXT PRIMARY KEY, body TEXT", [("b",), (None,), ("NULL",), (None,)], [NULL]),
    "INT, which is no rowid": ("id INT PRIMARY KEY, body TEXT", [(1,), (None,)], [NULL]),
    "several columns": (
        "a TEXT, b INTEGER, body TEXT, PRIMARY KEY (a, b)",
        [("x", 1), (None, 1), ("x", None), (None, 1)],
        [(NULL, 1), ("x", NULL)],
    ),
    "none but rows without": ("id TEXT PRIMARY KEY, body TEXT", [(None,)], [NULL]),
}


@contextmanager
def plain(url):
    """The driver's connection to the file."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def make(url, name):
    """The table, and how many of its rows have a key."""
    columns, keys, _ = TABLES[name]
    with plain(url) as connection:
        connection.execute(f"CREATE TABLE docs ({columns})")
        insert(connection, *keys)
    return sum(None not in key for key in keys)


def insert(connection, *keys):
    values = f"{'?, ' * len(keys[0])}'hello'"
    names = [row[1] for row in connection.execute("PRAGMA table_info(docs)") if row[1] != "loud"]
    connection.executemany(f"INSERT INTO docs ({', '.join(names)}) VALUES ({values})", keys)


def select(db):
    return sa.select(sa.Table("docs", sa.MetaData(), autoload_with=db.engine))


def told(db):
    return [error.key for error in sorted(db.errors(), key=lambda error: str(error.key))]


@pytest.fixture
def db(sqlite_url):
    CALLS.clear()
    with pinnacle(sqlite_url) as handle:
        yield handle


@pytest.mark.parametrize("name", TABLES)
def test_predict_sets_them_aside_and_computes_the_others(sqlite_url, db, name):
    sound, bad = make(sqlite_url, name), sorted(TABLES[name][2], key=str)
    result = shout.predict(X="body", db=db, select=select(db), output="loud")
    assert (result.read, result.written, result.failed) == (sound + len(bad), sound, len(bad))
    assert told(db) == bad
    assert all("no primary key" in error.message for error in db.errors())
    again = shout.predict(X="body", db=db, select=select(db), output="loud")
    assert (again.fresh, again.set_aside, again.failed) == (sound, len(bad), 0)
    assert [result.failed for result in db.retry_errors(shout)] == [len(bad)]
    assert told(db) == bad
    with plain(sqlite_url) as connection:
        connection.execute(f"DELETE FROM docs WHERE {TABLES[name][0].split()[0]} IS NULL")
    shout.predict(X="body", db=db, select=select(db), output="loud")
    assert told(db) == [key for key in bad if key == ("x", NULL)]


@pytest.mark.parametrize("name", TABLES)
def test_a_listener_sets_them_aside_and_goes_on(sqlite_url, db, name):
    sound, bad = make(sqlite_url, name), sorted(TABLES[name][2], key=str)
    db.add(Listener(model=shout, key="body", select=select(db), output="loud"))
    db.listen()
    db.drain(timeout_s=600)
    assert told(db) == bad
    fresh = db.fresh("docs.loud")
    assert (fresh.fresh, fresh.failed, fresh.stale, fresh.missing) == (sound, len(bad), 0, 0)
    width = len(TABLES[name][1][0])
    with plain(sqlite_url) as connection:
        insert(connection, (None,) * width, (7,) * width)
    db.drain(timeout_s=600)
    all_null = NULL if width == 1 else (NULL,) * width
    assert told(db) == sorted({str(key): key for key in [*bad, all_null]}.values(), key=str)
    assert db.fresh("docs.loud").fresh == sound + 1
    with plain(sqlite_url) as connection:
        first = TABLES[name][0].split()[0]
        connection.execute(f"UPDATE docs SET {first} = 100 + rowid WHERE {first} IS NULL")
    db.drain(timeout_s=600)
    assert told(db) == [key for key in told(db) if isinstance(key, tuple) and key[0] is not NULL]
    assert [row[0] for row in db.execute("SELECT loud FROM docs WHERE " + first + " > 100").all()] != []
