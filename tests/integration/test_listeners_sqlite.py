"""Listeners on SQLite: triggers that any program can live with, and writers that do as they please."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import sqlalchemy as sa

from pinnacle import ConfigError, Listener, UnsupportedTable, model, pinnacle
from tests.contract.documents import wait_until
from tests.models import CALLS, note, shout

pytestmark = pytest.mark.usefixtures("impatient_workers")

DOCS = sa.table("docs", sa.column("id"), sa.column("body"), sa.column("n"))


@pytest.fixture
def path(tmp_path):
    """A user's file with three rows."""
    CALLS.clear()
    file = tmp_path / "user.db"
    run_sql(
        file,
        "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT, n)",
        "INSERT INTO docs (body, n) VALUES ('a', 1), ('b', 2), ('c', 3)",
    )
    return file


@pytest.fixture
def db(path):
    with pinnacle(f"sqlite:///{path}") as handle:
        yield handle


def run_sql(file, *statements):
    """Statements by the plain driver in one transaction, as another program would; the last one's rows."""
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def keep(db, the_model=shout, *, table=DOCS, **options):
    """A listener over a table, filled, with a worker that goes on working; the calls so far are forgotten."""
    options = {"key": "body", "select": sa.select(table), "output": "loud", **options}
    listener = db.add(Listener(model=the_model, **options))
    db.listen()
    db.drain()
    CALLS.clear()
    return listener


def loud(path, table="docs", key="id"):
    return dict(run_sql(path, f'SELECT "{key}", loud FROM "{table}" ORDER BY 1'))


def triggers(path):
    return {row[0] for row in run_sql(path, "SELECT name FROM sqlite_master WHERE type = 'trigger'")}


# -- what the triggers see --------------------------------------------------------------------------------


def test_a_program_that_knows_nothing_of_pinnacle_writes_freely(path, db):
    keep(db)
    script = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute("INSERT INTO docs (body) VALUES ('new')")
    connection.execute("UPDATE docs SET body = 'z' WHERE id = 1")
    connection.execute("DELETE FROM docs WHERE id = 2")
"""
    subprocess.run([sys.executable, "-I", "-c", script, str(path)], check=True)
    db.drain()
    assert loud(path) == {1: "Z", 3: "C", 4: "NEW"}


@pytest.mark.parametrize("recursive", ["OFF", "ON"])
def test_insert_or_replace_is_followed(path, db, recursive):
    keep(db)
    run_sql(
        path,
        f"PRAGMA recursive_triggers = {recursive}",
        "INSERT OR REPLACE INTO docs (id, body) VALUES (1, 'z'), (2, 'b')",
        "REPLACE INTO docs (id, body) VALUES (9, 'new')",
    )
    db.drain()
    assert loud(path) == {1: "Z", 2: "B", 3: "C", 9: "NEW"}


def test_a_row_that_a_replace_pushed_out_is_forgotten_by_the_sweep(path, db):
    run_sql(path, "CREATE UNIQUE INDEX one_n ON docs (n)")
    listener = keep(db)
    run_sql(path, "UPDATE OR REPLACE docs SET n = 2 WHERE id = 1", "INSERT OR REPLACE INTO docs VALUES (7, 'x', 3, '')")
    db.sweep(listener)
    db.drain()
    assert loud(path) == {1: "A", 7: "X"}
    assert run_sql(path, "SELECT k0 FROM pinnacle_state_1 ORDER BY 1") == [(1,), (7,)]


def test_an_upsert_is_followed(path, db):
    keep(db)
    run_sql(
        path,
        "INSERT INTO docs (id, body) VALUES (1, 'z'), (8, 'new') "
        "ON CONFLICT (id) DO UPDATE SET body = excluded.body WHERE excluded.body <> docs.body",
    )
    db.drain()
    assert loud(path) == {1: "Z", 2: "B", 3: "C", 8: "NEW"}


def test_cascades_of_foreign_keys_are_followed(path, db):
    run_sql(
        path,
        "CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
        "INSERT INTO authors VALUES (1, 'ann'), (2, 'bob'), (3, 'cid')",
        "CREATE TABLE posts (id INTEGER PRIMARY KEY, author INTEGER REFERENCES authors ON DELETE CASCADE, "
        "name TEXT REFERENCES authors (name) ON UPDATE CASCADE ON DELETE SET NULL)",
        "INSERT INTO posts VALUES (1, 1, 'ann'), (2, 2, 'bob'), (3, NULL, 'cid')",
    )
    keep(db, table=sa.table("posts", sa.column("id")), key="name")
    run_sql(
        path,
        "PRAGMA foreign_keys = ON",
        "DELETE FROM authors WHERE id = 1",
        "UPDATE authors SET name = 'rob' WHERE id = 2",
        "DELETE FROM authors WHERE id = 3",
    )
    db.drain()
    assert loud(path, "posts") == {2: "ROB", 3: None}
    assert CALLS == ["rob"]


def test_deleting_all_rows_is_followed(path, db):
    keep(db)
    run_sql(path, "DELETE FROM docs")
    db.drain()
    assert run_sql(path, "SELECT count(*) FROM pinnacle_state_1") == [(0,)]


def test_changes_that_a_collation_hides_are_seen(path, db):
    run_sql(
        path,
        "CREATE TABLE loose (id TEXT COLLATE NOCASE PRIMARY KEY, body TEXT COLLATE NOCASE, n)",
        "INSERT INTO loose VALUES ('k', 'abc', 1), ('other', 'x', 1)",
    )
    keep(db, model(lambda body, n: f"{note(body)} {n!r}", identifier="m", output_type=str),
         table=sa.table("loose", sa.column("id")), key=("body", "n"))  # fmt: skip
    run_sql(path, "UPDATE loose SET body = 'ABC' WHERE id = 'k'")
    db.drain()
    run_sql(path, "UPDATE loose SET n = 1.0 WHERE id = 'other'")
    db.drain()
    run_sql(path, "UPDATE loose SET id = 'K' WHERE id = 'k'")
    db.drain()
    assert loud(path, "loose") == {"K": "ABC 1", "other": "x 1.0"}
    run_sql(path, "UPDATE loose SET body = 'later' WHERE id = 'K'")
    db.drain()
    assert loud(path, "loose")["K"] == "later 1"


KEYS = {
    "composite": ("a INTEGER, b TEXT, PRIMARY KEY (a, b)", "a, b", ["1, 'x'", "1, 'y'", "2, 'x'"]),
    "without rowid": ("a TEXT PRIMARY KEY, b", "a, b", ["'x', 1", "'y', 2", "'é %', 3"]),
    "real": ("a REAL PRIMARY KEY, b", "a, b", ["1.5, 1", "2, 1", "1e300, 1"]),
    "blob": ("a BLOB PRIMARY KEY, b", "a, b", ["x'00', 1", "x'ff', 1", "x'', 1"]),
    "untyped": ("a PRIMARY KEY, b", "a, b", ["1, 1", "'1', 1", "x'31', 1"]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_any_key_works(path, db, kind):
    declared, columns, rows = KEYS[kind]
    ending = "WITHOUT ROWID" if kind == "without rowid" else ""
    run_sql(path, f"CREATE TABLE keyed ({declared}) {ending}", "ALTER TABLE keyed ADD body TEXT")
    run_sql(path, *(f"INSERT INTO keyed ({columns}, body) VALUES ({row}, 'old')" for row in rows[:2]))
    listener = keep(db, table=sa.table("keyed", sa.column("a")))
    run_sql(
        path, f"INSERT INTO keyed ({columns}, body) VALUES ({rows[2]}, 'new')", "UPDATE keyed SET body = body || '!'"
    )
    db.drain()
    assert run_sql(path, "SELECT count(*) FROM keyed WHERE loud = upper(body) AND body LIKE '%!'") == [(3,)]
    run_sql(path, "DELETE FROM keyed WHERE body = 'new!'")
    db.drain()
    assert (db.fresh(listener).fresh, run_sql(path, "SELECT count(*) FROM pinnacle_state_1")) == (2, [(2,)])


ODD = "a \"b'c %d :e ü"


@pytest.mark.parametrize("on_change", ["keep", "clear"])
def test_names_may_hold_anything(path, db, on_change):
    quoted = '"' + ODD.replace('"', '""') + '"'
    key = quoted[:-1] + 'key"'
    run_sql(
        path,
        f"CREATE TABLE {quoted} ({key} TEXT PRIMARY KEY, {quoted} TEXT)",
        f"INSERT INTO {quoted} VALUES ('1', 'a'), (:x, 'b')".replace(":x", "'%s :y'"),
    )
    table = sa.table(ODD, sa.column(f"{ODD}key"), sa.column(ODD))
    select = sa.select(table).where(table.c[ODD] != "no %s :x", table.c[f"{ODD}key"] != "''")
    keep(db, key=ODD, select=select, output=f"{ODD}out", on_change=on_change, unmatched="clear")
    run_sql(
        path,
        f"UPDATE {quoted} SET {quoted} = 'z' WHERE {key} = '%s :y'",
        f"INSERT INTO {quoted} ({key}, {quoted}) VALUES ('n', 'no %s :x')",
    )
    db.drain()
    run_sql(path, f"UPDATE {quoted} SET {quoted} = 'no %s :x' WHERE {key} = '1'")
    db.drain()
    out = quoted[:-1] + 'out"'
    assert dict(run_sql(path, f"SELECT {key}, {out} FROM {quoted}")) == {"1": None, "%s :y": "Z", "n": None}


def test_the_users_own_trigger_may_change_the_input(path, db):
    run_sql(
        path,
        "CREATE TRIGGER trimmed AFTER UPDATE OF body ON docs WHEN new.body <> trim(new.body) "
        "BEGIN UPDATE docs SET body = trim(new.body) WHERE id = new.id; END",
    )
    keep(db)
    run_sql(path, "UPDATE docs SET body = '  z  ' WHERE id = 1")
    db.drain()
    assert loud(path)[1] == "Z"


def test_an_output_is_blanked_inside_the_users_transaction(path, db):
    keep(db, on_change="clear")
    db.stop()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE docs SET body = 'z' WHERE id = 1")
        connection.execute("UPDATE docs SET n = 9, body = body WHERE id = 2")
        assert connection.execute("SELECT loud FROM docs ORDER BY id").fetchall() == [(None,), ("B",), ("C",)]
        connection.rollback()
    assert loud(path) == {1: "A", 2: "B", 3: "C"}
    run_sql(path, "UPDATE docs SET body = 'z' WHERE id = 1")
    assert loud(path)[1] is None
    db.listen()
    db.drain()
    assert loud(path)[1] == "Z"


# -- tables that change -------------------------------------------------------------------------------------


def rebuild(path, *columns, changes=""):
    """A table made anew, as Alembic's batch mode does; its triggers go with the old one."""
    listed = ", ".join(column.split()[0] for column in columns)
    run_sql(
        path,
        f"CREATE TABLE made_anew ({', '.join(columns)})",
        f"INSERT INTO made_anew SELECT {listed} FROM docs",
        "DROP TABLE docs",
        "ALTER TABLE made_anew RENAME TO docs",
        *([changes] if changes else []),
    )


def test_a_rebuilt_table_is_noticed_and_swept(path, db):
    keep(db)
    before = triggers(path)
    rebuild(path, "id INTEGER PRIMARY KEY", "body TEXT", "n", "loud TEXT", changes="UPDATE docs SET body = 'missed'")
    wait_until(lambda: triggers(path) == before)
    db.drain()
    assert set(loud(path).values()) == {"MISSED"}
    run_sql(path, "UPDATE docs SET body = 'seen' WHERE id = 1")
    db.drain()
    assert loud(path)[1] == "SEEN"


def test_a_change_that_no_trigger_saw_is_found_by_a_sweep(path, db):
    listener = keep(db)
    db.stop()
    names = triggers(path)
    made = [row[0] for row in run_sql(path, "SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
    run_sql(path, *(f"DROP TRIGGER {name}" for name in names), "UPDATE docs SET body = 'z' WHERE id = 1",
            "DELETE FROM docs WHERE id = 2", "UPDATE docs SET loud = 'mine' WHERE id = 3", *made)  # fmt: skip
    db.listen()
    db.drain()
    assert loud(path) == {1: "A", 3: "mine"}
    db.sweep(listener)
    db.drain()
    assert loud(path) == {1: "Z", 3: "C"}
    assert run_sql(path, "SELECT k0 FROM pinnacle_state_1 ORDER BY 1") == [(1,), (3,)]


def running(statement):
    return lambda path: run_sql(path, statement)


def rebuilding(*columns):
    return lambda path: rebuild(path, *columns)


BREAKING = {
    "input renamed": (running("ALTER TABLE docs RENAME COLUMN body TO text"), "'body'.*renamed or dropped"),
    "key renamed": (running("ALTER TABLE docs RENAME COLUMN id TO number"), "'id'.*renamed or dropped"),
    "output renamed": (running("ALTER TABLE docs RENAME COLUMN loud TO mine"), "'loud'.*renamed or dropped"),
    "read by the select, renamed": (running("ALTER TABLE docs RENAME COLUMN n TO m"), "'n'.*renamed or dropped"),
    "table renamed": (running("ALTER TABLE docs RENAME TO papers"), "renamed or dropped|no table"),
    "table dropped": (running("DROP TABLE docs"), "renamed or dropped|no table"),
    "input retyped": (rebuilding("id INTEGER PRIMARY KEY", "body BLOB", "n", "loud TEXT"), "was TEXT and is BLOB"),
    "input dropped": (rebuilding("id INTEGER PRIMARY KEY", "n", "loud TEXT"), "'body'.*dropped|no field"),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKING)
def test_a_table_that_changes_under_a_listener_pauses_it_loudly(path, db, what):
    change, reason = BREAKING[what]
    listener = keep(db, select=sa.select(DOCS).where(DOCS.c.n != 99))
    change(path)
    for table in run_sql(path, "SELECT name FROM sqlite_master WHERE name IN ('docs', 'papers')"):
        columns = [row[1] for row in run_sql(path, f"PRAGMA table_info({table[0]})")]
        rest = ", ".join(f"{column} = 'changed'" for column in columns[1:])
        run_sql(
            path, f"UPDATE {table[0]} SET {rest}", f"INSERT INTO {table[0]} DEFAULT VALUES", f"DELETE FROM {table[0]}"
        )
    wait_until(lambda: db.listeners()[0].paused is not None)
    assert re.search(reason, db.listeners()[0].paused)
    db.remove("listener", listener.identifier)
    assert triggers(path) == set()


def test_a_listener_goes_on_when_its_column_is_back(path, db):
    listener = keep(db)
    run_sql(path, "ALTER TABLE docs RENAME COLUMN body TO text")
    wait_until(lambda: db.listeners()[0].paused is not None)
    run_sql(path, "UPDATE docs SET text = 'z' WHERE id = 1", "ALTER TABLE docs RENAME COLUMN text TO body")
    db.resume(listener)
    db.drain()
    assert loud(path) == {1: "Z", 2: "B", 3: "C"}


def test_nothing_of_ours_is_left_when_a_listener_is_removed(path, db):
    before = {row[0] for row in run_sql(path, "SELECT name FROM sqlite_master")}
    listener = keep(db)
    db.remove("listener", listener.identifier)
    left = {row[0] for row in run_sql(path, "SELECT name FROM sqlite_master")} - before
    assert not {name for name in left if "outbox" in name or "work" in name}
    assert triggers(path) == set()


@pytest.mark.parametrize("outputs", [False, True])
def test_removing_all_of_pinnacle_leaves_a_table_that_can_be_written(path, db, outputs):
    keep(db, on_change="clear")
    db.stop()
    db.remove_all(outputs=outputs)
    assert not [row for row in run_sql(path, "SELECT name FROM sqlite_master") if "pinnacle" in row[0]]
    run_sql(path, "UPDATE docs SET body = 'z'", "INSERT INTO docs (body) VALUES ('y')", "DELETE FROM docs")


# -- beside the application ---------------------------------------------------------------------------------


def test_an_engine_with_one_connection_is_not_starved(path):
    engine = sa.create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0, pool_timeout=1)
    with pinnacle(engine) as db, engine.connect() as mine:
        keep(db)
        mine.exec_driver_sql("UPDATE docs SET body = 'z' WHERE id = 1")
        mine.commit()
        db.drain()
        assert db.listeners()[0].pending == 0
    engine.dispose()
    assert loud(path)[1] == "Z"


def test_no_lock_is_held_while_a_model_is_called(path, db):
    called, go_on = threading.Event(), threading.Event()

    def slow(body):
        called.set()
        return go_on.wait(20) and body.upper()

    db.add(
        Listener(
            model=model(slow, identifier="slow", output_type=str), key="body", select=sa.select(DOCS), output="loud"
        )
    )
    db.listen()
    called.wait(20)
    with closing(sqlite3.connect(path, timeout=0.5)) as connection, connection:
        connection.execute("UPDATE docs SET body = 'z' WHERE id = 1")
        connection.execute("DELETE FROM docs WHERE id = 2")
    go_on.set()
    db.drain()
    assert loud(path) == {1: "Z", 3: "C"}


def test_a_transaction_that_stays_open_only_delays(path, db):
    keep(db)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE docs SET body = 'z' WHERE id = 1")
        connection.execute("UPDATE docs SET body = 'y' WHERE id = 2")
        connection.execute("COMMIT")
    db.drain()
    assert (loud(path), sorted(CALLS)) == ({1: "Z", 2: "Y", 3: "C"}, ["y", "z"])


def test_a_second_worker_stands_by_and_takes_over(path, db):
    keep(db)
    with pinnacle(f"sqlite:///{path}") as other:
        worker = other.listen()
        wait_until(lambda: worker.standing_by_for is not None)
        db.stop()
        wait_until(lambda: worker.standing_by_for is None)
        run_sql(path, "UPDATE docs SET body = 'z' WHERE id = 1")
        other.drain()
    assert loud(path)[1] == "Z"


def test_what_sqlite_cannot_do_is_refused(path, db, tmp_path):
    with pytest.raises(ConfigError, match="replicated"):
        keep(db, replicated=True)
    other = tmp_path / "other.db"
    run_sql(other, "CREATE TABLE far (id INTEGER PRIMARY KEY, body TEXT)")
    engine = sa.create_engine(f"sqlite:///{path}")
    sa.event.listen(engine, "connect", lambda raw, _: raw.execute(f"ATTACH '{other}' AS other"))
    with pinnacle(engine) as attached, pytest.raises(UnsupportedTable):
        keep(attached, table=sa.table("far", sa.column("id"), schema="other"))
    engine.dispose()
    assert triggers(path) == set()
