"""Output types as SQL columns: what to declare, what to adopt, how values travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pinnacle.base.types import (
    Boolean,
    Bytes,
    Datetime,
    Float,
    Integer,
    Json,
    OutputType,
    Text,
    Vector,
    numpy,
)

Encoder = Callable[[Any], Any]


class Raw(sa.types.UserDefinedType[Any]):
    """A value as the driver gave it, to be handed back untouched."""

    cache_ok = True


class Declared(Raw):
    """A column declared by the text of another's declaration, so that both have one affinity."""

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **kw: Any) -> str:
        return self.text or "BLOB"  # without a declaration the affinity is BLOB's: values stay as they are


class BlobVector(sa.types.TypeDecorator[Any]):
    """A float32 little-endian BLOB, read back as a numpy array of shape (dim,)."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> bytes | None:
        return None if value is None else numpy().asarray(value, dtype="<f4").tobytes()

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return None if value is None else numpy().frombuffer(value, dtype="<f4")


class UtcText(sa.types.TypeDecorator[Any]):
    """A time-zone-aware datetime kept as UTC in a column that knows no zones."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


ADOPTABLE: dict[type[OutputType], tuple[type[sa.types.TypeEngine[Any]], ...]] = {
    Text: (sa.String,),
    Integer: (sa.Integer,),
    Float: (sa.Float,),
    Boolean: (sa.Boolean,),
    Bytes: (sa.LargeBinary,),
    Datetime: (sa.DateTime,),
    Json: (sa.JSON,),
    Vector: (sa.LargeBinary,),
}
"""Which reflected column types an existing column may have, by output type."""


def encoder(column_type: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Encoder | None:
    """How SQLAlchemy turns a Python value into the driver's; None where nothing is done."""
    return column_type.dialect_impl(dialect).bind_processor(dialect)


def decoder(column_type: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Encoder | None:
    """How SQLAlchemy turns the driver's value into Python's; None where nothing is done."""
    return column_type.dialect_impl(dialect).result_processor(dialect, None)


def apply(function: Encoder | None, values: Sequence[Any]) -> Sequence[Any]:
    """``function`` over all values but None; the same sequence when there is nothing to do."""
    if function is None:
        return values
    return [None if value is None else function(value) for value in values]


def unfit(output: OutputType, found: Any) -> str:
    """Why a column type of the right family would still change values; empty where it does not."""
    if isinstance(output, Text) and isinstance(found, sa.Enum):
        return "an enum takes only its own values"
    if isinstance(output, Vector) and getattr(found, "dim", None) not in (None, output.dim):
        return f"of {found.dim} numbers"
    return ""
