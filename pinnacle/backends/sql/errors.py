"""Rows that were set aside with their errors, of every output of one SQL database."""

from __future__ import annotations

import sqlalchemy as sa

from pinnacle.backends.sql import schema
from pinnacle.backends.sql.records import readable_keys, row_error
from pinnacle.backends.sql.session import SqlSession
from pinnacle.base.limits import NEWEST_ERRORS
from pinnacle.base.rows import Key, RowError


class SqlErrors:
    """See `Errors`."""

    def __init__(self, session: SqlSession) -> None:
        self._session = session

    def newest(self, output: int | None = None, limit: int = NEWEST_ERRORS) -> list[RowError]:
        if not self._session.is_migrated():
            return []
        error, place = schema.error, schema.output.c
        query = (
            sa.select(error, place.table_schema, place.table_name, place.name, place.model)
            .join(schema.output, place.id == error.c.output_id)
            .order_by(error.c.failed_at.desc())
            .limit(limit)
        )
        if output is not None:
            query = query.where(error.c.output_id == output)
        with self._session.reading() as connection:
            rows = connection.execute(query).all()
        return list(map(row_error, rows))

    def counts(self) -> dict[int, int]:
        if not self._session.is_migrated():
            return {}
        c = schema.error.c
        with self._session.reading() as connection:
            rows = connection.execute(sa.select(c.output_id, sa.func.count()).group_by(c.output_id)).all()
        return {row[0]: row[1] for row in rows}

    def take(self, output: int) -> list[Key]:
        c = schema.error.c
        state = self._session.own(schema.state_name(output))
        with self._session.writing() as connection:
            texts = connection.scalars(sa.delete(schema.error).where(c.output_id == output).returning(c.key))
            keys = readable_keys(texts)
            self._session.run_text(connection, f"DELETE FROM {state} WHERE failed")
        return keys
