"""The connections of one SQLite file: its readers, and its one writer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from pinnacle.backends.sql.schema import identity
from pinnacle.backends.sql.session import SqlSession, refused
from pinnacle.backends.sqlite.columns import SqliteColumns
from pinnacle.backends.sqlite.wake import SqliteWake
from pinnacle.base import forks
from pinnacle.base.errors import DatabaseReplaced, RowRejected, TableLost, UnsupportedTable
from pinnacle.base.settings import Settings

BUSY_TIMEOUT_MS = 30_000
ABOUT_A_ROW = ("Error binding parameter", "malformed JSON", "too big")
"""What SQLite says of one value in errors of a kind that is otherwise about the whole statement."""


class SqliteSession(SqlSession):
    """See `SqlSession`. Every write transaction is BEGIN IMMEDIATE: one that begins as a
    reader fails at once when another process commits in between."""

    name: ClassVar[str] = "sqlite"
    schema: ClassVar[str | None] = None
    columns: SqliteColumns
    columns_type = SqliteColumns
    own_columns = frozenset({"rowid", "oid", "_rowid_"})
    ignores_case = True
    mark: ClassVar[str] = "?"

    def __init__(self, engine: sa.Engine, settings: Settings, *, owned: bool) -> None:
        super().__init__(engine, settings, owned=owned)
        # Writes have connections of their own, so that one's PRAGMA data_version tells of others' writes only.
        self._writers = self._sibling(engine).execution_options(schema_translate_map=self.translate)
        self._file = ""
        self._place: tuple[int, int] | None = None

    def _engines(self) -> Sequence[sa.Engine]:
        return [*super()._engines(), self._writers]

    def _renew(self) -> None:
        """In a forked child: what rests in the pools is closed, as SQLite would take the locks of the parent's
        connections for those of new ones. One that another thread works with is left as it is."""
        for engine in self._engines():
            waiting: Any = getattr(engine.pool, "_pool", None)
            if waiting is not None:  # whose lock a thread of the parent's may hold
                waiting.mutex._at_fork_reinit()
            forks.leave_to_parent(engine.pool)
            engine.dispose()

    def _sibling(self, engine: sa.Engine) -> sa.Engine:
        sibling = super()._sibling(engine)
        sa.event.listen(sibling.pool, "connect", _prepare)
        return sibling.execution_options(isolation_level="AUTOCOMMIT")

    def insert(self, table: sa.Table) -> sqlite.Insert:
        return sqlite.insert(table)

    def now(self) -> sa.ColumnElement[float]:
        return sa.literal(time.time())

    def epoch_s(self, time: str) -> str:
        return f"({time} - 2440587.5) * 86400.0"

    def relation(self, connection: sa.Connection, schema: str | None, name: str) -> str | None:
        query = f"SELECT type FROM {self.quote(schema or 'main')}.sqlite_master WHERE name = ? COLLATE NOCASE"
        return connection.exec_driver_sql(f"{query} AND type <> 'trigger'", (name,)).scalar()

    def state_suffix(self, table: sa.Table) -> str:
        """Cluster the rows by key; an INTEGER key is the rowid already."""
        key = list(table.primary_key.columns)
        return "" if len(key) == 1 and isinstance(key[0].type, sa.Integer) else " WITHOUT ROWID"

    # -- the file --------------------------------------------------------------------------------------

    def remember_file(self, connection: sa.Connection) -> None:
        """Note which file is open, for `require_same_file`."""
        databases = {name: file for _, name, file in connection.exec_driver_sql("PRAGMA database_list")}
        self._file = databases["main"]
        self._place = _place(self._file)

    def require_same_file(self) -> None:
        """DatabaseReplaced where the open file was moved away, removed, or another was put in its place: what is
        written to it then is lost."""
        found = _place(self._file)
        self._place = self._place or found  # of a new file, which is made by the first write
        if found != self._place:
            raise DatabaseReplaced(
                f"the SQLite file {self._file} was moved, removed or replaced while it was open here; nothing more is "
                "written to the old one. Open it again with pinnacle(), or start the worker again; a file is replaced "
                "safely while nobody has it open, or by SQLite's own .restore",
                path=self._file,
            )

    def is_migrated(self) -> bool:
        was_known = self._is_migrated
        is_migrated = super().is_migrated()
        if is_migrated and not was_known:
            self.require_same_database()
        return is_migrated

    def require_same_database(self) -> None:
        """DatabaseReplaced where another database was written into the open file; a backup of its own is the same."""
        if not self._is_migrated:
            return
        with suppress(TableLost), self.reading() as connection:
            self.require_identity(connection.scalar(sa.select(identity.c.id)))

    def require_identity(self, found: str | None) -> None:
        """The same, by what was ``found``. One that lost its tables meanwhile is known anew."""
        self._identity = self._identity or found
        if found != self._identity:
            raise DatabaseReplaced(
                f"another database was copied or restored into the SQLite file {self._file} while it was open here; "
                "nothing is written to it. Open it again with pinnacle(), or start the worker again",
                path=self._file,
            )

    @contextmanager
    def _same_file(self) -> Iterator[None]:
        """A write to the file as it was opened: SQLite calls one read-only that was replaced since it was looked at."""
        self.require_same_file()
        try:
            yield
        except UnsupportedTable:
            self.require_same_file()
            raise

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        with self._same_file(), self.errors(), self._writers.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if self._identity is not None:
                with self.driver(connection) as raw:
                    found = raw.execute(f"SELECT id FROM {self.own(identity.name)}").fetchone()
                self.require_identity(found and found[0])
            yield connection

    @contextmanager
    def writing_raw(self) -> Iterator[Any]:
        """The driver's connection, in autocommit; a transaction left open is committed, or rolled back on error."""
        with self._same_file(), self.errors(), self._writers.connect() as connection, self.driver(connection) as raw:
            try:
                yield raw
                raw.commit()
            except BaseException:  # the unit of work: one transaction, rolled back; raised again
                raw.rollback()
                raise

    @contextmanager
    def driver(self, connection: sa.Connection) -> Iterator[Any]:
        errors = self.dialect.loaded_dbapi
        try:
            yield connection.connection.driver_connection
        except (errors.IntegrityError, errors.DataError, OverflowError) as error:
            raise RowRejected(f"the database refused a value: {error}") from error
        except errors.Error as error:
            if any(words in str(error) for words in ABOUT_A_ROW):
                raise RowRejected(f"the database refused a value: {error}") from error
            if "readonly" in str(error):
                raise UnsupportedTable(f"the database is read-only, so no output can be written: {error}") from error
            raise refused(str(error)) from error

    def lock_migration(self, connection: sa.Connection) -> None:
        """BEGIN IMMEDIATE has locked the file already."""

    def require_own_schema(self, connection: sa.Connection) -> None:
        """Who may write the file is one: SQLite knows no owners."""

    def skip_numbers(self, connection: sa.Connection, table: sa.Table, highest: int) -> None:
        run = connection.exec_driver_sql
        run("DELETE FROM sqlite_sequence WHERE name = ?", (table.name,))
        run("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.name, highest))

    def wake(self) -> SqliteWake:
        """A wait for writes of others, on a connection that makes none."""
        return SqliteWake(self._work.connect(), self.driver)


def _place(file: str) -> tuple[int, int] | None:
    """Tells a file from another that takes its path."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepare(connection: Any, record: Any) -> None:
    """Set up each of pinnacle's own connections; the application's are left alone."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA temp_store = MEMORY")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
