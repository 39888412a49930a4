"""A mapped class whose types make other values of its columns than the database's own types do."""

from __future__ import annotations

import enum
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Size(enum.IntEnum):
    SMALL = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: int


class PointText(sa.types.TypeDecorator[Point]):
    """Points as text."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Point | None, dialect: sa.Dialect) -> Any:
        return None if value is None else f"{value.x},{value.y}"

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return None if value is None else Point(*map(int, value.split(",")))


class UtcTime(sa.types.TypeDecorator[datetime]):
    """Moments with their zone, also where the database has none."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        return None if value is None else value.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return None if value is None else value.replace(tzinfo=UTC)


class JsonText(sa.types.TypeDecorator[Any]):
    """JSON that its own code makes and reads."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        return json.dumps(value, default=float)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return json.loads(value, parse_float=Decimal)


class LongText(sa.types.TypeDecorator[str]):
    """Text that is declared otherwise, and read as it is: SQLModel has such a type."""

    impl = sa.Text
    cache_ok = True


COLUMNS: dict[str, tuple[Any, Any]] = {
    "words": (sa.String(40), "grüße"),
    "long": (sa.Text(), ""),
    "longer": (LongText(), "x"),
    "whole": (sa.BigInteger(), 2**63 - 1),
    "share": (sa.Double(), 0.1),
    "single": (sa.Float(), 1.5),
    "price": (sa.Numeric(12, 2), Decimal("12.50")),
    "price_as_float": (sa.Numeric(12, 2, asdecimal=False), 12.5),
    "decimals": (sa.Numeric(18, 10, decimal_return_scale=4), Decimal("1.2345")),
    "share_as_decimal": (sa.Float(asdecimal=True), Decimal("0.5")),
    "flag": (sa.Boolean(), True),
    "day": (sa.Date(), date(2026, 2, 28)),
    "clock": (sa.Time(), time(23, 59, 59, 999999)),
    "moment": (sa.DateTime(), datetime(2026, 1, 2, 3, 4, 5, 6)),
    "moment_of_utc": (UtcTime(), datetime(2026, 1, 2, tzinfo=UTC)),
    "span": (sa.Interval(), timedelta(days=-3, microseconds=1)),
    "blob": (sa.LargeBinary(), b"\x00\xff"),
    "meta": (sa.JSON(), {"a": [1, None, 0.1]}),
    "own_json": (JsonText(), {"a": Decimal("0.1")}),
    "number": (sa.Uuid(), uuid.UUID(int=7)),
    "number_as_text": (sa.Uuid(as_uuid=False), str(uuid.UUID(int=8))),
    "number_in_text": (sa.Uuid(native_uuid=False), uuid.UUID(int=9)),
    "mood": (sa.Enum("good", "bad", name="mood_kind"), "good"),
    "mood_in_text": (sa.Enum("good", "bad", native_enum=False), "bad"),
    "colour": (sa.Enum(Colour, name="colour_kind"), Colour.BLUE),
    "colour_in_text": (sa.Enum(Colour, native_enum=False), Colour.RED),
    "size": (sa.Enum(Size, native_enum=False), Size.SMALL),
    "point": (PointText(), Point(1, -2)),
    "pickled": (sa.PickleType(), {"at": (1, 2)}),
}

ON_POSTGRES: dict[str, tuple[Any, Any]] = {
    "names": (postgresql.ARRAY(sa.Text), ["a", None]),
    "grid": (postgresql.ARRAY(sa.Integer, as_tuple=True, dimensions=2), ((1, 2), (3, 4))),
    "colours": (postgresql.ARRAY(sa.Enum(Colour, name="colour_kind")), [Colour.RED]),
    "moods": (postgresql.ARRAY(sa.Enum("good", "bad", name="mood_kind")), ["bad"]),
    "prices": (postgresql.ARRAY(sa.Numeric(6, 2)), [Decimal("1.50")]),
    "fast": (postgresql.JSONB(), {"b": [True]}),
    "address": (postgresql.INET(), "10.0.0.1"),
    "month": (postgresql.INTERVAL(), timedelta(days=30)),
    "range": (postgresql.INT4RANGE(), postgresql.Range(1, 5)),
    "bits": (postgresql.BIT(3), "101"),
}


class Base(orm.DeclarativeBase):
    pass


class Plain(Base):
    """All columns that every database has; on SQLite."""

    __table__ = sa.Table(
        "plain", Base.metadata, sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, kind) for name, (kind, _) in COLUMNS.items()),
    )  # fmt: skip


class OnPostgres(Base):
    """With those of PostgreSQL alone."""

    __table__ = sa.Table(
        "on_postgres", Base.metadata, sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, kind) for name, (kind, _) in {**COLUMNS, **ON_POSTGRES}.items()),
    )  # fmt: skip


class Doc(Base):
    """A row with a colour."""

    __tablename__ = "docs"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    hue: orm.Mapped[Colour] = orm.mapped_column("colour", sa.Enum(Colour, native_enum=False))
    mood: orm.Mapped[str | None] = orm.mapped_column(sa.Enum("good", "bad", native_enum=False))
    price: orm.Mapped[float | None] = orm.mapped_column(sa.Numeric(12, 2, asdecimal=False))
