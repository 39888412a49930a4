"""What the user's own program may see of pinnacle on PostgreSQL: nothing but its outputs."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from pinnacle import Listener, pinnacle
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
    assert run_sql(url, "SELECT count(*) FROM docs WHERE loud = upper(body) AND again = loud") == [(4,)]
