"""Any key works: every row is visited once, its output lands on it, and its errors name it."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import bson
import pytest
import sqlalchemy as sa

from pinnacle import UnsupportedTable, model
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from tests.contract.documents import outputs
from tests.models import picky

pytestmark = pytest.mark.same_standalone

COLUMN_KEYS: dict[str, tuple[list[Any], list[tuple[Any, ...]]]] = {
    "integer": ([sa.Integer], [(1,), (-5,), (2**31 - 1,), (0,)]),
    "big integer": ([sa.BigInteger], [(2**62,), (-(2**62),), (7,)]),
    "text": ([sa.Text], [("a",), ("B",), ("",), ("é",), ("a'b\"c",), ("10",), ("9",), ("x y",)]),
    "uuid": ([sa.Uuid], [(uuid.UUID(int=n * 2**100 + 7),) for n in range(6)]),
    "bytes": ([sa.LargeBinary], [(b"",), (b"\x00",), (b"\xff\x01",), (b"abc",)]),
    "datetime": ([sa.DateTime], [(datetime(2026, 1, day, 3, 4, 5, 678901),) for day in (3, 1, 2)]),
    "date": ([sa.Date], [(date(2026, 1, day),) for day in (3, 1, 2)]),
    "decimal": ([sa.Numeric(12, 3, asdecimal=True)], [(Decimal("1.500"),), (Decimal("-2.125"),), (Decimal(10),)]),
    "boolean": ([sa.Boolean], [(True,), (False,)]),
    "float": ([sa.Double], [(1.5,), (-2.0,), (1e300,)]),
    "integer and text": ([sa.Integer, sa.Text], [(1, "b"), (1, "a"), (0, "z"), (2, ""), (10, "A")]),
    "text and integer": ([sa.Text, sa.Integer], [("b", 1), ("a", 2), ("a", 10), ("a", -1)]),
    "uuid and date": ([sa.Uuid, sa.Date], [(uuid.UUID(int=n), date(2026, 1, 1 + n)) for n in range(3)]),
    "three integers": ([sa.Integer] * 3, [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]),
}


def keyed_table(backend: Any, kinds: list[Any], keys: list[tuple[Any, ...]]) -> sa.Table:
    """A table whose body says which row it is; the last key's row is one that picky models refuse."""
    parts = [sa.Column(f"key{i}", kind, primary_key=True, autoincrement=False) for i, kind in enumerate(kinds)]
    table = sa.Table("docs", sa.MetaData(), *parts, sa.Column("body", sa.Text))
    table.create(backend.engine)
    with backend.engine.begin() as connection:
        for number, key in enumerate(keys):
            body = f"bad {number}" if number == len(keys) - 1 else f"row {number}"
            connection.execute(sa.insert(table).values(**{f"key{i}": part for i, part in enumerate(key)}, body=body))
    return table


@pytest.mark.requires(Capability.SQL)
@pytest.mark.parametrize("kind", COLUMN_KEYS)
def test_a_key_of_any_column_type_works(backend, db, calls, kind, monkeypatch):
    monkeypatch.setattr("pinnacle.runtime.page_size.FIRST_PAGE_ROWS", 2)
    kinds, keys = COLUMN_KEYS[kind]
    table = keyed_table(backend, kinds, keys)
    result = picky.predict(X="body", db=db, select=sa.select(table))
    assert (result.read, result.written, result.failed) == (len(keys), len(keys) - 1, 1)
    found = db.execute(sa.select(*list(table.c)[: len(kinds)], db.output(table, "body", picky))).all()
    wanted = {key: f"ROW {number}" for number, key in enumerate(keys)} | {keys[-1]: None}
    assert {tuple(row[:-1]): row[-1] for row in found} == wanted
    assert len(calls) == len(keys) + 2
    again = picky.predict(X="body", db=db, select=sa.select(table))
    assert (again.fresh, again.set_aside) == (len(keys) - 1, 1)


@pytest.mark.requires(Capability.SQL)
@pytest.mark.parametrize("kind", COLUMN_KEYS)
def test_errors_name_their_rows_and_are_retried_whatever_the_key(backend, db, kind):
    kinds, keys = COLUMN_KEYS[kind]
    table = keyed_table(backend, kinds, keys)
    broken = [True]

    def failing(body):
        if broken:
            raise ValueError
        return body.upper()

    fragile = model(failing, identifier="m", output_type=str, max_attempts=1)
    fragile.predict(X="body", db=db, select=sa.select(table))
    assert len({error.key for error in db.errors()}) == len(keys)
    broken.clear()
    (result,) = db.retry_errors(fragile)
    assert (result.written, db.errors()) == (len(keys), [])


@pytest.mark.requires(Capability.SQL)
def test_a_key_that_is_not_the_first_column_works(backend, db):
    table = sa.Table("docs", sa.MetaData(), sa.Column("body", sa.Text), sa.Column("k", sa.Text, primary_key=True))
    table.create(backend.engine)
    with backend.engine.begin() as connection:
        connection.execute(sa.insert(table), [{"k": key, "body": f"row {key}"} for key in "xyz"])
    assert picky.predict(X="body", db=db, select=sa.select(table)).written == 3


@pytest.mark.requires(Capability.SQL)
def test_the_key_may_be_the_input(backend, db):
    table = sa.Table("docs", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True))
    table.create(backend.engine)
    with backend.engine.begin() as connection:
        connection.execute(sa.insert(table), [{"name": "a"}, {"name": "b"}])
    assert picky.predict(X="name", db=db, select=sa.select(table)).written == 2
    assert picky.predict(X="name", db=db, select=sa.select(table)).fresh == 2


@pytest.mark.unmigrated
@pytest.mark.requires(Capability.SQL)
def test_a_table_without_a_key_is_refused_before_any_call(backend, db, calls):
    table = sa.Table("docs", sa.MetaData(), sa.Column("body", sa.Text))
    table.create(backend.engine)
    with pytest.raises(UnsupportedTable, match="no primary key"):
        picky.predict(X="body", db=db, select=sa.select(table))
    assert (calls, db.outputs()) == ([], [])


@pytest.mark.requires(Capability.SQL)
def test_a_key_that_changes_takes_its_output_along(backend, db, calls):
    table = keyed_table(backend, [sa.Integer], [(1,), (2,), (99,)])
    picky.predict(X="body", db=db, select=sa.select(table))
    with backend.engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.key0 == 1).values(key0=11))
    picky.predict(X="body", db=db, select=sa.select(table))
    found = db.execute(sa.select(table.c.key0, db.output(table, "body", picky)).order_by(table.c.key0)).all()
    assert [tuple(row) for row in found] == [(2, "ROW 1"), (11, "ROW 0"), (99, None)]


DOCUMENT_KEYS = [
    5, 2.5, "text", "5", "", "ünï", bson.ObjectId("65a000000000000000000001"), {"a": 1, "b": "x"}, {"b": "x", "a": 1},
    datetime(2026, 1, 1), True, False, bson.Binary(b"\x00\x01"), bson.Int64(2**40), bson.Decimal128("1.5"), -7, {},
]  # fmt: skip


@pytest.mark.requires(Capability.DOCUMENTS, Capability.MANY_PROCESSES)
def test_documents_of_every_kind_of_id_get_their_outputs(backend, db, monkeypatch):
    monkeypatch.setattr("pinnacle.runtime.page_size.FIRST_PAGE_ROWS", 3)
    bodies = {str(key): f"bad {n}" if n == 7 else f"row {n}" for n, key in enumerate(DOCUMENT_KEYS)}
    backend.database.docs.insert_many([{"_id": key, "body": bodies[str(key)]} for key in DOCUMENT_KEYS])
    result = picky.predict(X="body", db=db, select=Collection("docs").find())
    assert (result.read, result.written, result.failed) == (len(DOCUMENT_KEYS), len(DOCUMENT_KEYS) - 1, 1)
    for row in db.execute(Collection("docs").find({"body": {"$ne": "bad 7"}})):
        assert row.outputs("body", "picky") == row["body"].upper()
    again = picky.predict(X="body", db=db, select=Collection("docs").find())
    assert (again.fresh, again.set_aside) == (len(DOCUMENT_KEYS) - 1, 1)
    assert [error.key for error in db.errors()] == [{"a": 1, "b": "x"}]


@pytest.mark.requires(Capability.DOCUMENTS)
def test_documents_with_object_ids_get_their_outputs(backend, db):
    keys = backend.database.docs.insert_many([{"body": f"row {n}"} for n in range(5)]).inserted_ids
    assert picky.predict(X="body", db=db, select=Collection("docs").find()).written == 5
    assert outputs(backend, db, "body", "picky") == {key: f"ROW {n}" for n, key in enumerate(keys)}


@pytest.mark.requires(Capability.DOCUMENTS, Capability.MANY_PROCESSES)
def test_errors_of_every_kind_of_id_can_be_retried(backend, db):
    backend.database.docs.insert_many([{"_id": key, "body": f"row {n}"} for n, key in enumerate(DOCUMENT_KEYS)])
    broken = [True]

    def failing(body):
        if broken:
            raise ValueError
        return body.upper()

    fragile = model(failing, identifier="m", output_type=str, max_attempts=1)
    fragile.predict(X="body", db=db, select=Collection("docs").find())
    assert len(db.errors()) == len(DOCUMENT_KEYS)
    broken.clear()
    (result,) = db.retry_errors(fragile)
    assert (result.written, db.errors()) == (len(DOCUMENT_KEYS), [])


def test_times_of_errors_are_recent(backend, db):
    backend.create("docs", {"body": str})
    backend.insert("docs", {"body": "bad"})
    picky.predict(X="body", db=db, select=backend.query("docs"))
    assert abs((db.errors()[0].failed_at - datetime.now(UTC)).total_seconds()) < 60
