"""The migrations make the tables that the code works with, on both kinds of SQL database."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from pinnacle import ConfigError, pinnacle
from pinnacle.backends.sql import migrate, schema

pytestmark = pytest.mark.unmigrated


def open_engine(url: str) -> tuple[sa.Engine, str | None]:
    """An engine and the schema that pinnacle's tables live in there."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    if engine.dialect.name == "sqlite":
        return engine, None
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema.SCHEMA))
    return engine, schema.SCHEMA


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def place(request):
    engine, name = open_engine(request.getfixturevalue(request.param))
    yield engine, name
    engine.dispose()


def test_head_is_the_newest_migration():
    assert ScriptDirectory(str(migrate.migrations_path())).get_current_head() == schema.HEAD


def test_migrations_make_the_tables_of_the_metadata(place):
    engine, name = place
    with engine.begin() as connection:
        migrate.upgrade(connection, name)
    with engine.connect() as connection:
        options = {
            "include_schemas": name is not None,
            "include_name": lambda found, kind, parents: kind != "schema" or found == name,
            "include_object": lambda thing, found, kind, *rest: kind != "index" and found != schema.VERSION_TABLE,
        }
        context = MigrationContext.configure(connection.execution_options(), opts=options)
        wanted = sa.MetaData()
        for table in schema.metadata.sorted_tables:
            table.to_metadata(wanted, schema=name)
        assert compare_metadata(context, wanted) == []


def test_migrating_again_changes_nothing(place):
    engine, name = place
    for _ in range(2):
        with engine.begin() as connection:
            migrate.upgrade(connection, name)
            assert migrate.current_revision(connection, name) == schema.HEAD
    assert migrate.upgrade_sql(str(engine.url), name, schema.HEAD, ()) == []


def test_the_planned_statements_do_what_upgrade_does(place):
    engine, name = place
    statements = migrate.upgrade_sql(f"{engine.dialect.name}://", name, None, ())
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    with engine.connect() as connection:
        assert migrate.current_revision(connection, name) == schema.HEAD
        assert {table.name for table in schema.metadata.sorted_tables} <= set(
            sa.inspect(connection).get_table_names(schema=name)
        )


def test_an_older_database_is_brought_to_this_version(tmp_path):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)")
        command.upgrade(migrate._config(None, connection=connection), "0001")
    engine.dispose()
    with pinnacle(url) as db:
        with pytest.raises(ConfigError, match="pinnacle migrate"):
            db.outputs()
        assert any("pinnacle_listener" in statement for statement in db.migration_plan())
        db.migrate()
        assert (db.migration_plan(), db.listeners()) == ([], [])


def test_places_of_any_name_are_said_as_the_registry_has_them(place):
    engine, name = place
    odd = 'it\'s "a" %s :x'
    known = [
        (3, "tenant", odd, odd, '"text"', odd, '{"b": "x", "a": "y"}', True),
        (4, "", "docs", "side", '{"type": "items"}', "m", '"body"', False),
    ]
    for statement in migrate.upgrade_sql(f"{engine.dialect.name}://", name, None, (), known):
        with engine.begin() as connection:
            connection.exec_driver_sql(statement.replace("%", "%%") if name else statement)
    with engine.connect() as connection:
        found = [
            tuple(connection.execute(sa.select(sa.text("*")).select_from(sa.table(view, schema=name))).one())
            for view in ("pinnacle_place_3", "pinnacle_place_4")
        ]
    assert found == [
        ("tenant", odd, odd, "column", odd, '{"a": "y", "b": "x"}', "made"),
        ("", "docs", "side", "table", "m", '"body"', "adopted"),
    ]


def test_a_revision_that_was_set_back_proves_nothing_a_second_time(place):
    engine, name = place
    with engine.begin() as connection:
        migrate.upgrade(connection, name)
        dot = f"{name}." if name else ""
        connection.exec_driver_sql(f"UPDATE {dot}pinnacle_migration SET version_num = '0011'")
        connection.exec_driver_sql(
            f"INSERT INTO {dot}pinnacle_output (id, table_name, name, model, version, fields, type, created_column, "
            "created_at) VALUES (7, 'users', 'role', 'm', 0, '\"body\"', '\"text\"', true, '2026-01-01')"
        )
        command.upgrade(migrate._config(name, places=migrate.places(connection, name), connection=connection), "0012")
    assert sa.inspect(engine).get_view_names(schema=name) == ["pinnacle_place_0"]
