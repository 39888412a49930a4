"""The connections to one PostgreSQL database, and DDL that waits for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pinnacle.backends.postgres.columns import PostgresColumns
from pinnacle.backends.postgres.connections import PLANNED, WRITING, begin, keep_alive, prepare_pool
from pinnacle.backends.postgres.wake import PostgresWake
from pinnacle.backends.sql.schema import SCHEMA
from pinnacle.backends.sql.session import SqlSession, has_column, is_stopping, refused
from pinnacle.base.errors import BackendError, ConfigError, ConnectionLost, RowRejected
from pinnacle.base.redaction import without_password
from pinnacle.base.settings import Settings
from pinnacle.base.told import logger

log = logger(__name__)

DDL_LOCK_TIMEOUT_MS = 50
DDL_ATTEMPTS = 40
LOCK_NOT_AVAILABLE, DEADLOCK, DUPLICATE_COLUMN, UNDEFINED_COLUMN = "55P03", "40P01", "42701", "42703"
NOT_SUPPORTED = "0A000"
"""Also what a statement is refused with that was planned when its table had other types."""
LIMIT_EXCEEDED = "54"
"""The class of errors of a value too large: for a row, for an index on the column, for an array."""
STRANGERS = """
WITH RECURSIVE
place AS (SELECT oid, nspowner FROM pg_namespace WHERE nspname = :schema),
mine AS (
    SELECT oid FROM pg_roles WHERE rolname = current_user
    UNION SELECT roleid FROM pg_auth_members JOIN mine ON member = mine.oid),
makers AS (
    SELECT nspowner AS oid FROM place UNION SELECT member FROM pg_auth_members JOIN makers ON roleid = makers.oid),
trusted AS (
    SELECT oid FROM mine UNION SELECT oid FROM pg_roles WHERE rolsuper
    UNION SELECT datdba FROM pg_database WHERE datname = current_database()),
found AS (
    SELECT 'the schema ' || CAST(:schema AS text) AS what, nspowner AS owner FROM place
    WHERE nspowner NOT IN (SELECT oid FROM trusted) AND has_schema_privilege(oid, 'CREATE')
    UNION ALL SELECT relname || ' in the schema ' || CAST(:schema AS text), relowner FROM pg_class
    JOIN place ON relnamespace = place.oid
    WHERE starts_with(relname, 'pinnacle_') AND relkind IN ('r', 'v', 'm', 'p', 'f')
    AND relowner NOT IN (SELECT oid FROM trusted UNION SELECT oid FROM makers)
    UNION ALL SELECT 'the function ' || proname || ' in the schema ' || CAST(:schema AS text), proowner FROM pg_proc
    JOIN place ON pronamespace = place.oid WHERE starts_with(proname, 'pinnacle_')
    AND proowner NOT IN (SELECT oid FROM trusted UNION SELECT oid FROM makers))
SELECT what, pg_get_userbyid(owner) AS owner FROM found LIMIT 1
"""
"""Of pinnacle's schema, and of what in it is called like pinnacle's own, one that a stranger has made. Who may make
nothing in the schema takes its owner for pinnacle's: it was given rights there."""
MAY_ALL_CREATE = (
    "SELECT has_schema_privilege('public', oid, 'CREATE') FROM pg_namespace "
    "WHERE nspname = 'public' AND nspname = ANY(current_schemas(false))"
)
MIGRATION_LOCK = 0x70696E6E61636C65


class PostgresSession(SqlSession):
    """See `SqlSession`."""

    name: ClassVar[str] = "postgresql"
    schema: ClassVar[str | None] = SCHEMA
    columns: PostgresColumns
    columns_type = PostgresColumns
    own_columns = frozenset({"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"})
    mark: ClassVar[str] = "%s"
    locking: ClassVar[str] = " FOR UPDATE"

    def __init__(self, engine: sa.Engine, settings: Settings, *, owned: bool) -> None:
        super().__init__(engine, settings, owned=owned)
        self._writers = self._prepared(engine, WRITING).execution_options(schema_translate_map=self.translate)

    def _engines(self) -> Sequence[sa.Engine]:
        return [*super()._engines(), self._writers]

    def _sibling(self, engine: sa.Engine) -> sa.Engine:
        return self._prepared(engine, PLANNED)

    def _prepared(self, engine: sa.Engine, settings: Mapping[str, str]) -> sa.Engine:
        """A sibling whose transactions are begun by `writing`; any other statement is one of its own."""
        sibling = super()._sibling(engine)
        prepare_pool(sibling.pool, settings)
        sibling.pool._pre_ping = False
        keep_alive(sibling.pool, self.dialect)
        return sibling.execution_options(isolation_level="AUTOCOMMIT")

    @cached_property
    def encoding(self) -> str:
        """Python's name for what the server keeps text in; ASCII where that is not known."""
        with self.reading() as connection:
            info = connection.connection.driver_connection.info  # type: ignore[union-attr]
            server, client = (info.parameter_status(f"{side}_encoding") for side in ("server", "client"))
            if server == "UTF8":
                return "utf-8"
            return info.encoding if server == client else "ascii"

    def storable(self, text: str) -> str:
        return text.encode(self.encoding, "backslashreplace").decode(self.encoding)

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        with self._transaction({} if durable else {"synchronous_commit": "off"}) as connection:
            yield connection

    @contextmanager
    def writing_as(self, output: int) -> Iterator[sa.Connection]:
        with self._transaction({"pinnacle.writer": str(output)}) as connection:
            yield connection

    @contextmanager
    def _transaction(self, settings: Mapping[str, str]) -> Iterator[sa.Connection]:
        with super().writing() as connection:
            connection.exec_driver_sql(begin({**PLANNED, **settings}))
            try:
                yield connection
            except sa.exc.NotSupportedError:  # perhaps by a statement that was prepared for columns of other types
                connection.invalidate()
                raise

    def insert(self, table: sa.Table) -> postgresql.Insert:
        return postgresql.insert(table)

    def now(self) -> sa.ColumnElement[float]:
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

    def epoch_s(self, time: str) -> str:
        return f"CAST(extract(epoch FROM {time}) AS double precision)"

    def relation(self, connection: sa.Connection, schema: str | None, name: str) -> str | None:
        query = sa.text(
            "SELECT coalesce((SELECT CASE WHEN relkind IN ('v', 'm') THEN 'view' WHEN relkind IN ('i', 'I') "
            "THEN 'index' WHEN relkind = 'S' THEN 'sequence' WHEN relkind = 'c' THEN 'type' ELSE 'table' END "
            "FROM pg_class WHERE relname = :name AND relnamespace = n.oid), (SELECT 'type' FROM pg_type "
            "WHERE typname = :name AND typnamespace = n.oid AND typcategory <> 'A')) "
            "FROM pg_namespace AS n WHERE nspname = coalesce(:schema, current_schema())"
        )
        found: str | None = connection.scalar(query, {"name": name, "schema": schema})
        return found

    def alter(self, table: sa.TableClause, statement: str, column: str, *, drops: bool = False) -> None:
        """Add or drop a column, unless that was done already."""

        def change(connection: sa.Connection) -> None:
            if has_column(connection, table, column) == drops:
                self.run_text(connection, statement)

        try:
            self._alter(table, change, f"{column!r} could not be {'dropped' if drops else 'added'}")
        except BackendError as error:
            if sqlstate(error) not in (DUPLICATE_COLUMN, UNDEFINED_COLUMN):  # not because another process was faster
                raise

    def alter_all(self, table: sa.TableClause, statements: Sequence[str], *, guard: sa.Update | None = None) -> None:
        def change(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            self._run_guarded(connection, statements, guard)

        self._alter(table, change, "its triggers could not be changed")

    def _change_own_tables(self, change: Callable[[sa.Connection], None]) -> None:
        self._alter(sa.table("a listener's outbox"), change, "pinnacle's tables could not be upgraded")

    def _alter(self, table: sa.TableClause, change: Callable[[sa.Connection], None], otherwise: str) -> None:
        """Change a table that the user's transactions need with a short lock timeout, again and again: a waiting
        ALTER TABLE would make every later query on the table wait behind it."""
        for attempt in range(DDL_ATTEMPTS):
            try:
                with self.writing() as connection:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {DDL_LOCK_TIMEOUT_MS}")
                    change(connection)
                return
            except BackendError as error:
                if sqlstate(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK):
                    raise
                if attempt == DDL_ATTEMPTS - 1:
                    raise BackendError(
                        f"{table.fullname} stays locked by other transactions, so {otherwise}; end them and run again"
                    ) from error
            time.sleep(min(0.5, 0.02 * (attempt + 1)))

    def skip_numbers(self, connection: sa.Connection, table: sa.Table, highest: int) -> None:
        query = sa.text("SELECT setval(pg_get_serial_sequence(:place, 'id'), :highest)")
        connection.execute(query, {"place": self.own(table.name), "highest": highest})

    def lock_migration(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {self.quote(SCHEMA)}")
        self.require_own_schema(connection)
        if connection.exec_driver_sql(MAY_ALL_CREATE).scalar():
            log.warning(
                "every role may make functions and operators in the schema public, which the statements of all others "
                "then find: REVOKE CREATE ON SCHEMA public FROM PUBLIC"
            )

    def require_own_schema(self, connection: sa.Connection) -> None:
        """Asked before anything in the schema is: what a view selects is code of who made it."""
        found = connection.execute(sa.text(STRANGERS), {"schema": SCHEMA}).first()
        if found is not None:
            raise ConfigError(
                f"{found.what} belongs to the role {found.owner!r}, which is neither this one, nor one that it is a "
                "member of, nor the database's owner, nor a superuser: it may have been made to have code run here. If "
                f"it is pinnacle's, connect as {found.owner!r} or become a member of it; if not, have it dropped"
            )

    def migration_plan(self) -> list[str]:
        statements = super().migration_plan()
        return [f"CREATE SCHEMA IF NOT EXISTS {self.quote(SCHEMA)}", *statements] if statements else []

    @contextmanager
    def driver(self, connection: sa.Connection) -> Iterator[Any]:
        import psycopg

        try:
            with _raw_errors(connection):
                yield connection.connection.driver_connection
        except psycopg.errors.LockNotAvailable as error:
            raise BackendError(f"the database refused: {_first_line(error)}") from error
        except BackendError as error:
            if sqlstate(error) == NOT_SUPPORTED:  # perhaps a statement that was prepared for columns of other types
                connection.invalidate()
            raise

    @contextmanager
    def writing_raw(self) -> Iterator[Any]:
        """psycopg's connection in autocommit, set up for write-backs."""
        with self.writing_both() as (_, raw):
            yield raw

    @contextmanager
    def writing_both(self) -> Iterator[tuple[sa.Connection, Any]]:
        """The same below SQLAlchemy's connection, whose statements are of the transaction that is open."""
        with self.errors(), self._writers.connect() as connection, _raw_errors(connection):
            yield connection, connection.connection.driver_connection

    @contextmanager
    def binary_cursor(self, connection: sa.Connection) -> Iterator[Any]:
        """psycopg's cursor within a connection's transaction; SQLAlchemy's have their values come as text."""
        raw: Any = connection.connection.driver_connection
        with _raw_errors(connection), raw.cursor(binary=True) as cursor:
            yield cursor

    def wake(self) -> PostgresWake:
        """A wait for what the triggers notify of."""
        return PostgresWake(self._writers)


def sqlstate(error: BackendError) -> str | None:
    """The server's code of what it refused; None where it was not the server."""
    cause = error.__cause__
    return getattr(getattr(cause, "orig", cause), "sqlstate", None)


@contextmanager
def _raw_errors(connection: sa.Connection) -> Iterator[None]:
    """Turn psycopg's errors into pinnacle's, and have the pool replace a connection that dropped."""
    import psycopg

    raw: Any = connection.connection.driver_connection
    try:
        yield
    except psycopg.errors.LockNotAvailable:
        raise
    except UnicodeEncodeError as error:
        raise RowRejected(f"the database keeps text as {error.encoding}, which lacks a character of it") from error
    except psycopg.Error as error:
        if _is_about_a_row(error):
            raise RowRejected(f"the database refused a value: {_first_line(error)}") from error
        if raw.closed or raw.broken or is_stopping(error):
            connection.invalidate()
            raise ConnectionLost(f"the connection to the database dropped: {_first_line(error)}") from error
        raise refused(_first_line(error)) from error


def _is_about_a_row(error: Any) -> bool:
    """Whether one row's value is to blame: a constraint, a type, or a trigger's function that raised."""
    import psycopg

    if isinstance(error, (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.RaiseException)):
        return True
    if (error.sqlstate or "").startswith(LIMIT_EXCEEDED) or "invalid memory alloc request size" in str(error):
        return True
    return "function" in (error.diag.context or "") and not isinstance(error, psycopg.OperationalError)


def _first_line(error: Exception) -> str:
    return without_password((str(error).strip().splitlines() or [type(error).__name__])[0])
