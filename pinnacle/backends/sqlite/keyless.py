"""Rows without a key, which SQLite lets into tables whose primary key is not declared NOT NULL.

Nothing finds such a row again, so it gets no output: it is set aside, all rows of one such key as one, and its
neighbours are computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from pinnacle.backends.sql.schema import error
from pinnacle.backends.sql.source import SqlSource
from pinnacle.base.encoding import dump_key, load_key
from pinnacle.base.errors import RowRejected
from pinnacle.base.rows import Failure, Key, Unreadable, UnreadableKey

NULL = UnreadableKey("NULL")
MOST = 1_000
"""So many keys with a NULL are told of."""


def is_keyless(key: Key) -> bool:
    """Whether a key, as rows without one have it here, has a NULL in it."""
    return any(isinstance(part, UnreadableKey) for part in (key if isinstance(key, tuple) else (key,)))


def stored_key(key: Key) -> Sequence[object]:
    """The parts of a key as SQLite has them."""
    parts = key if isinstance(key, tuple) else (key,)
    return [None if isinstance(part, UnreadableKey) else part for part in parts]


class KeylessRows:
    """The rows of a source that have no key, and the errors that are recorded of them for one output."""

    def __init__(self, source: SqlSource, output: int) -> None:
        self._source, self._output = source, output
        self._missing = sa.or_(*(column.is_(None) for column in source.key))
        self._recorded = error.c.output_id == output, error.c.key.contains('"unreadable"')

    def are_any(self, connection: sa.Connection, *, exists: bool) -> bool:
        """Whether there are any, or errors of such; of an output that does not exist there are none."""
        there = self._source.select(sa.literal(1)).where(self._missing).exists()
        recorded = sa.exists().where(*self._recorded) if exists else sa.false()
        return bool(connection.scalar(sa.select(sa.or_(there, recorded))))

    def found(self, connection: sa.Connection) -> list[Unreadable]:
        """What there is now; each stands for all rows of its key."""
        source = self._source
        columns = [*source.key, sa.func.count().label("rows")]
        query = source.select(*columns).where(self._missing).group_by(*source.key).order_by(*source.key).limit(MOST)
        rows = connection.execute(query).cursor.fetchall()
        return [Unreadable(key=self._key(row[:-1]), witness=None, error=self._error(row[-1])) for row in rows]

    def known(self, connection: sa.Connection, version: int | None = None) -> set[str]:
        """The keys, as texts, of those that are set aside, by one version of the model or by any."""
        is_meant = sa.true() if version is None else error.c.version == version
        query = sa.select(error.c.key).where(*self._recorded, is_meant)
        return {text for text in connection.scalars(query) if is_keyless(load_key(text))}

    def forget(self, connection: sa.Connection, texts: set[str]) -> None:
        """Take back the errors of keys, given as texts."""
        connection.execute(sa.delete(error).where(error.c.output_id == self._output, error.c.key.in_(texts)))

    def _key(self, parts: Sequence[object]) -> Key:
        told = tuple(NULL if part is None else part for part in parts)
        return told if len(told) > 1 else told[0]

    def _error(self, rows: int) -> RowRejected:
        names = ", ".join(str(column.name) for column in self._source.key)
        what = "a row has" if rows == 1 else f"{rows} rows have"
        return RowRejected(
            f"{what} no primary key ({names}), by which an output would find its row: give each a key of its own, and "
            "declare the column NOT NULL"
        )


def failure_of(row: Unreadable) -> Failure:
    """A row without a key as it is set aside."""
    return Failure(
        key=row.key, witness=None, error=type(row.error).__name__, message=str(row.error), traceback="", attempts=1
    )


def texts_of(rows: Sequence[Unreadable]) -> set[str]:
    """The keys of rows as they are recorded."""
    return {dump_key(row.key) for row in rows}
