"""Points in time."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.storage import BsonField, PostgresColumn, SqliteColumn, converted


@dataclasses.dataclass(frozen=True)
class Datetime(OutputType):
    """A point in time: without a time zone by default, with one for ``timezone=True`` (kept as UTC)."""

    timezone: bool = False
    name, annotations = "datetime", (datetime,)

    def check(self, value: Any) -> datetime:
        if not isinstance(value, datetime):
            raise self.misfit(value)
        if (value.utcoffset() is not None) != self.timezone:
            have, want = ("with", "without") if not self.timezone else ("without", "with")
            remedy = "declare output_type=Datetime(timezone=True)" if not self.timezone else "return an aware datetime"
            raise self.misfit(value, f"it is {have} a time zone and the output {want} one; {remedy}")
        return value

    def to_json(self) -> Any:
        return {"type": self.name, "timezone": True} if self.timezone else self.name

    def on_sqlite(self) -> SqliteColumn:
        import sqlalchemy as sa

        column = converted(sa.DateTime(), _without_zone, _with_zone) if self.timezone else sa.DateTime()
        return SqliteColumn(type=column, strict="TEXT", adopts=(sa.DateTime,))

    def on_postgres(self) -> PostgresColumn:
        import sqlalchemy as sa
        from sqlalchemy.dialects import postgresql

        column = postgresql.TIMESTAMP(timezone=self.timezone)
        return PostgresColumn(type=column, adopts=(sa.DateTime,), unfit=self._unfit_on_postgres)

    def _unfit_on_postgres(self, found: Any) -> str:
        import sqlalchemy as sa

        if isinstance(found, sa.DateTime) and bool(found.timezone) != self.timezone:
            return "its time zone is another"
        if isinstance(found, sa.DateTime) and getattr(found, "precision", None) not in (None, 6):
            return "it rounds"
        return ""

    def on_mongodb(self) -> BsonField:
        if not self.timezone:
            return BsonField(types=("date",), refuse=_refused_microseconds)
        return BsonField(types=("date",), refuse=_refused_microseconds, encode=_in_utc, decode=_aware)


def _without_zone(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(tzinfo=None)


def _with_zone(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def _refused_microseconds(value: datetime) -> str | None:
    if value.microsecond % 1000:
        return (
            "MongoDB keeps milliseconds and it has microseconds; return "
            "value.replace(microsecond=value.microsecond // 1000 * 1000)"
        )
    return None
