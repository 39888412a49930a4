"""What others do to a side table on PostgreSQL, and what a listener that cannot be made leaves."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pinnacle import BackendError, Conflict, Listener, Side, model, pinnacle
from tests.models import shout


@model
def parts(body: str) -> list[str]:
    return body.split()


@pytest.fixture
def docs(postgres_url):
    """Two documents in a table whose third column is generated, and the engine to it."""
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE docs (id int PRIMARY KEY, body text, "
            "upper_body text GENERATED ALWAYS AS (upper(body)) STORED)"
        )
        connection.exec_driver_sql("INSERT INTO docs VALUES (1, 'a b'), (2, 'c')")
    yield engine, sa.Table("docs", sa.MetaData(), autoload_with=engine)
    engine.dispose()


def test_a_truncated_side_table_is_filled_again(postgres_url, docs):
    engine, table = docs
    with pinnacle(postgres_url) as db:
        db.add(Listener(model=parts, key="body", select=sa.select(table), output=Side("parts")))
        db.listen()
        db.drain()
        with engine.begin() as connection:
            connection.exec_driver_sql("TRUNCATE parts")
        db.drain()
        assert db.execute("SELECT docs_id, position, value FROM parts ORDER BY 1, 2").all() == [
            (1, 0, "a"), (1, 1, "b"), (2, 0, "c"),
        ]  # fmt: skip


def test_a_circle_through_a_side_table_in_a_schema_is_refused(postgres_url, docs):
    engine, _ = docs
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA apart")
        connection.exec_driver_sql("CREATE TABLE apart.docs (id int PRIMARY KEY, body text)")
    table = sa.Table("docs", sa.MetaData(schema="apart"), autoload_with=engine)
    with pinnacle(postgres_url) as db:
        db.add(Listener(model=parts, key="body", select=sa.select(table), output=Side("parts")))
        side = sa.Table("parts", sa.MetaData(schema="apart"), autoload_with=engine)
        with pytest.raises(Conflict, match="circle"):
            db.add(Listener(model=parts, key="value", select=sa.select(side), output=Side("parts")))


def test_a_listener_whose_triggers_are_refused_leaves_nothing(postgres_url, docs):
    engine, table = docs
    with pinnacle(postgres_url) as db:
        with pytest.raises(BackendError, match="generated"):
            db.add(Listener(model=shout, key="upper_body", select=sa.select(table), output="loud", on_change="clear"))
        assert (db.show("listener"), db.listeners()) == ([], [])
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO docs VALUES (3, 'd')")
