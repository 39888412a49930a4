"""Output types as columns of PostgreSQL."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.columns import Encoder, SqlColumns
from pinnacle.base.types import OutputType, PostgresColumn, pg_vector


class PostgresColumns(SqlColumns):
    """See `SqlColumns`."""

    def of(self, output: OutputType) -> PostgresColumn:
        return output.on_postgres()

    def effective(self, column_type: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
        """Vectors are numpy arrays."""
        from pgvector.sqlalchemy import VECTOR

        return pg_vector(column_type.dim) if isinstance(column_type, VECTOR) else column_type

    def decoder(self, column_type: sa.types.TypeEngine[Any], code: int | None = None) -> Encoder | None:
        """Numbers are converted by what they are, whatever the code says."""
        if isinstance(column_type, (sa.Numeric, sa.Float)):
            return _as_decimal if column_type.asdecimal else float
        return super().decoder(column_type, code)

    def prerequisites(self, output: OutputType) -> list[str]:
        """The extension that brings its type, where it is not installed yet."""
        extension = self.of(output).extension
        if not extension:
            return []
        with self._reading() as connection:
            query = sa.text("SELECT 1 FROM pg_extension WHERE extname = :name")
            is_there = connection.execute(query, {"name": extension}).first() is not None
        name = self.dialect.identifier_preparer.quote(extension)
        return [] if is_there else [f"CREATE EXTENSION IF NOT EXISTS {name}"]


def _as_decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))
