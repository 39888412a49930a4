"""Who may write pinnacle's registry cannot have it write or drop what is the user's: an output's place is proven."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from pinnacle import Conflict, Listener
from pinnacle.backends.protocol import Capability
from pinnacle.base.types import Items, Text
from pinnacle.components.side import Side
from tests.contract.documents import wait_until
from tests.models import shout

pytestmark = pytest.mark.requires(Capability.SQL)

ITEMS = json.dumps(Items(Text(), many=True).to_json())


@pytest.fixture
def docs(backend):
    backend.create("docs", {"body": str})
    backend.create("users", {"body": str, "role": str})
    backend.insert("docs", {"body": "a"})
    backend.insert("users", {"body": "root", "role": "admin"})
    return backend.query("docs")


def registry(backend):
    return sa.Table(
        "pinnacle_output", sa.MetaData(), autoload_with=backend.engine,
        schema="pinnacle" if backend.engine.dialect.name == "postgresql" else None,
    )  # fmt: skip


def tamper(backend, **values):
    with backend.engine.begin() as connection:
        connection.execute(sa.update(registry(backend)).values(values))


def test_a_column_that_the_registry_was_pointed_at_is_not_dropped(backend, db, docs, caplog):
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, table_name="users", name="role", created_column=True)
    assert not any("users" in statement for statement in db.removal_plan(outputs=True))
    db.remove_all(outputs=True)
    assert backend.read("users", 1) == {"body": "root", "role": "admin"}
    assert "users.role stays: nothing proves that pinnacle made it" in caplog.text


@pytest.mark.parametrize("values", [{"table_name": "users", "name": "role"}, {"name": "body"}], ids=str)
def test_removing_the_model_leaves_such_a_column_too(backend, db, docs, values):
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, created_column=True, **values)
    db.remove("model", "shout", outputs="drop")
    assert backend.read("users", 1) == {"body": "root", "role": "admin"}
    assert backend.read("docs", 1) == {"body": "a", "loud": "A"}


@pytest.mark.parametrize("name", ["users", "loud"])
def test_a_table_that_the_registry_calls_a_side_table_is_not_dropped(backend, db, docs, name):
    backend.create("loud", {"body": str})
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, name=name, type=ITEMS, created_column=True)
    db.remove_all(outputs=True)
    assert (backend.has("users"), backend.has("loud")) == (True, True)


def test_nothing_is_written_into_such_a_column(backend, db, docs, calls):
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, table_name="users", name="role", created_column=True)
    calls.clear()
    users = backend.query("users")
    for again in (
        lambda: shout.predict(X="body", db=db, select=users, output="role"),
        lambda: shout.predict(X="body", db=db, select=users, output="role", dry_run=True),
        lambda: db.add(Listener(model=shout, key="body", select=users, output="role")),
    ):
        with pytest.raises(Conflict, match=r"nothing proves.*adopt=True"):
            again()
    assert (calls, backend.read("users", 1)["role"]) == ([], "admin")


def test_no_other_field_is_read_for_a_column_than_the_one_it_is_of(backend, db, calls):
    backend.create("docs", {"body": str, "secret": str})
    backend.insert("docs", {"body": "a", "secret": "s"})
    docs = backend.query("docs")
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, fields='"secret"')
    calls.clear()
    with pytest.raises(Conflict, match="nothing proves"):
        shout.predict(X="secret", db=db, select=docs, output="loud")
    assert (calls, backend.read("docs", 1)["loud"]) == ([], "A")


def test_rows_set_aside_are_not_tried_again_into_such_a_column(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, table_name="users", name="role", created_column=True)
    errors = sa.Table("pinnacle_error", sa.MetaData(), autoload_with=backend.engine, schema=registry(backend).schema)
    row = {"output_id": 1, "key": "1", "version": 0, "error": "E", "message": "", "traceback": "", "attempts": 1}
    with backend.engine.begin() as connection:
        connection.execute(sa.insert(errors).values(row | {"failed_at": 0.0}))
    with pytest.raises(Conflict, match="nothing proves"):
        db.retry_errors(shout)
    assert backend.read("users", 1)["role"] == "admin"


def test_a_line_that_was_put_into_the_registry_counts_for_nothing(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    table = registry(backend)
    with backend.engine.begin() as connection:
        row = connection.execute(sa.select(table)).one()._mapping
        forged = {**row, "id": 7, "table_name": "users", "name": "role", "created_column": True}
        connection.execute(sa.insert(table).values(forged))
    with pytest.raises(Conflict, match="nothing proves"):
        shout.predict(X="body", db=db, select=backend.query("users"), output="role")
    db.remove_all(outputs=True)
    assert backend.read("users", 1) == {"body": "root", "role": "admin"}
    assert backend.read("docs", 1) == {"body": "a"}


def test_a_worker_writes_nothing_for_a_listener_whose_output_is_another(backend, db, docs):
    db.add(Listener(model=shout, key="body", select=docs, output="loud"))
    tamper(backend, table_name="users", name="role", created_column=True)
    db.listen()
    wait_until(lambda: db.listeners()[0].last_error is not None)
    assert "registered with another output" in db.listeners()[0].last_error
    assert backend.read("users", 1) == {"body": "root", "role": "admin"}
    assert backend.read("docs", 1) == {"body": "a", "loud": None}


def test_who_says_adopt_fills_the_place_again_and_it_stays_theirs(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    with backend.engine.begin() as connection:
        schema = registry(backend).schema
        connection.exec_driver_sql(f"DROP VIEW {schema + '.' if schema else ''}pinnacle_place_1")
    with pytest.raises(Conflict, match="nothing proves"):
        shout.predict(X="body", db=db, select=docs, output="loud")
    assert shout.predict(X="body", db=db, select=docs, output="loud", adopt=True).fresh == 1
    assert shout.predict(X="body", db=db, select=docs, output="loud").fresh == 1
    db.remove_all(outputs=True)
    assert backend.read("docs", 1) == {"body": "a", "loud": "A"}


def test_what_pinnacle_made_is_dropped_and_what_proves_it_goes_along(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    shout.predict(X="body", db=db, select=docs, output=Side("louder"))
    inspector = sa.inspect(backend.engine)
    schema = registry(backend).schema
    assert inspector.get_view_names(schema=schema) == [f"pinnacle_place_{n}" for n in range(3)]
    db.remove_all(outputs=True)
    assert (backend.read("docs", 1), backend.has("louder")) == ({"body": "a"}, False)
    left = sa.inspect(backend.engine)
    assert schema not in left.get_schema_names() if schema else left.get_view_names() == []
