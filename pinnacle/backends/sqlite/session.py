"""The connections of one SQLite file: its readers, and its one writer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from pinnacle.backends.sql.session import SqlSession, wrapped_errors
from pinnacle.backends.sqlite.columns import SqliteColumns
from pinnacle.backends.sqlite.wake import SqliteWake
from pinnacle.base.errors import BackendError, RowRejected, UnsupportedTable
from pinnacle.base.settings import Settings

BUSY_TIMEOUT_MS = 30_000


class SqliteSession(SqlSession):
    """See `SqlSession`. Every write transaction is BEGIN IMMEDIATE: one that begins as a
    reader fails at once when another process commits in between."""

    name: ClassVar[str] = "sqlite"
    schema: ClassVar[str | None] = None
    columns: SqliteColumns
    columns_type = SqliteColumns

    def __init__(self, engine: sa.Engine, settings: Settings, *, owned: bool) -> None:
        super().__init__(engine, settings, owned=owned)
        # Writes have connections of their own, so that one's PRAGMA data_version tells of others' writes only.
        self._writers = self._sibling(engine).execution_options(schema_translate_map=self.translate)

    def close(self) -> None:
        self._writers.dispose()
        super().close()

    def _sibling(self, engine: sa.Engine) -> sa.Engine:
        sibling = super()._sibling(engine)
        sa.event.listen(sibling.pool, "connect", _prepare)
        return sibling.execution_options(isolation_level="AUTOCOMMIT")

    def insert(self, table: sa.Table) -> sqlite.Insert:
        return sqlite.insert(table)

    def now(self) -> sa.ColumnElement[float]:
        return sa.literal(time.time())

    def state_suffix(self, table: sa.Table) -> str:
        """Cluster the rows by key; an INTEGER key is the rowid already."""
        key = list(table.primary_key.columns)
        return "" if len(key) == 1 and isinstance(key[0].type, sa.Integer) else " WITHOUT ROWID"

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        with wrapped_errors(), self._writers.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def writing_raw(self) -> Iterator[Any]:
        """The driver's connection, in autocommit; a transaction left open is committed, or rolled back on error."""
        errors = self.dialect.loaded_dbapi
        with self._writers.connect() as connection:
            raw: Any = connection.connection.driver_connection
            try:
                yield raw
                raw.commit()
            except errors.IntegrityError as error:
                raw.rollback()
                raise RowRejected(f"the database refused a value: {error}") from error
            except errors.Error as error:
                raw.rollback()
                if "readonly" in str(error):
                    raise UnsupportedTable(
                        f"the database is read-only, so no output can be written: {error}"
                    ) from error
                raise BackendError(f"the database refused: {error}") from error
            except BaseException:  # the unit of work: one transaction, rolled back; raised again
                raw.rollback()
                raise

    def _lock_migration(self, connection: sa.Connection) -> None:
        """BEGIN IMMEDIATE has locked the file already."""

    def wake(self) -> SqliteWake:
        """A wait for writes of others, on a connection that makes none."""
        return SqliteWake(self._work)


def _prepare(connection: Any, record: Any) -> None:
    """Set up each of pinnacle's own connections; the application's are left alone."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA temp_store = MEMORY")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
