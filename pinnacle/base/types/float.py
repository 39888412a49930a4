"""Numbers with a fraction."""

from __future__ import annotations

import math
from typing import Any

from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.storage import BsonField, PostgresColumn, SqliteColumn


class Float(OutputType):
    """A finite 64-bit float. NaN and infinities do not fit: SQLite and JSON cannot hold them."""

    name, annotations = "float", (float,)

    def check(self, value: Any) -> float:
        if isinstance(value, bool) or (not isinstance(value, (int, float)) and not _is_numpy_number(value)):
            raise self.misfit(value)
        try:
            number = float(value)
        except OverflowError:
            raise self.misfit(value, "too large for a float") from None
        if not math.isfinite(number):
            raise self.misfit(value, f"{number} is not finite")
        if number != value:
            raise self.misfit(value, f"{value} is not exact as a float")
        return number

    def on_sqlite(self) -> SqliteColumn:
        import sqlalchemy as sa

        return SqliteColumn(type=sa.Float(), strict="REAL", adopts=(sa.Float,))

    def on_postgres(self) -> PostgresColumn:
        import sqlalchemy as sa

        return PostgresColumn(type=sa.Double(), adopts=(sa.Float,), unfit=_refused_single)

    def on_mongodb(self) -> BsonField:
        return BsonField(types=("double",))


def _is_numpy_number(value: Any) -> bool:
    return (
        type(value).__module__ == "numpy"
        and hasattr(value, "dtype")
        and value.shape == ()
        and value.dtype.kind in "iuf"
    )


def _refused_single(found: Any) -> str:
    import sqlalchemy as sa

    return "" if isinstance(found, sa.Double) else "it has fewer digits"
