"""Column types of pinnacle's own, and how values travel to the driver and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa

from pinnacle.base.errors import OutputTypeConflict
from pinnacle.base.types import OutputType, SqlColumn

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


def apply(function: Encoder | None, values: Sequence[Any]) -> Sequence[Any]:
    """``function`` over all values but None; the same sequence when there is nothing to do."""
    if function is None:
        return values
    return [None if value is None else function(value) for value in values]


class SqlColumns(ABC):
    """The columns of one database: what is declared for an output, what may be adopted, how values come back.

    ``reading`` gives a connection, for what only the database can tell.
    """

    def __init__(self, dialect: sa.Dialect, reading: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
        self.dialect, self._reading = dialect, reading

    @abstractmethod
    def of(self, output: OutputType) -> SqlColumn:
        """How this database keeps values of a type."""

    def type_of(self, output: OutputType) -> sa.types.TypeEngine[Any]:
        """The type of a column made for ``output``."""
        made: sa.types.TypeEngine[Any] = self.of(output).type
        return made

    def declaration(self, output: OutputType, table: sa.Table) -> str:
        """The type in the ADD COLUMN of an output."""
        return str(self.type_of(output).compile(dialect=self.dialect))

    def prerequisites(self, output: OutputType) -> list[str]:
        """Statements that must run once before the database has a type for ``output``."""
        return []

    def check_adoptable(self, output: OutputType, column: sa.Column[Any], table: str) -> None:
        """Raise OutputTypeConflict unless ``column`` can hold ``output`` exactly."""
        kept = self.of(output)
        why = "it is computed" if column.computed is not None else kept.unfit(column.type)
        if why or not isinstance(column.type, kept.adopts):
            raise OutputTypeConflict(
                f"column {table}.{column.name} is {column.type!r}{f' ({why})' if why else ''} and the output is "
                f"{output}; choose another name with output=, or change the column"
            )

    def effective(self, column_type: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
        """The type by which values of a column are read, where pinnacle has one of its own for that."""
        return column_type

    def decoder(self, column_type: sa.types.TypeEngine[Any], code: int | None = None) -> Encoder | None:
        """How the driver's values become inputs of a model; None where nothing is done.

        ``code``: the database's own number of the column's type, where it has numbers.
        """
        return self.effective(column_type).dialect_impl(self.dialect).result_processor(self.dialect, code)
