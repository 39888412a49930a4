"""What the user's own program may see of pinnacle on PostgreSQL: nothing but its outputs."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from pinnacle import Listener, pinnacle
from tests.contract.documents import wait_until
from tests.models import shout

DOCS = sa.table("docs", sa.column("id"), sa.column("body"))
LEFT = """
    SELECT name, setting FROM pg_settings WHERE source = 'session' AND NOT starts_with(name, 'transaction')
    UNION ALL SELECT 'LISTEN', pg_listening_channels()
"""


@pytest.fixture
def url(postgres_url):
    """A user's database with three rows."""
    run_sql(postgres_url, "CREATE TABLE docs (id integer PRIMARY KEY, body text)")
    run_sql(postgres_url, "INSERT INTO docs VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    return postgres_url


def run_sql(url, *statements):
    """Statements by the plain driver, in one transaction; the last one's rows."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def listener(table=DOCS, **options):
    return Listener(model=shout, key="body", select=sa.select(table), output="loud", **options)


@pytest.mark.parametrize("style", ["ISO, MDY", "German, DMY"])
def test_a_pool_of_the_users_own_gets_its_connections_back_as_they_were(url, style):
    shelf = []

    class Pooled(psycopg.Connection):
        def close(self):
            if not self.closed:
                self.rollback()
                self.autocommit = False
                shelf.append(self)

    run_sql(url, f"ALTER DATABASE {sa.make_url(url).database} SET datestyle = '{style}'")
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: shelf.pop() if shelf else Pooled.connect(url))
    with engine.connect() as connection:
        before = set(connection.exec_driver_sql(LEFT).all())
    with pinnacle(engine) as db:
        db.add(listener())
        db.listen()
        run_sql(url, "INSERT INTO docs VALUES (4, 'd')")
        db.drain()
        shout.predict(X="body", db=db, select=sa.select(DOCS), output="again")
    engine.dispose()
    assert len(shelf) >= 3
    for connection in shelf:
        assert set(connection.execute(LEFT).fetchall()) == before
        assert connection.execute("SHOW datestyle").fetchone() == (style,)
        assert connection.cursor_factory is psycopg.Cursor
        psycopg.Connection.close(connection)
    assert run_sql(url, "SELECT count(*) FROM docs WHERE loud = upper(body) AND again = loud") == [(4,)]


SUBTRANSACTIONS = """
    SELECT s.subxact_count FROM pg_stat_get_backend_idset() AS b, pg_stat_get_backend_subxact(b) AS s
    WHERE pg_stat_get_backend_pid(b) = %s
"""


def test_a_listener_costs_a_transaction_of_many_statements_no_subtransaction(url):
    with pinnacle(url) as db, psycopg.connect(url) as user, psycopg.connect(url, autocommit=True) as other:
        db.add(listener())
        before = int(run_sql(url, "SELECT pg_current_xact_id()::text")[0][0])
        for i in range(10, 30):
            user.execute("INSERT INTO docs VALUES (%s, 'x')", (i,))
            user.execute("UPDATE docs SET body = 'y' WHERE id = %s", (i,))
        user.execute("DELETE FROM docs WHERE id = 29")
        assert other.execute(SUBTRANSACTIONS, (user.info.backend_pid,)).fetchone() == (0,)
        user.execute("TRUNCATE docs")
        user.commit()
        assert int(run_sql(url, "SELECT pg_current_xact_id()::text")[0][0]) - before == 2


EVERY_STATEMENT = (
    "INSERT INTO docs VALUES (7, 'g')", "UPDATE docs SET body = 'z' WHERE body = 'g'", "DELETE FROM docs",
    "TRUNCATE docs", "INSERT INTO docs SELECT n, 'h' FROM generate_series(1, 3) AS n",
)  # fmt: skip


@pytest.mark.parametrize("gone", ["pinnacle_outbox_1", "pinnacle_work_1", "pinnacle_listener", "pinnacle_output"])
def test_a_table_of_ours_that_is_dropped_fails_no_statement(url, gone):
    with pinnacle(url) as db:
        db.add(listener())
        run_sql(url, f"DROP TABLE pinnacle.{gone}")
        run_sql(url, *EVERY_STATEMENT)
    assert run_sql(url, "SELECT count(*) FROM docs") == [(3,)]


@pytest.mark.parametrize("gone", ["pinnacle_outbox_1", "pinnacle_work_1"])
def test_a_listener_makes_its_tables_again_and_misses_nothing(url, gone):
    with pinnacle(url) as db:
        db.add(listener())
        db.listen()
        db.drain()
        run_sql(url, f"DROP TABLE pinnacle.{gone}", "INSERT INTO docs VALUES (4, 'd')")
        wait_until(lambda: run_sql(url, "SELECT loud FROM docs WHERE id = 4") == [("D",)])
        run_sql(url, "INSERT INTO docs VALUES (5, 'e')")
        db.drain()
    assert run_sql(url, "SELECT loud FROM docs WHERE id = 5") == [("E",)]


def test_a_key_renamed_beside_an_older_snapshot_fails_no_statement(url):
    with pinnacle(url) as db, psycopg.connect(url) as user:
        db.add(listener())
        user.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        user.execute("SELECT 1 FROM pg_class LIMIT 1").fetchall()
        run_sql(url, "ALTER TABLE docs RENAME id TO number")
        user.execute("INSERT INTO docs VALUES (9, 'i')")
        user.execute("DELETE FROM docs WHERE number = 9")
        user.commit()


def test_columns_that_moved_in_a_restore_are_found_again(url):
    """A dump counts columns anew where some were dropped; its functions are as they were."""
    with pinnacle(url) as db:
        db.add(listener())
        run_sql(url, "UPDATE pg_proc SET prosrc = replace(prosrc, 'TG_RELID, 1)', 'TG_RELID, 2)')")
        db.listen()
        db.drain()
        assert run_sql(url, "SELECT count(*) FROM pg_proc WHERE prosrc LIKE '%TG_RELID, 2)%'") == [(0,)]
        run_sql(url, "INSERT INTO docs VALUES (4, 'd')")
        db.drain()
    assert run_sql(url, "SELECT loud FROM docs WHERE id = 4") == [("D",)]
