"""What only SQLite does: files and journal modes, collations and loose types, one writer, many processes."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
import sqlalchemy as sa

from pinnacle import (
    BackendError,
    ConfigError,
    Datetime,
    ModelError,
    Settings,
    UnsupportedTable,
    Vector,
    model,
    pinnacle,
)
from pinnacle.backends.sql.queue import SqlQueue
from tests.contract.documents import wait_until
from tests.contract.processes import logged_calls, start_predict
from tests.models import CALLS, logged, note, picky, shout

DOCS = sa.table("docs", sa.column("id"))


@pytest.fixture
def path(tmp_path):
    """A user's file in SQLite's default journal mode, with three rows."""
    CALLS.clear()
    file = tmp_path / "user.db"
    run_sql(file, "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT, n INTEGER)")
    run_sql(file, "INSERT INTO docs (body, n) VALUES ('a', 1), ('b', 2), ('c', 3)")
    return file


@pytest.fixture
def db(path):
    with pinnacle(f"sqlite:///{path}") as handle:
        yield handle


def run_sql(file, statement, *parameters):
    """One statement by the plain driver, as another program would."""
    with closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def predict(db, the_model=shout, X="body", **options):  # noqa: N803
    return the_model.predict(X=X, db=db, select=sa.select(DOCS), **options)


OUTPUTS = [
    (str, "x", "TEXT", "text", "x"),
    (int, 7, "INTEGER", "integer", 7),
    (float, 0.5, "FLOAT", "real", 0.5),
    (bool, True, "BOOLEAN", "integer", 1),
    (bytes, b"x", "BLOB", "blob", b"x"),
    (dict, {"a": 1}, "JSON", "text", '{"a":1}'),
    (list, [1], "JSON", "text", "[1]"),
    (datetime, datetime(2026, 1, 2), "DATETIME", "text", "2026-01-02 00:00:00.000000"),
    (Datetime(timezone=True), datetime(2026, 1, 2, tzinfo=UTC), "DATETIME", "text", "2026-01-02 00:00:00.000000"),
    (Vector(2), [1.0, 2.0], "BLOB", "blob", np.array([1, 2], "<f4").tobytes()),
]


@pytest.mark.parametrize(
    ("kind", "value", "declared", "stored_as", "stored"), OUTPUTS, ids=[str(o[0]) for o in OUTPUTS]
)
def test_an_output_has_a_real_column_type(path, db, kind, value, declared, stored_as, stored):
    predict(db, model(lambda body: value, identifier="m", output_type=kind), output="out")
    columns = {row[1]: row[2] for row in run_sql(path, "PRAGMA table_info(docs)")}
    assert columns["out"] == declared
    (found,) = run_sql(path, "SELECT DISTINCT typeof(out), out FROM docs")
    if kind in (dict, list):
        assert (found[0], found[1].replace(" ", "")) == (stored_as, stored)
    else:
        assert found == (stored_as, stored)


def test_a_users_journal_mode_is_never_changed(path, db):
    predict(db)
    assert run_sql(path, "PRAGMA journal_mode") == [("delete",)]


def test_a_file_that_pinnacle_makes_is_in_wal_mode(tmp_path):
    file = tmp_path / "new.db"
    with pinnacle(f"sqlite:///{file}") as db:
        db.execute("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)")
        db.execute("INSERT INTO docs (body) VALUES ('a')")
        assert predict(db).written == 1
    assert run_sql(file, "PRAGMA journal_mode") == [("wal",)]


def test_a_users_wal_file_works(path):
    run_sql(path, "PRAGMA journal_mode = WAL")
    with pinnacle(f"sqlite:///{path}") as db:
        assert predict(db).written == 3
    assert run_sql(path, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_an_in_memory_database_is_refused(url):
    with pytest.raises(ConfigError, match="use a file"):
        pinnacle(url)


def test_an_engine_of_an_in_memory_database_is_refused():
    with pytest.raises(ConfigError, match="use a file"):
        pinnacle(sa.create_engine("sqlite://"))


def test_a_file_in_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no directory"):
        pinnacle(f"sqlite:///{tmp_path}/nowhere/x.db")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("not a database, just text " * 100)
    with pytest.raises(BackendError, match="not a database"):
        pinnacle(f"sqlite:///{tmp_path}/x.db")


def test_a_read_only_database_is_refused_before_any_call(path):
    with pinnacle(f"sqlite:///file:{path}?mode=ro&uri=true") as db:
        assert db.execute("SELECT count(*) FROM docs").scalar_one() == 3
        with pytest.raises(UnsupportedTable, match="read-only"):
            predict(db)
    assert CALLS == []


def test_a_users_engine_with_one_checked_out_connection_works(path):
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.QueuePool, pool_size=1, max_overflow=0, pool_timeout=1)
    with engine.connect() as connection, pinnacle(engine) as db:
        assert connection.exec_driver_sql("SELECT count(*) FROM docs").scalar_one() == 3
        connection.rollback()
        assert predict(db).written == 3
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT body__shout FROM docs").scalars().all() == ["A", "B", "C"]


def test_a_users_engine_keeps_its_own_functions_and_events(path):
    engine = sa.create_engine(f"sqlite:///{path}")
    sa.event.listen(
        engine, "connect", lambda connection, record: connection.create_function("twice", 1, lambda x: x * 2)
    )
    with pinnacle(engine) as db:
        query = sa.select(DOCS).where(sa.func.twice(sa.literal_column("n")) > 2)
        assert shout.predict(X="body", db=db, select=query).written == 2


def test_closing_leaves_a_users_engine_open(path):
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.StaticPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE mine (x)")
        connection.commit()
    pinnacle(engine).close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM mine").all() == []


@pytest.mark.parametrize(
    "table",
    [
        "docs (id TEXT PRIMARY KEY COLLATE NOCASE, body TEXT)",
        "docs (id TEXT PRIMARY KEY COLLATE NOCASE, body TEXT) WITHOUT ROWID",
        "docs (id TEXT PRIMARY KEY COLLATE RTRIM, body TEXT)",
        "docs (id TEXT, part INT, body TEXT, PRIMARY KEY (id COLLATE NOCASE, part))",
    ],
)
def test_a_key_with_a_collation_works(tmp_path, table):
    file = tmp_path / "keys.db"
    run_sql(file, f"CREATE TABLE {table}")
    keys = ["b", "A", "c", "D", "é", "Z z"]
    for number, key in enumerate(keys):
        values = (key, f"row {number}") if "part" not in table else (key, number, f"row {number}")
        run_sql(file, f"INSERT INTO docs VALUES ({', '.join('?' * len(values))})", *values)
    with pinnacle(f"sqlite:///{file}") as db:
        assert predict(db).written == 6
        assert predict(db).fresh == 6
    assert run_sql(file, "SELECT count(*) FROM docs WHERE body__shout = upper(body)") == [(6,)]


def test_keys_of_mixed_types_work(tmp_path):
    file = tmp_path / "mixed.db"
    run_sql(file, "CREATE TABLE docs (id PRIMARY KEY, body TEXT)")
    for number, key in enumerate([1, "1", 1.5, b"1", "a", -3, 2**60, ""]):
        run_sql(file, "INSERT INTO docs VALUES (?, ?)", key, f"row {number}")
    with pinnacle(f"sqlite:///{file}") as db:
        result = predict(db)
        assert (result.read, result.written) == (8, 8)
        assert predict(db).fresh == 8
    assert run_sql(file, "SELECT count(*) FROM docs WHERE body__shout = upper(body)") == [(8,)]


def test_values_of_another_type_than_declared_are_told_apart(path, db):
    run_sql(path, "CREATE TABLE loose (id INTEGER PRIMARY KEY, body)")
    for value in (1, 1.0, "1", b"1", None):
        run_sql(path, "INSERT INTO loose (body) VALUES (?)", value)
    names = model(lambda body: type(body).__name__, identifier="m", output_type=str)
    loose = sa.select(sa.table("loose", sa.column("id")))
    assert names.predict(X="body", db=db, select=loose).calls == 4
    assert [row[0] for row in run_sql(path, "SELECT body__m FROM loose")] == ["int", "float", "str", "bytes", None]
    run_sql(path, "UPDATE loose SET body = 1.0 WHERE id = 1")
    assert names.predict(X="body", db=db, select=loose).written == 1
    assert run_sql(path, "SELECT body__m FROM loose WHERE id = 1") == [("float",)]


@pytest.mark.parametrize("values", [(5, "i5;"), ("i5;", 5), (None, "n"), (b"x", "b1:x"), (1.5, "f0x1.8p+0;")])
def test_a_text_that_looks_like_another_value_is_computed_by_itself(path, db, values):
    run_sql(path, "CREATE TABLE loose (id INTEGER PRIMARY KEY, body)")
    for value in values:
        run_sql(path, "INSERT INTO loose (body) VALUES (?)", value)
    kinds = model(lambda body: repr(body), identifier="m", output_type=str, skip_null=False)
    kinds.predict(X="body", db=db, select=sa.select(sa.table("loose", sa.column("id"))))
    assert [row[0] for row in run_sql(path, "SELECT body__m FROM loose")] == list(map(repr, values))


def test_a_nocase_input_is_compared_exactly(tmp_path):
    file = tmp_path / "nocase.db"
    run_sql(file, "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT COLLATE NOCASE)")
    run_sql(file, "INSERT INTO docs (body) VALUES ('abc'), ('ABC')")
    with pinnacle(f"sqlite:///{file}") as db:
        swap = model(lambda body: body.swapcase(), identifier="m", output_type=str)
        assert predict(db, swap).calls == 2
        run_sql(file, "UPDATE docs SET body = 'ABC' WHERE id = 1")
        assert predict(db, swap).written == 1
    assert run_sql(file, "SELECT body__m FROM docs") == [("abc",), ("abc",)]


def test_insert_or_replace_is_healed(path, db):
    predict(db)
    run_sql(path, "INSERT OR REPLACE INTO docs (id, body, n) VALUES (2, 'b', 9)")
    assert predict(db).written == 1
    assert run_sql(path, "SELECT body__shout FROM docs") == [("A",), ("B",), ("C",)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT) STRICT",
        "CREATE TABLE t (id INT PRIMARY KEY, body TEXT) WITHOUT ROWID",
        "CREATE TABLE t (id INTEGER PRIMARY KEY DESC, body TEXT)",
    ],
)
def test_tables_of_every_making_work(path, db, statement):
    run_sql(path, statement)
    run_sql(path, "INSERT INTO t (id, body) VALUES (1, 'a'), (2, 'b')")
    table = sa.select(sa.table("t", sa.column("id")))
    for kind, value in (
        (str, "x"),
        (int, 1),
        (float, 0.5),
        (bool, True),
        (bytes, b"x"),
        (dict, {}),
        (datetime, datetime(2026, 1, 1)),
        (Vector(1), [1]),
    ):
        the_model = model(lambda body, value=value: value, identifier=f"m {kind}", output_type=kind)
        assert the_model.predict(X="body", db=db, select=table).written == 2
        assert the_model.predict(X="body", db=db, select=table).fresh == 2


def test_a_generated_column_may_be_an_input_and_no_output(path, db):
    run_sql(path, "ALTER TABLE docs ADD COLUMN twice TEXT GENERATED ALWAYS AS (body || body) VIRTUAL")
    assert predict(db, X="twice").written == 3
    with pytest.raises(Exception, match="computed"):
        predict(db, output="twice")


def test_a_check_constraint_that_refuses_one_value_is_that_rows_error(path, db):
    run_sql(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, out TEXT CHECK (out <> 'B'))")
    run_sql(path, "INSERT INTO t (body) VALUES ('a'), ('b'), ('c')")
    result = shout.predict(X="body", db=db, select=sa.select(sa.table("t", sa.column("id"))), output="out")
    assert (result.written, result.failed) == (2, 1)
    assert run_sql(path, "SELECT out FROM t") == [("A",), (None,), ("C",)]
    (error,) = db.errors()
    assert (error.error, error.key) == ("RowRejected", 2)
    assert "CHECK" in error.message


def test_a_trigger_of_the_users_that_raises_is_that_rows_error(path, db):
    predict(db, limit=1)
    run_sql(path, "CREATE TRIGGER no BEFORE UPDATE ON docs WHEN new.body = 'b' BEGIN SELECT RAISE(ABORT, 'not b'); END")
    result = predict(db)
    assert (result.written, result.failed) == (1, 1)
    assert "not b" in db.errors()[0].message


def test_two_processes_compute_each_row_once(path, db, tmp_path):
    run_sql(path, "DELETE FROM docs")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO docs (body) VALUES (?)", [(f"text {n}",) for n in range(500)])
    log = tmp_path / "calls"
    processes = [start_predict(f"sqlite:///{path}", log) for _ in range(2)]
    assert sum(int(process.communicate(timeout=600)[0]) for process in processes) == 500
    assert Counter(logged_calls(log)) == Counter(f"text {n}" for n in range(500))
    assert run_sql(path, "SELECT count(*) FROM docs WHERE body__logged = upper(body)") == [(500,)]


def test_a_killed_run_keeps_what_it_wrote_and_holds_nothing(path, db, tmp_path, monkeypatch):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO docs (body) VALUES (?)", [(f"text {n}",) for n in range(200)])
    log = tmp_path / "calls"
    start_predict(f"sqlite:///{path}", log, kill_at="text 120").communicate(timeout=600)
    monkeypatch.setenv("PINNACLE_TEST_LOG", str(log))
    result = predict(db, logged)
    assert result.fresh >= 80
    assert result.fresh + result.written == 203
    assert len(logged_calls(log)) <= 203 + 30


def test_another_programs_writes_go_on_during_a_run(path, db):
    stop, writes = threading.Event(), []

    def write():
        with closing(sqlite3.connect(path, timeout=5)) as connection:
            while not stop.wait(0.002):
                with connection:
                    connection.execute("UPDATE docs SET n = n + 1 WHERE id = 1")
                writes.append(1)

    def watched(body):
        before = len(writes)
        wait_until(lambda: len(writes) > before)
        return note(body).upper()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert predict(db, model(watched, identifier="m", output_type=str)).written == 3
    finally:
        stop.set()
        writer.join()
    assert CALLS == ["a", "b", "c"]


def test_a_run_waits_for_a_writer_that_holds_the_file(path, db):
    db.migrate()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE docs SET n = 0")
        release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        release.start()
        assert predict(db).written == 3
        release.join()


def test_text_that_is_not_utf8_is_no_hindrance(path, db):
    run_sql(path, "INSERT INTO docs (id, body) VALUES (9, CAST(x'66ff6f' AS TEXT))")
    assert predict(db, model(len, identifier="length", output_type=int)).written == 4
    assert predict(db, model(len, identifier="length", output_type=int)).fresh == 4


def test_leases_that_could_not_be_given_up_are_by_the_next_predict_of_the_process(path, monkeypatch):
    def away(self, owner):
        raise BackendError("the database is away")

    def fill(db):
        return picky.predict(X="body", db=db, select=sa.select(DOCS, sa.column("body")), on_error="raise")

    run_sql(path, "UPDATE docs SET body = 'bad' WHERE id = 1")
    with pinnacle(f"sqlite:///{path}", settings=Settings(lease_ttl_s=600.0)) as db:
        with monkeypatch.context() as outage:
            outage.setattr(SqlQueue, "release", away)
            with pytest.raises(ModelError):
                fill(db)
        assert run_sql(path, "SELECT count(*) FROM pinnacle_lease") == [(1,)]
        run_sql(path, "UPDATE docs SET body = 'good' WHERE id = 1")
        assert fill(db).changed == 0
    assert run_sql(path, "SELECT body__picky FROM docs ORDER BY id") == [("GOOD",), ("B",), ("C",)]
    assert run_sql(path, "SELECT count(*) FROM pinnacle_lease") == [(0,)]
