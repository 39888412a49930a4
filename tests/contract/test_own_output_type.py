"""An output type that a program brings itself is stored, kept fresh and read back like pinnacle's own."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from bson import Binary

from pinnacle import ConfigError, Listener, OutputTypeConflict, Side, model
from pinnacle.backends.protocol import Capability
from pinnacle.base.types import output_type_from_json, output_type_of, registry
from pinnacle.plugin import BsonField, OutputType, PostgresColumn, SqliteColumn, converted, register_output_type
from tests.contract.documents import blank, create_docs, outputs
from tests.models import CALLS, note

pytestmark = pytest.mark.same_standalone


@dataclass(frozen=True)
class Money(OutputType):
    """An amount of at most ``places`` decimals, kept as text."""

    places: int = 2
    name, annotations = "money", (Decimal,)

    def check(self, value: Any) -> Decimal:
        if not isinstance(value, Decimal) or not value.is_finite():
            raise self.misfit(value)
        if -int(value.as_tuple().exponent) > self.places:
            raise self.misfit(value, f"it has more than {self.places} decimals")
        return value

    def on_sqlite(self) -> SqliteColumn:
        return SqliteColumn(type=converted(sa.Text(), str, Decimal), strict="TEXT", adopts=(sa.String,))

    def on_postgres(self) -> PostgresColumn:
        return PostgresColumn(type=converted(sa.Text(), str, Decimal), adopts=(sa.String,))

    def on_mongodb(self) -> BsonField:
        return BsonField(types=("string",), encode=str, decode=Decimal)


class Identity(OutputType):
    """A UUID, as each database keeps it."""

    name, annotations = "uuid", (UUID,)

    def check(self, value: Any) -> UUID:
        if not isinstance(value, UUID):
            raise self.misfit(value)
        return value

    def on_sqlite(self) -> SqliteColumn:
        return SqliteColumn(type=converted(sa.Text(), str, UUID), strict="TEXT", adopts=(sa.String,))

    def on_postgres(self) -> PostgresColumn:
        return PostgresColumn(type=sa.Uuid(), adopts=(sa.Uuid,))

    def on_mongodb(self) -> BsonField:
        return BsonField(
            types=("binData",), encode=Binary.from_uuid, decode=Binary.as_uuid,
            is_ours=lambda value: isinstance(value, UUID),
        )  # fmt: skip


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Money is known by its name and its annotation for one test."""
    monkeypatch.setattr(registry, "_TYPES", dict(registry._TYPES))
    monkeypatch.setattr(registry, "_BY_ANNOTATION", dict(registry._BY_ANNOTATION))
    register_output_type(Money)
    register_output_type(Identity)


@model
def price(body: str) -> Decimal:
    return Decimal(note(body))


@model
def named(body: str) -> UUID:
    return UUID(int=len(note(body)))


@model
def parts(body: str) -> list[Decimal]:
    return [Decimal(part) for part in body.split()]


def test_its_values_are_read_back_equal_and_stay_fresh(backend, db):
    create_docs(backend, "1.50", "-0.01", "12345678901234567890.12")
    result = price.predict(X="body", db=db, select=backend.query("docs"))
    assert (result.written, result.failed) == (3, 0)
    assert price.predict(X="body", db=db, select=backend.query("docs")).calls == 0
    found = outputs(backend, db, "body", "price")
    assert found == {1: Decimal("1.50"), 2: Decimal("-0.01"), 3: Decimal("12345678901234567890.12")}
    assert {type(value) for value in found.values()} == {Decimal}


def test_its_checks_make_a_misfit_its_rows_error_alone(backend, db):
    create_docs(backend, "1.50", "1.505", "NaN")
    result = price.predict(X="body", db=db, select=backend.query("docs"))
    assert (result.written, result.failed) == (1, 2)
    assert outputs(backend, db, "body", "price") == {1: Decimal("1.50"), 2: blank(backend), 3: blank(backend)}
    assert {error.error for error in db.errors()} == {"OutputTypeMismatch"}


def test_a_listener_keeps_its_outputs_fresh(backend, db):
    create_docs(backend, "1.50", "2.50")
    listener = db.add(Listener(model=price, key="body", select=backend.query("docs"), output="price"))
    db.listen()
    db.drain()
    CALLS.clear()
    backend.update("docs", 1, {"body": "7.25"})
    backend.update("docs", 2, {"price": "9.99"})  # overwritten by others: healed
    db.drain()
    assert {key: row["price"] for key, row in backend.read_all("docs").items()} == {1: "7.25", 2: "2.50"}
    assert sorted(CALLS) == ["2.50", "7.25"]
    assert (db.fresh(listener).fresh, db.fresh(listener).missing) == (2, 0)


def test_its_values_are_items_of_a_side_table(backend, db):
    create_docs(backend, "1.50 2.25", "3")
    parts.predict(X="body", db=db, select=backend.query("docs"), output=Side("chunks"))
    assert backend.rows("chunks", "docs_id", "position", "value") == [(1, 0, "1.50"), (1, 1, "2.25"), (2, 0, "3")]
    assert parts.predict(X="body", db=db, select=backend.query("docs"), output=Side("chunks")).fresh == 2


@pytest.mark.requires(Capability.SQL)
def test_a_model_that_reads_it_gets_its_values(backend, db):
    create_docs(backend, "1.50")
    price.predict(X="body", db=db, select=backend.query("docs"), output="price")
    seen = []
    model(lambda amount: str(seen.append(amount)), identifier="reader", output_type=str).predict(
        X="price", db=db, select=backend.query("docs")
    )
    assert seen == [Decimal("1.50")]


def test_uuids_are_uuids_on_every_database(backend, db):
    create_docs(backend, "one", "three")
    for calls in (2, 0):
        assert named.predict(X="body", db=db, select=backend.query("docs"), output="named").calls == calls
    assert outputs(backend, db, "body", "named") == {1: UUID(int=3), 2: UUID(int=5)}
    seen: list[UUID] = []
    reader = model(lambda name: seen.append(name) or name.int, identifier="reader", output_type=int)
    for calls in (2, 0):
        assert reader.predict(X="named", db=db, select=backend.query("docs"), output="number").calls == calls
    assert seen == [UUID(int=3), UUID(int=5)]


@pytest.mark.requires(Capability.DOCUMENTS)
def test_a_field_is_adopted_where_its_values_are_of_the_type(backend, db):
    backend.create("docs", {})
    backend.insert("docs", {"body": "one", "kept": Binary.from_uuid(UUID(int=1))})
    raw = model(lambda body: body.encode(), identifier="raw", output_type=bytes)
    with pytest.raises(OutputTypeConflict):
        raw.predict(X="body", db=db, select=backend.query("docs"), output="kept", adopt=True)
    named.predict(X="body", db=db, select=backend.query("docs"), output="kept", adopt=True)
    assert outputs(backend, db, "body", "named") == {1: UUID(int=3)}


def test_a_column_of_its_kind_is_adopted(backend, db):
    backend.create("docs", {"body": str, "price": str})
    backend.insert("docs", {"body": "1.50", "price": None})
    price.predict(X="body", db=db, select=backend.query("docs"), output="price")
    assert backend.read_all("docs")[1]["price"] == "1.50"


def test_parameters_are_stored_with_it(backend, db, below):
    create_docs(backend, "1.505")
    exact = model(lambda body: Decimal(body), identifier="exact", output_type=Money(places=3))
    assert exact.predict(X="body", db=db, select=backend.query("docs")).written == 1
    assert [info.type for info in below.outputs.of("exact")] == [Money(places=3)]
    assert db.load("model", "exact").output_type == Money(places=3)


def test_it_is_known_by_name_and_annotation():
    assert output_type_of("money") == output_type_of(Decimal | None) == Money()
    assert output_type_from_json({"type": "money", "places": 3}) == Money(places=3)


def test_a_name_or_annotation_that_is_taken_is_refused():
    class Other(Money):
        annotations = ()

    class Whole(Money):
        name, annotations = "whole", (int,)

    with pytest.raises(ConfigError, match="there is an output type 'money' already"):
        register_output_type(Other)
    with pytest.raises(ConfigError, match="the annotation int means another"):
        register_output_type(Whole)
    register_output_type(Money)  # once more is nothing


def test_a_stored_type_that_is_not_known_here_is_named():
    with pytest.raises(ConfigError, match="'ounces' is not known here; install the package"):
        output_type_from_json("ounces")


def _refusing_odd(value: Any) -> str:
    if int(value) % 2:
        raise LookupError(f"no form for {value}")
    return str(value)


class Even(OutputType):
    """A number, of which the odd ones have no form in any database."""

    name, annotations = "even", ()

    def check(self, value: Any) -> int:
        return int(value)

    def on_sqlite(self) -> SqliteColumn:
        return SqliteColumn(type=converted(sa.Text(), _refusing_odd, int), strict="TEXT", adopts=(sa.String,))

    def on_postgres(self) -> PostgresColumn:
        return PostgresColumn(type=converted(sa.Text(), _refusing_odd, int), adopts=(sa.String,))

    def on_mongodb(self) -> BsonField:
        return BsonField(types=("string",), encode=_refusing_odd, decode=int)


@pytest.mark.requires(Capability.SQL)
def test_an_output_that_cannot_be_encoded_costs_its_row_alone(backend, db, calls):
    register_output_type(Even)
    create_docs(backend, *map(str, range(6)))
    even = model(lambda body: note(int(body)), identifier="even", output_type=Even(), max_attempts=1)
    result = even.predict(X="body", db=db, select=backend.query("docs"))
    assert outputs(backend, db, "body", "even") == {1: 0, 2: None, 3: 2, 4: None, 5: 4, 6: None}
    assert (result.written, result.failed, len(calls)) == (3, 3, 6)
    errors = db.errors()
    assert sorted(error.key for error in errors) == [2, 4, 6]
    assert all("LookupError: no form for" in error.message for error in errors)
