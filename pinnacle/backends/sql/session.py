"""How pinnacle reaches one SQL database: its connections and transactions, its dialect, and its own tables."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Protocol

import sqlalchemy as sa

from pinnacle.backends.sql import migrate
from pinnacle.backends.sql.columns import SqlColumns
from pinnacle.backends.sql.schema import SCHEMA, listener
from pinnacle.backends.sql.source import NOT_TRANSLATED, unknown_types_allowed
from pinnacle.base import forks
from pinnacle.base.errors import BackendError, ConfigError, ConnectionLost, TableLost, UnsupportedTable
from pinnacle.base.redaction import hide, without_password
from pinnacle.base.settings import Settings

CONNECTION_EXCEPTION, STOPPING_OR_STARTING = "08", ("57P01", "57P02", "57P03")


class OwnTables(Protocol):
    """pinnacle's tables in one database, some of which may have been dropped by hand."""

    def look(self) -> bool:
        """Whether they are here and of this version; those that somebody dropped are made again."""

    def note_identity(self, connection: sa.Connection) -> None:
        """Know a database by another mark from now on whose mark was dropped."""

    def expect_none(self) -> None:
        """They are removed on purpose."""

    def is_behind(self, connection: sa.Connection) -> bool:
        """Whether migrations are missing, or all; not where only some tables are."""

    def clear_strays(self, connection: sa.Connection) -> None:
        """Where nothing tells of outputs any more, take away what they had, before others get their numbers."""

    def found(self, connection: sa.Connection) -> set[str]:
        """The names of all tables where these are kept."""

    def plan(self) -> list[str]:
        """The statements that make lost tables again."""


class SqlSession(ABC):
    """What all parts of a SQL backend take in place of the whole of it.

    ``engine`` is the application's: the user's own where one was given. pinnacle's own
    statements run on ``_work``, a sibling with a pool of its own, so that the
    application's pool is never starved by a prediction.
    """

    name: ClassVar[str]
    schema: ClassVar[str | None]
    """Where pinnacle's own tables are; None where a database has no schemas."""
    columns_type: ClassVar[type[SqlColumns]]
    own_columns: ClassVar[frozenset[str]]
    """Names, in small letters, that the database has for columns of its own in every table."""
    ignores_case: ClassVar[bool] = False
    """Whether the database takes names of columns for the same that differ in nothing but case."""
    own_tables: OwnTables
    """Given by the backend, which knows the triggers."""
    mark: ClassVar[str]
    """What stands for a parameter in the driver's own statements."""
    locking: ClassVar[str] = ""
    """What follows a query whose rows are to stay as they are until the transaction ends."""

    def __init__(self, engine: sa.Engine, settings: Settings, *, owned: bool) -> None:
        self.engine, self.settings, self._owned = engine, settings, owned
        if engine.get_execution_options().get("schema_translate_map"):
            raise ConfigError(f"this Engine translates schemas, {NOT_TRANSLATED}")
        self.dialect = engine.dialect
        self.translate: Mapping[str | None, str | None] = {SCHEMA: self.schema}
        self._work = self._sibling(engine).execution_options(schema_translate_map=self.translate)
        self._is_migrated = False
        self._identity: str | None = None
        self.columns = self.columns_type(self.dialect, self.reading)
        forks.renew_in_child(self._renew)

    def _engines(self) -> Sequence[sa.Engine]:
        """All whose connections are made here, the application's included."""
        return [self.engine, self._work]

    def _renew(self) -> None:
        """In a forked child: connections of its own; the parent's are not closed, which their server would be told."""
        for engine in self._engines():
            forks.leave_to_parent(engine.pool)
            engine.dispose(close=False)

    # -- what the dialects say differently ------------------------------------------------

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """An INSERT that takes ON CONFLICT, which each dialect has in a form of its own."""

    @abstractmethod
    def now(self) -> sa.ColumnElement[float]:
        """The time in seconds, by the one clock of all who write here."""

    @abstractmethod
    def epoch_s(self, time: str) -> str:
        """SQL of an outbox's time as seconds since 1970."""

    @abstractmethod
    def driver(self, connection: sa.Connection) -> AbstractContextManager[Any]:
        """The driver's connection below one of SQLAlchemy's: its plain statements cost a tenth of the time."""

    @abstractmethod
    def relation(self, connection: sa.Connection, schema: str | None, name: str) -> str | None:
        """What kind of thing has a name among tables: a table, view, index, sequence or type; None where it is free."""

    @abstractmethod
    def writing_raw(self) -> AbstractContextManager[Any]:
        """A write transaction on the driver's own connection: the hot path of a write-back."""

    def state_suffix(self, table: sa.Table) -> str:
        """What follows CREATE TABLE of a state table."""
        return ""

    @abstractmethod
    def lock_migration(self, connection: sa.Connection) -> None:
        """Keep two processes from creating the tables at once."""

    @abstractmethod
    def require_own_schema(self, connection: sa.Connection) -> None:
        """ConfigError where somebody else made what pinnacle's own tables should be, or where they are to be."""

    @abstractmethod
    def skip_numbers(self, connection: sa.Connection, table: sa.Table, highest: int) -> None:
        """Have the numbers that a table gives out begin above ``highest``."""

    # -- connections ------------------------------------------------------------------------

    def _sibling(self, engine: sa.Engine) -> sa.Engine:
        """An engine of the same database with its own pool, which predictions of several threads find no bound in.

        The connection used last is used next: it has its statements prepared, and on SQLite takes
        no write of this process's for another's.
        """
        pool = engine.pool.recreate()
        if isinstance(pool, sa.QueuePool):
            pool._max_overflow = -1
            pool._pool.use_lifo = True
        return sa.Engine(pool, engine.dialect, engine.url)

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        """A write transaction, committed at the end.

        ``durable=False`` lets a power failure undo it, where that is cheaper: leases need no more.
        """
        with self.errors(), self._work.begin() as connection:
            yield connection

    @contextmanager
    def writing_as(self, output: int) -> Iterator[sa.Connection]:
        """A write transaction whose changes of the output itself do not count as others' changes."""
        with self.writing() as connection:
            connection.execute(sa.update(listener).where(listener.c.output_id == output).values(is_writing=True))
            yield connection
            connection.execute(sa.update(listener).where(listener.c.output_id == output).values(is_writing=False))

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for short statements that each are their own transaction."""
        with self.errors(), self._work.connect() as connection:
            yield connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """`wrapped_errors`; a table that is lost is looked for, and made again, by the next call."""
        try:
            with wrapped_errors():
                yield
        except TableLost:
            self.forget_migration()
            raise

    # -- changes of tables ------------------------------------------------------------------

    def alter(self, table: sa.TableClause, statement: str, column: str, *, drops: bool = False) -> None:
        """Run the ALTER TABLE that adds or drops a column, unless that was done already."""
        with self.writing() as connection:
            if has_column(connection, table, column) == drops:
                self.run_text(connection, statement)

    def alter_all(self, table: sa.TableClause, statements: Sequence[str], *, guard: sa.Update | None = None) -> None:
        """Run several statements that change a user's table, in one transaction.

        Not when the ``guard``, an update that comes first and locks its row, finds none.
        """
        with self.writing() as connection:
            self._run_guarded(connection, statements, guard)

    def _run_guarded(self, connection: sa.Connection, statements: Sequence[str], guard: sa.Update | None) -> None:
        if guard is not None and not connection.execute(guard).rowcount:
            return
        for statement in statements:
            self.run_text(connection, statement)

    # -- text -----------------------------------------------------------------

    def storable(self, text: str) -> str:
        """``text`` with characters that the database has no form for as escapes."""
        return text

    def run_text(self, connection: sa.Connection, statement: str) -> None:
        """Run a statement that has no parameters; a % in a name is not one."""
        connection.exec_driver_sql(statement.replace("%", "%%") if self._doubles_percents else statement)

    def plain(self, compiled: str) -> str:
        """A statement that SQLAlchemy compiled, as a database shell takes it."""
        return compiled.replace("%%", "%") if self._doubles_percents else compiled

    @property
    def _doubles_percents(self) -> bool:
        """Whether a % begins a parameter for this driver, so that a plain one is written twice."""
        return self.dialect.paramstyle in ("format", "pyformat")

    def quote(self, name: str) -> str:
        """``name`` as a quoted identifier, always quoted; a % in it is a plain %."""
        return '"' + name.replace('"', '""') + '"'

    def quote_table(self, table: sa.TableClause) -> str:
        """A table's name, with its schema where it has one."""
        return ".".join(self.quote(part) for part in (table.schema, table.name) if part)

    def own(self, table: str) -> str:
        """One of pinnacle's own tables, quoted."""
        return ".".join(self.quote(part) for part in (self.schema, table) if part)

    # -- pinnacle's own tables ----------------------------------------------------------------

    def is_migrated(self) -> bool:
        """Whether pinnacle's tables are here; those of them that somebody dropped are made again."""
        is_migrated = self._is_migrated
        if not is_migrated:
            self._is_migrated = is_migrated = self.own_tables.look()
        return is_migrated  # what was found, whatever another thread has to look for again meanwhile

    def migration_plan(self) -> list[str]:
        with self.reading() as connection:
            if not self.own_tables.is_behind(connection):
                return self.own_tables.plan()
            current = migrate.current_revision(connection, self.schema)
            outboxes, places = migrate.outboxes(connection, self.schema), migrate.places(connection, self.schema)
        return migrate.upgrade_sql(f"{self.name}://", self.schema, current, outboxes, places)

    def migrate(self) -> None:
        if self._is_migrated:
            return
        with self.reading() as connection:
            is_behind = self.own_tables.is_behind(connection)
        if is_behind:
            self.forget_identity()
            self._change_own_tables(self._upgrade)
        self.is_migrated()

    def _upgrade(self, connection: sa.Connection) -> None:
        self.lock_migration(connection)
        if self.own_tables.is_behind(connection):
            self.own_tables.clear_strays(connection)
            migrate.upgrade(connection, self.schema)

    def _change_own_tables(self, change: Callable[[sa.Connection], None]) -> None:
        """Change pinnacle's tables, some of which the user's transactions write to, in one transaction."""
        with self.writing() as connection:
            change(connection)

    def forget_migration(self) -> None:
        """Look again whether pinnacle's own tables are there: all were removed, or some may have been dropped."""
        self._is_migrated = False

    def forget_identity(self) -> None:
        """The database may be known by another mark from now on: its tables were removed, or are made anew."""
        self._identity = None

    def close(self) -> None:
        for engine in self._engines():
            if engine is not self.engine or self._owned:
                engine.dispose()


@contextmanager
def wrapped_errors() -> Iterator[None]:
    """Turn SQLAlchemy's errors into pinnacle's, keeping the driver's as the cause."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DBAPIError as error:
        hide(error)
        told = str(error.orig or "").strip()
        reason = without_password(told.splitlines()[0]) if told else type(error).__name__
        if error.statement is None and getattr(error.orig, "sqlstate", "") is None:  # there was no answer of a server
            raise ConnectionLost(f"the database cannot be reached: {reason}") from error
        if error.connection_invalidated or is_stopping(error.orig):
            raise ConnectionLost(f"the connection to the database dropped: {reason}") from error
        if "readonly database" in reason or "read-only transaction" in reason:
            raise UnsupportedTable(f"the database is read-only, so no output can be written: {reason}") from error
        raise refused(reason) from error
    except sa.exc.InvalidRequestError as error:
        if "This connection is closed" not in str(error):  # the pool's word for a server that hangs up on each new one
            raise
        raise ConnectionLost(f"the connection to the database dropped: {error}") from error
    except sa.exc.TimeoutError as error:
        raise BackendError(f"no connection to the database was free: {error}") from error


def refused(reason: str) -> BackendError:
    """The error for what a database will not do."""
    table = lost_table(reason)
    return BackendError(f"the database refused: {reason}") if table is None else TableLost(table)


def lost_table(reason: str) -> str | None:
    """The table of pinnacle's that a database says it does not have."""
    match = re.search(r'(?:no such table: (?:main\.)?|relation "pinnacle\.)(pinnacle_\w+)', reason)
    return match[1] if match else None


def is_stopping(error: BaseException | None) -> bool:
    """Whether a server says that it stops, starts, or lost the connection."""
    state = getattr(error, "sqlstate", None) or ""
    return state.startswith(CONNECTION_EXCEPTION) or state in STOPPING_OR_STARTING


def has_column(connection: sa.Connection, table: sa.TableClause, column: str) -> bool:
    """Whether the table is there and has the column."""
    try:
        with unknown_types_allowed():
            columns = sa.inspect(connection).get_columns(table.name, schema=table.schema)
    except sa.exc.NoSuchTableError:
        return False
    return any(found["name"] == column for found in columns)


def url_of(target: sa.Engine | str) -> sa.URL:
    """The URL of a database; ConfigError for a text that is none, which may hold a password and is not repeated."""
    if isinstance(target, sa.Engine):
        return target.url
    try:
        return sa.make_url(target)
    except (sa.exc.ArgumentError, ValueError):  # a port that is no number
        raise ConfigError("that is not a database URL; use one like dialect://user@host:port/database") from None
