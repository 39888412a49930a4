"""Raw bytes."""

from __future__ import annotations

from typing import Any

from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.storage import BsonField, PostgresColumn, SqliteColumn


class Bytes(OutputType):
    """Raw bytes."""

    name, annotations = "bytes", (bytes,)

    def check(self, value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise self.misfit(value)
        return bytes(value)

    def exact_types(self) -> frozenset[type]:
        return frozenset({bytes, type(None)})

    def on_sqlite(self) -> SqliteColumn:
        import sqlalchemy as sa

        return SqliteColumn(type=sa.LargeBinary(), strict="BLOB", adopts=(sa.LargeBinary,))

    def on_postgres(self) -> PostgresColumn:
        import sqlalchemy as sa
        from sqlalchemy.dialects import postgresql

        return PostgresColumn(type=postgresql.BYTEA(), adopts=(sa.LargeBinary,))

    def on_mongodb(self) -> BsonField:
        return BsonField(types=("binData",), is_ours=_is_plain_binary)


def _is_plain_binary(value: Any) -> bool:
    return isinstance(value, bytes) and getattr(value, "subtype", 0) == 0
