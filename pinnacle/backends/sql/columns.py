"""Column types of pinnacle's own, and how values travel to the driver and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

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
