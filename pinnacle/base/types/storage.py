"""What an output type says of each database: the column or field that keeps it, and how values travel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Convert = Callable[[Any], Any]


def _fits(found: Any) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class SqlColumn:
    """A column for outputs of one type.

    ``type``: SQLAlchemy's type of a column that is made; it also converts values, see `converted`.
    ``adopts``: SQLAlchemy's types that a column of the user's may have. ``unfit``: why a column
    of such a type would still change values; empty where it does not.
    """

    type: Any
    adopts: tuple[type, ...]
    unfit: Callable[[Any], str] = _fits


@dataclass(frozen=True, kw_only=True)
class SqliteColumn(SqlColumn):
    """``strict``: how the column is declared in a table that takes SQLite's own type names only."""

    strict: str


class PackedArray(bytes):
    """An array in PostgreSQL's binary format, which is sent as it is."""


@dataclass(frozen=True, kw_only=True)
class PostgresColumn(SqlColumn):
    """A batch travels as one array, in psycopg's own forms.

    ``pack`` makes that array's parameter of checked values, given the object id of the
    column's type: a list, or a `PackedArray`. Without it values are converted by ``type``.
    ``cast``: how the parameter becomes an array of the column's ``{type}``. ``extension``:
    what brings the type. ``is_hashed_as_text``: for types whose arrays have no portable binary form.
    """

    pack: Callable[[Sequence[Any], int], Any] | None = None
    cast: str = "%b::{type}[]"
    extension: str = ""
    is_hashed_as_text: bool = False

    def array_of(self, values: Sequence[Any], oid: int) -> Any:
        """The parameter for a batch of checked values, None among them."""
        if self.pack is not None:
            return self.pack(values, oid)
        write = getattr(self.type, "write", None)
        return list(values) if write is None else [None if value is None else write(value) for value in values]


@dataclass(frozen=True, kw_only=True)
class BsonField:
    """A field for outputs of one type.

    ``types``: the BSON types, by their `$type` names, that hold it. ``encode``: a checked
    value as the driver takes it. ``decode``: what `Document.outputs` makes of the driver's
    value. ``refuse``: why MongoDB cannot keep a checked value. ``is_ours``: whether a value
    of these types is one of this type, where others share them.
    """

    types: tuple[str, ...]
    encode: Convert | None = None
    decode: Convert | None = None
    refuse: Callable[[Any], str | None] | None = None
    is_ours: Callable[[Any], bool] | None = None


def converted(column: Any, write: Convert, read: Convert) -> Any:
    """SQLAlchemy's type ``column`` with values converted on their way in and out; None stays None.

    Give functions of a module, not lambdas made anew: they are part of the key of SQLAlchemy's cache.
    """
    return _converted()(column, write, read)


@functools.cache
def _converted() -> Any:
    import sqlalchemy as sa

    class Converted(sa.types.TypeDecorator[Any]):
        impl = sa.types.NullType
        cache_ok = True

        def __init__(self, column: Any, write: Convert, read: Convert) -> None:
            self.impl = self.column = column
            self.write, self.read = write, read

        def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
            return None if value is None else self.write(value)

        def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
            return None if value is None else self.read(value)

        def bind_processor(self, dialect: sa.Dialect) -> Any:
            """As TypeDecorator has it, with a call less a value."""
            write, inner = self.write, self.column.dialect_impl(dialect).bind_processor(dialect)
            if inner is None:
                return lambda value: None if value is None else write(value)
            return lambda value: None if value is None else inner(write(value))

        def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Any:
            read, inner = self.read, self.column.dialect_impl(dialect).result_processor(dialect, coltype)
            if inner is None:
                return lambda value: None if value is None else read(value)
            return lambda value: None if value is None else read(inner(value))

    return Converted
