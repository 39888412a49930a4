"""Listeners on PostgreSQL: every way a row changes, every kind of table and role, locks, lost connections."""

from __future__ import annotations

import re
import threading
import uuid
from contextlib import closing

import psycopg
import pytest
import sqlalchemy as sa

from pinnacle import Listener, model, pinnacle
from pinnacle.backends.open import open_backend
from pinnacle.base.listeners import Watch
from pinnacle.base.rows import Fields, OutputSpec
from pinnacle.base.settings import Settings
from pinnacle.base.types import Text
from tests.contract.documents import wait_until
from tests.models import CALLS, note, shout
from tests.roles import role, run_sql

DOCS = sa.table("docs", sa.column("id"), sa.column("body"), sa.column("n"))


@pytest.fixture(autouse=True)
def impatient(impatient_workers, monkeypatch):
    """They wake from listening sooner, too."""
    monkeypatch.setattr("pinnacle.backends.postgres.wake.SLICE_S", 0.02)


@pytest.fixture
def url(postgres_url):
    """A user's database with three rows."""
    CALLS.clear()
    run_sql(
        postgres_url,
        "CREATE TABLE docs (id integer PRIMARY KEY, body text, n integer)",
        "INSERT INTO docs VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
    )
    return postgres_url


@pytest.fixture
def db(url):
    with pinnacle(url) as handle:
        yield handle


def keep(db, the_model=shout, *, table=DOCS, **options):
    """A listener over a table, filled, with a worker that goes on working; the calls so far are forgotten."""
    options = {"key": "body", "select": sa.select(table), "output": "loud", **options}
    listener = db.add(Listener(model=the_model, **options))
    db.listen()
    db.drain()
    CALLS.clear()
    return listener


def loud(url, table="docs", key="id"):
    return dict(run_sql(url, f"SELECT {key}, loud FROM {table} ORDER BY 1"))


def ours(url):
    """Triggers and functions of ours that are there."""
    found = run_sql(
        url,
        "SELECT tgname FROM pg_trigger WHERE tgname LIKE '%pinnacle%' "
        "UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE '%pinnacle%'",
    )
    return sorted(row[0] for row in found)


# -- how rows change ------------------------------------------------------------------------------------


CHANGES = {
    "insert": (["INSERT INTO docs VALUES (4, 'x', 4), (5, 'y', 5)"], {1: "A", 2: "B", 3: "C", 4: "X", 5: "Y"}),
    "update": (["UPDATE docs SET body = body || '!' WHERE id < 3"], {1: "A!", 2: "B!", 3: "C"}),
    "upsert": (
        ["INSERT INTO docs VALUES (1, 'x', 4), (4, 'y', 5) ON CONFLICT (id) DO UPDATE SET body = excluded.body"],
        {1: "X", 2: "B", 3: "C", 4: "Y"},
    ),
    "merge": (
        [
            "MERGE INTO docs USING (VALUES (1, 'x'), (2, NULL), (4, 'y')) AS s (id, body) ON docs.id = s.id "
            "WHEN MATCHED AND s.body IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET body = s.body "
            "WHEN NOT MATCHED THEN INSERT (id, body) VALUES (s.id, s.body)"
        ],
        {1: "X", 3: "C", 4: "Y"},
    ),
    "delete": (["DELETE FROM docs WHERE id = 1"], {2: "B", 3: "C"}),
    "truncate": (["TRUNCATE docs"], {}),
    "truncate and fill": (["TRUNCATE docs", "INSERT INTO docs VALUES (1, 'x', 1)"], {1: "X"}),
    "keys": (["UPDATE docs SET id = id + 10"], {11: "A", 12: "B", 13: "C"}),
    "delete and insert": (
        ["DELETE FROM docs WHERE id = 1", "INSERT INTO docs VALUES (1, 'x')"], {1: "X", 2: "B", 3: "C"}
    ),
    "copied output": (["UPDATE docs SET loud = 'mine'"], {1: "A", 2: "B", 3: "C"}),
    "data-modifying WITH": (
        ["WITH d AS (DELETE FROM docs WHERE id = 1 RETURNING body) INSERT INTO docs SELECT 9, body || '?' FROM d"],
        {2: "B", 3: "C", 9: "A?"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("replicated", [False, True], ids=["by statement", "by row"])
def test_a_change_of_any_kind_is_followed(url, db, kind, replicated):
    listener = keep(db, replicated=replicated)
    statements, expected = CHANGES[kind]
    run_sql(url, *statements)
    db.drain()
    assert loud(url) == expected
    assert db.fresh(listener).fresh == len(expected)
    assert run_sql(url, "SELECT count(*) FROM pinnacle.pinnacle_state_1") == [(len(expected),)]


def test_copy_is_followed(url, db):
    keep(db)
    with psycopg.connect(url) as connection, connection.cursor().copy("COPY docs (id, body) FROM STDIN") as copy:
        for number in range(10, 110):
            copy.write_row((number, f"copied {number}"))
    db.drain()
    assert loud(url)[109] == "COPIED 109"
    assert len(CALLS) == 100


def test_cascades_of_foreign_keys_are_followed(url, db):
    run_sql(
        url,
        "CREATE TABLE authors (id integer PRIMARY KEY, name text UNIQUE)",
        "INSERT INTO authors VALUES (1, 'ann'), (2, 'bob'), (3, 'cid')",
        "CREATE TABLE posts (id integer PRIMARY KEY, author integer REFERENCES authors ON DELETE CASCADE, "
        "name text REFERENCES authors (name) ON UPDATE CASCADE ON DELETE SET NULL)",
        "INSERT INTO posts VALUES (1, 1, 'ann'), (2, 2, 'bob'), (3, NULL, 'cid')",
    )
    keep(db, table=sa.table("posts", sa.column("id")), key="name")
    run_sql(
        url,
        "DELETE FROM authors WHERE id = 1",
        "UPDATE authors SET name = 'rob' WHERE id = 2",
        "DELETE FROM authors WHERE id = 3",
    )
    db.drain()
    assert (loud(url, "posts"), CALLS) == ({2: "ROB", 3: None}, ["rob"])


def test_what_is_rolled_back_leaves_no_work(url, db):
    keep(db)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE docs SET body = 'never'")
        connection.rollback()
        connection.execute("UPDATE docs SET body = 'kept' WHERE id = 1")
        with connection.transaction(force_rollback=True):
            connection.execute("UPDATE docs SET body = 'lost' WHERE id = 2")
    db.drain()
    assert (loud(url), CALLS) == ({1: "KEPT", 2: "B", 3: "C"}, ["kept"])


def test_changes_nobody_reads_leave_no_trace(url, db):
    keep(db)
    run_sql(url, "UPDATE docs SET n = n + 1", "UPDATE docs SET body = body", "DELETE FROM docs WHERE id = 99")
    assert run_sql(url, "SELECT count(*) FROM pinnacle.pinnacle_outbox_1") == [(0,)]
    db.drain()
    assert CALLS == []


def test_a_json_input_is_compared_as_it_is_written(url, db):
    run_sql(url, "ALTER TABLE docs ADD j json", "UPDATE docs SET j = '{\"a\": 1}'")
    keep(db, model(lambda j: str(note(j)["a"]), identifier="m", output_type=str), key="j")
    run_sql(url, "UPDATE docs SET j = '{\"a\": 2}' WHERE id = 1", "UPDATE docs SET j = '{\"a\": 1}' WHERE id = 2")
    db.drain()
    assert (loud(url), CALLS) == ({1: "2", 2: "1", 3: "1"}, [{"a": 2}])


def test_a_before_trigger_of_the_users_may_change_the_input(url, db):
    run_sql(
        url,
        "CREATE FUNCTION trimmed() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN NEW.body := trim(NEW.body); RETURN NEW; END'",
        "CREATE TRIGGER zz BEFORE INSERT OR UPDATE OF n ON docs FOR EACH ROW EXECUTE FUNCTION trimmed()",
        "UPDATE docs SET body = '  a  '",
    )
    keep(db)
    run_sql(url, "UPDATE docs SET n = 7 WHERE id = 1")
    db.drain()
    assert loud(url)[1] == "A"


def test_an_output_is_blanked_inside_the_users_transaction(url, db):
    keep(db, on_change="clear")
    db.stop()
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE docs SET body = 'z' WHERE id = 1")
        connection.execute("UPDATE docs SET n = 9, body = body WHERE id = 2")
        assert connection.execute("SELECT loud FROM docs ORDER BY id").fetchall() == [(None,), ("B",), ("C",)]
        connection.rollback()
    assert loud(url) == {1: "A", 2: "B", 3: "C"}
    run_sql(url, "UPDATE docs SET body = 'z', loud = 'mine' WHERE id = 1")
    assert loud(url)[1] is None
    db.listen()
    db.drain()
    assert loud(url)[1] == "Z"


# -- tables, keys and names -------------------------------------------------------------------------------


@pytest.mark.parametrize("into", ["docs_by_n", "low"], ids=["the parent", "a partition"])
def test_a_partitioned_table_is_followed(url, db, into):
    run_sql(
        url,
        "CREATE TABLE docs_by_n (id integer, body text, n integer, PRIMARY KEY (id, n)) PARTITION BY RANGE (n)",
        "CREATE TABLE low PARTITION OF docs_by_n FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE high PARTITION OF docs_by_n FOR VALUES FROM (10) TO (20)",
        "INSERT INTO docs_by_n VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 11)",
    )
    keep(db, table=sa.table("docs_by_n", sa.column("id")))
    run_sql(
        url,
        f"INSERT INTO {into} VALUES (4, 'd', 4)",
        f"UPDATE {into} SET body = 'z' WHERE id = 1",
        f"DELETE FROM {into} WHERE id = 2",
        "UPDATE docs_by_n SET n = 5 WHERE id = 3",
        "CREATE TABLE higher PARTITION OF docs_by_n FOR VALUES FROM (20) TO (30)",
        "INSERT INTO higher VALUES (5, 'e', 25)",
    )
    db.drain()
    assert loud(url, "docs_by_n") == {1: "Z", 3: "C", 4: "D", 5: "E"}
    run_sql(url, "TRUNCATE docs_by_n")
    db.drain()
    assert run_sql(url, "SELECT count(*) FROM pinnacle.pinnacle_state_1") == [(0,)]


def test_a_truncated_partition_is_found_by_the_sweep(url, db):
    run_sql(
        url,
        "CREATE TABLE parted (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10)",
        "INSERT INTO parted VALUES (1, 'a'), (2, 'b')",
    )
    listener = keep(db, table=sa.table("parted", sa.column("id")))
    run_sql(url, "TRUNCATE low", "INSERT INTO low VALUES (2, 'z')")
    db.sweep(listener)
    db.drain()
    assert loud(url, "parted") == {2: "Z"}
    assert run_sql(url, "SELECT k0 FROM pinnacle.pinnacle_state_1") == [(2,)]


@pytest.mark.parametrize("replicated", [False, True])
def test_what_a_replication_applies_is_captured_when_asked(url, db, replicated):
    listener = keep(db, replicated=replicated)
    run_sql(
        url,
        "SET session_replication_role = replica",
        "INSERT INTO docs VALUES (4, 'd', 4)",
        "UPDATE docs SET body = 'z' WHERE id = 1",
        "DELETE FROM docs WHERE id = 2",
    )
    db.drain()
    assert loud(url) == ({1: "Z", 3: "C", 4: "D"} if replicated else {1: "A", 3: "C", 4: None})
    db.sweep(listener)
    db.drain()
    assert loud(url) == {1: "Z", 3: "C", 4: "D"}
    assert db.fresh(listener).fresh == 3


KEYS = {
    "composite": ("a integer, b text COLLATE \"C\", PRIMARY KEY (b, a)", "a, b", ["1, 'x'", "1, 'y'", "2, '%s :x'"]),
    "uuid": ("a uuid PRIMARY KEY, b text", "a, b", [f"'{uuid.UUID(int=n)}', 'x'" for n in range(3)]),
    "text": ("a text PRIMARY KEY, b text", "a, b", ["'', 'x'", "'it''s \"q\" %s :p ü', 'x'", "'a\\b', 'x'"]),
    "numeric": ("a numeric PRIMARY KEY, b text", "a, b", ["1.50, 'x'", "-1, 'x'", "1e30, 'x'"]),
    "timestamptz": ("a timestamptz PRIMARY KEY, b text", "a, b", ["'epoch', 'x'", "'2026-01-01', 'x'", "now(), 'x'"]),
    "varchar": ("a varchar(3) PRIMARY KEY, b text", "a, b", ["'a', 'x'", "'b', 'x'", "'abc', 'x'"]),
    "char": ("a char(4) PRIMARY KEY, b text", "a, b", ["'a', 'x'", "'b', 'x'", "'abcd', 'x'"]),
    "identity": ("a bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b text", "b", ["'x'", "'y'", "'z'"]),
    "enum": ("a mood PRIMARY KEY, b text", "a, b", ["'ok', 'x'", "'sad', 'x'", "'happy %', 'x'"]),
    "domain": ("a positive PRIMARY KEY, b text", "a, b", ["1, 'x'", "2, 'x'", "3, 'x'"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_any_key_works(url, db, kind):
    declared, columns, rows = KEYS[kind]
    run_sql(
        url,
        "CREATE TYPE mood AS ENUM ('happy %', 'ok', 'sad')",
        "CREATE DOMAIN positive AS integer CHECK (value > 0)",
        f"CREATE TABLE keyed ({declared})",
        "ALTER TABLE keyed ADD body text",
        *(f"INSERT INTO keyed ({columns}, body) VALUES ({row}, 'old')" for row in rows[:2]),
    )
    listener = keep(db, table=sa.table("keyed", sa.column("a")), unmatched="clear")
    run_sql(
        url, f"INSERT INTO keyed ({columns}, body) VALUES ({rows[2]}, 'new')", "UPDATE keyed SET body = body || '!'"
    )
    db.drain()
    assert run_sql(url, "SELECT count(*) FROM keyed WHERE loud = upper(body) AND body LIKE '%!'") == [(3,)]
    run_sql(url, "DELETE FROM keyed WHERE body = 'new!'")
    db.drain()
    assert (db.fresh(listener).fresh, run_sql(url, "SELECT count(*) FROM pinnacle.pinnacle_state_1")) == (2, [(2,)])


ODD = "a \"b'c %d :e ü"


@pytest.mark.parametrize("options", [{}, {"on_change": "clear"}, {"replicated": True}], ids=str)
def test_names_may_hold_anything(url, db, options):
    quoted = '"' + ODD.replace('"', '""') + '"'
    key, out, table = quoted[:-1] + 'key"', quoted[:-1] + 'out"', f"{quoted}.{quoted}"
    run_sql(
        url,
        f"CREATE SCHEMA {quoted}",
        f"CREATE TABLE {table} ({key} text PRIMARY KEY, {quoted} text)",
        f"INSERT INTO {table} VALUES ('1', 'a'), ('%s :y', 'b')",
    )
    entity = sa.table(ODD, sa.column(f"{ODD}key"), sa.column(ODD), schema=ODD)
    select = sa.select(entity).where(entity.c[ODD] != "no %s :x", entity.c[f"{ODD}key"] != "''")
    keep(db, key=ODD, select=select, output=f"{ODD}out", unmatched="clear", **options)
    run_sql(
        url,
        f"UPDATE {table} SET {quoted} = 'z' WHERE {key} = '%s :y'",
        f"INSERT INTO {table} ({key}, {quoted}) VALUES ('n', 'no %s :x')",
        f"UPDATE {table} SET {quoted} = 'no %s :x' WHERE {key} = '1'",
    )
    db.drain()
    assert dict(run_sql(url, f"SELECT {key}, {out} FROM {table}")) == {"1": None, "%s :y": "Z", "n": None}


@pytest.mark.parametrize("options", [{}, {"replicated": True}], ids=str)
def test_a_role_without_rights_on_our_tables_writes_freely(url, db, options):
    keep(db, on_change="clear", **options)
    with role(url, "SELECT, INSERT, UPDATE (body, n), DELETE, TRUNCATE ON docs") as theirs:
        run_sql(
            theirs,
            "INSERT INTO docs (id, body) VALUES (4, 'd')",
            "UPDATE docs SET body = 'z' WHERE id = 1",
            "DELETE FROM docs WHERE id = 2",
        )
        db.drain()
        assert loud(url) == {1: "Z", 3: "C", 4: "D"}
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run_sql(theirs, "SELECT * FROM pinnacle.pinnacle_outbox_1")
        run_sql(theirs, "TRUNCATE docs")
    db.drain()
    assert run_sql(url, "SELECT count(*) FROM pinnacle.pinnacle_state_1") == [(0,)]


def test_a_search_path_of_the_writers_own_misleads_no_trigger(url, db):
    keep(db)
    run_sql(
        url,
        "CREATE SCHEMA evil",
        "CREATE TABLE evil.pinnacle_outbox_1 (k0 integer)",
        "SET search_path = evil, public",
        "UPDATE docs SET body = 'z' WHERE id = 1",
        "INSERT INTO docs VALUES (4, 'd', 4)",
    )
    db.drain()
    assert loud(url) == {1: "Z", 2: "B", 3: "C", 4: "D"}


# -- tables that change -------------------------------------------------------------------------------------


BREAKING = {
    "input renamed": (["ALTER TABLE docs RENAME body TO text"], "'body'.*renamed or dropped"),
    "key renamed": (["ALTER TABLE docs RENAME id TO number"], "'id'.*renamed or dropped"),
    "output renamed": (["ALTER TABLE docs RENAME loud TO mine"], "'loud'.*renamed or dropped"),
    "read by the select, renamed": (["ALTER TABLE docs RENAME n TO m"], "'n'.*renamed or dropped"),
    "input dropped": (["ALTER TABLE docs DROP body CASCADE"], "'body'.*renamed or dropped"),
    "key dropped": (["ALTER TABLE docs DROP id CASCADE"], "'id'.*renamed or dropped|no primary key"),
    "table renamed": (["ALTER TABLE docs RENAME TO papers"], "renamed or dropped|no table"),
    "table dropped": (["DROP TABLE docs"], "renamed or dropped|no table"),
    "key retyped": (
        ["DROP TRIGGER pinnacle_1_update ON docs", "ALTER TABLE docs ALTER id TYPE text"], "was integer and is text"
    ),
    "input retyped": (
        ["DROP TRIGGER pinnacle_1_update ON docs", "ALTER TABLE docs ALTER body TYPE varchar"], "was text and is"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKING)
def test_a_table_that_changes_under_a_listener_pauses_it_loudly(url, db, what):
    statements, reason = BREAKING[what]
    listener = keep(db, select=sa.select(DOCS).where(DOCS.c.n != 99))
    run_sql(url, *statements)
    columns = run_sql(
        url,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_name IN ('docs', 'papers') "
        "ORDER BY ordinal_position",
    )
    for table in {table for table, _ in columns}:
        names = [name for _, name in columns]
        same = ", ".join(
            f"{name} = ({name}::text || '1')::{'integer' if name in ('n', 'm') else 'text'}"
            for name in names
            if name not in ("id", "number")
        )
        run_sql(
            url,
            f"UPDATE {table} SET {same}",
            f"CREATE TEMP TABLE copied AS SELECT * FROM {table}",
            f"DELETE FROM {table}",
            f"INSERT INTO {table} SELECT * FROM copied",
            f"TRUNCATE {table}",
        )
    wait_until(lambda: db.listeners()[0].paused is not None)
    assert re.search(reason, db.listeners()[0].paused)
    db.remove("listener", listener.identifier)
    assert ours(url) == []


def test_a_change_of_the_table_that_we_stand_in_the_way_of_is_refused_by_name(url, db):
    keep(db)
    for statement in ("ALTER TABLE docs DROP body", "ALTER TABLE docs ALTER body TYPE varchar"):
        with pytest.raises(psycopg.Error, match="pinnacle_1_update"):
            run_sql(url, statement)


def test_a_listener_goes_on_when_its_column_is_back(url, db):
    listener = keep(db)
    run_sql(url, "ALTER TABLE docs RENAME body TO text")
    wait_until(lambda: db.listeners()[0].paused is not None)
    run_sql(url, "UPDATE docs SET text = 'z' WHERE id = 1", "ALTER TABLE docs RENAME text TO body")
    db.resume(listener)
    db.drain()
    assert loud(url) == {1: "Z", 2: "B", 3: "C"}


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER pinnacle_1_update ON docs",
        "ALTER TABLE docs DISABLE TRIGGER USER",
        "DROP FUNCTION pinnacle.pinnacle_capture_1_insert() CASCADE",
    ],
)
def test_lost_triggers_are_made_again_and_what_they_missed_is_found(url, db, statement):
    keep(db)
    before = ours(url)
    run_sql(url, statement, "UPDATE docs SET body = 'missed' WHERE id = 1", "INSERT INTO docs VALUES (4, 'd', 4)")
    wait_until(lambda: loud(url) == {1: "MISSED", 2: "B", 3: "C", 4: "D"})
    assert ours(url) == before
    run_sql(url, "UPDATE docs SET body = 'seen' WHERE id = 1")
    db.drain()
    assert loud(url)[1] == "SEEN"


def test_removing_a_listener_takes_all_of_it_away(url, db):
    listener = keep(db, on_change="clear")
    db.remove("listener", listener.identifier)
    assert ours(url) == []
    left = run_sql(url, "SELECT tablename FROM pg_tables WHERE tablename LIKE '%outbox%' OR tablename LIKE '%work%'")
    assert left == []
    run_sql(url, "UPDATE docs SET body = 'z'", "TRUNCATE docs")


@pytest.mark.parametrize("outputs", [False, True])
def test_removing_all_of_pinnacle_leaves_a_table_that_can_be_written(url, db, outputs):
    keep(db, on_change="clear")
    db.stop()
    db.remove_all(outputs=outputs)
    assert ours(url) == []
    run_sql(url, "UPDATE docs SET body = 'z'", "INSERT INTO docs (id) VALUES (9)", "DELETE FROM docs", "TRUNCATE docs")


# -- beside the application ---------------------------------------------------------------------------------


def backends(url, condition):
    """Terminate the connections of our own that meet a condition; how many."""
    return run_sql(
        url,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        f"WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}",
    )[0][0]


def test_a_worker_whose_connections_are_cut_goes_on(url, db, caplog):
    keep(db)
    assert backends(url, "true") > 0
    run_sql(url, "UPDATE docs SET body = 'z' WHERE id = 1")
    wait_until(lambda: loud(url)[1] == "Z")
    wait_until(lambda: backends(url, "query LIKE 'LISTEN%'") > 0)
    run_sql(url, "UPDATE docs SET body = 'y' WHERE id = 1")
    wait_until(lambda: loud(url)[1] == "Y")
    assert CALLS == ["z", "y"]


def test_a_connection_cut_during_a_call_costs_no_second_call(url, db):
    committed, cut = threading.Event(), threading.Event()

    def cutting(body):
        if note(body) == "z":
            committed.wait(20)
            backends(url, "true")
            cut.set()
        return body.upper()

    keep(db, model(cutting, identifier="m", output_type=str))
    run_sql(url, "UPDATE docs SET body = 'z' WHERE id = 1")
    committed.set()
    assert cut.wait(20)  # or this test's own connections would be cut as well
    wait_until(lambda: loud(url)[1] == "Z")
    assert CALLS == ["z"]


def test_rows_that_a_transaction_holds_are_left_and_not_paid_for_twice(url, db):
    locked = threading.Event()

    def patient(body):
        CALLS.append(body)
        assert body != "held" or locked.wait(60)
        return body.upper()

    keep(db, model(patient, identifier="m", output_type=str))
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1 FROM docs WHERE id = 1 FOR UPDATE")
        run_sql(url, "INSERT INTO docs SELECT n, 'new ' || n FROM generate_series(10, 30) AS n")
        run_sql(url, "SET lock_timeout = '1s'", "UPDATE docs SET body = 'y' WHERE id = 2")
        wait_until(lambda: loud(url)[2] == "Y" and loud(url)[30] == "NEW 30")
        holder.execute("UPDATE docs SET body = 'held' WHERE id = 1")
        holder.commit()
        holder.execute("SELECT 1 FROM docs WHERE id = 1 FOR UPDATE")
        locked.set()
        wait_until(lambda: "held" in CALLS)
        wait_until(lambda: db.listeners()[0].pending == 1)
        assert loud(url)[1] == "A"
    db.drain()
    assert loud(url)[1] == "HELD"
    assert CALLS.count("held") == 1


def test_a_table_that_is_locked_only_delays(url, db):
    keep(db)
    with psycopg.connect(url) as holder:
        holder.execute("UPDATE docs SET body = 'z' WHERE id = 1")
        holder.execute("LOCK TABLE docs IN SHARE MODE")
        run_sql(url, "SELECT count(*) FROM docs")
        assert holder.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,)
    db.drain()
    assert loud(url)[1] == "Z"


def test_no_lock_is_held_while_a_model_is_called(url, db):
    called, go_on = threading.Event(), threading.Event()

    def slow(body):
        called.set()
        return go_on.wait(20) and body.upper()

    slow_model = model(slow, identifier="slow", output_type=str)
    db.add(Listener(model=slow_model, key="body", select=sa.select(DOCS), output="loud"))
    db.listen()
    called.wait(20)
    try:
        run_sql(
            url,
            "SET lock_timeout = '50ms'",
            "UPDATE docs SET body = 'z' WHERE id = 1",
            "DELETE FROM docs WHERE id = 2",
            "LOCK TABLE docs IN ACCESS EXCLUSIVE MODE",
        )
    finally:
        go_on.set()
    db.drain()
    assert loud(url) == {1: "Z", 3: "C"}


def test_without_notify_changes_are_found_by_polling(url, db):
    keep(db, notify=False)
    with psycopg.connect(url, autocommit=True) as listening:
        listening.execute("LISTEN pinnacle")
        run_sql(url, "INSERT INTO docs VALUES (4, 'd', 4)", "UPDATE docs SET body = 'z' WHERE id = 1")
        wait_until(lambda: loud(url) == {1: "Z", 2: "B", 3: "C", 4: "D"})
        assert list(listening.notifies(timeout=0)) == []


@pytest.mark.parametrize("notifies", [True, False])
def test_whom_nobody_tells_of_changes_looks_again_at_once(url, notifies):
    spec = OutputSpec(name="loud", type=Text(), model="shout", version=0, fields=Fields.of("body"))
    with closing(open_backend(url, Settings())) as below:
        below.migrate()
        target = below.bind(below.resolve(sa.select(DOCS), spec.fields), spec)
        below.listeners.register(target.info.id, "docs.loud", 0)
        feed = below.feed(target, (), Watch(notifies=notifies))
        feed.install()
        assert not feed.take("owner", 10, 60.0, 0).may_be_more
        run_sql(url, "UPDATE docs SET body = 'z' WHERE id = 1")
        assert feed.take("owner", 10, 60.0, 0).may_be_more != notifies


def test_an_engine_with_one_connection_is_not_starved(url):
    engine = sa.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), pool_size=1, max_overflow=0, pool_timeout=1
    )
    with pinnacle(engine) as db, engine.connect() as mine:
        keep(db)
        mine.exec_driver_sql("UPDATE docs SET body = 'z' WHERE id = 1")
        mine.commit()
        db.drain()
    engine.dispose()
    assert loud(url)[1] == "Z"


def test_own_writes_are_known_only_inside_their_transaction(url, db):
    keep(db)
    engine = db.engine
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT current_setting('pinnacle.writer', true)").scalar() in (None, "")
        connection.exec_driver_sql("UPDATE docs SET loud = 'mine' WHERE id = 1")
    db.drain()
    assert loud(url)[1] == "A"


def test_work_that_commits_out_of_order_is_not_lost(url, db):
    keep(db)
    with psycopg.connect(url) as first:
        first.execute("UPDATE docs SET body = 'first' WHERE id = 1")
        run_sql(url, "UPDATE docs SET body = 'second' WHERE id = 2")
        wait_until(lambda: loud(url)[2] == "SECOND")
    db.drain()
    assert loud(url) == {1: "FIRST", 2: "SECOND", 3: "C"}
