"""True or False."""

from __future__ import annotations

from typing import Any

from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.storage import BsonField, PostgresColumn, SqliteColumn


class Boolean(OutputType):
    """True or False."""

    name, annotations = "bool", (bool,)

    def check(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
            return bool(value)
        raise self.misfit(value)

    def exact_types(self) -> frozenset[type]:
        return frozenset({bool, type(None)})

    def on_sqlite(self) -> SqliteColumn:
        import sqlalchemy as sa

        return SqliteColumn(type=sa.Boolean(), strict="INTEGER", adopts=(sa.Boolean,))

    def on_postgres(self) -> PostgresColumn:
        import sqlalchemy as sa

        return PostgresColumn(type=sa.Boolean(), adopts=(sa.Boolean,))

    def on_mongodb(self) -> BsonField:
        return BsonField(types=("bool",))
