"""Whole numbers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.storage import BsonField, PostgresColumn, SqliteColumn

INT64 = range(-(2**63), 2**63)


class Integer(OutputType):
    """A 64-bit signed integer."""

    name, annotations = "int", (int,)

    def check(self, value: Any) -> int:
        if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_") or not hasattr(value, "__index__"):
            raise self.misfit(value)
        number = operator.index(value)
        if number not in INT64:
            raise self.misfit(value, f"{number} does not fit 64 bits")
        return number

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        if set(map(type, values)) == {int} and min(values) in INT64 and max(values) in INT64:
            return values, {}
        return super().check_all(values)

    def on_sqlite(self) -> SqliteColumn:
        import sqlalchemy as sa

        return SqliteColumn(type=sa.Integer(), strict="INTEGER", adopts=(sa.Integer,))

    def on_postgres(self) -> PostgresColumn:
        import sqlalchemy as sa

        return PostgresColumn(type=sa.BigInteger(), adopts=(sa.Integer,))

    def on_mongodb(self) -> BsonField:
        return BsonField(types=("int", "long"))
