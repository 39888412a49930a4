"""What SQLite and PostgreSQL share as a Backend: connections, the registry, own tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import orm

from pinnacle.backends.protocol import NO_OUTPUT, Capability, Searcher, Source, Target
from pinnacle.backends.sql import migrate
from pinnacle.backends.sql.artifacts import SqlArtifacts
from pinnacle.backends.sql.catalog import SqlCatalogStore
from pinnacle.backends.sql.columns import Encoder, decoder
from pinnacle.backends.sql.errors import SqlErrors
from pinnacle.backends.sql.ledger import SqlLedger
from pinnacle.backends.sql.listeners import SqlListeners
from pinnacle.backends.sql.outputs import SqlOutputs, default_name, outputs_on, side_outputs
from pinnacle.backends.sql.runs import SqlRuns
from pinnacle.backends.sql.schema import (
    OUTBOX_PREFIX,
    SCHEMA,
    STATE_PREFIX,
    VERSION_TABLE,
    WORK_PREFIX,
    listener,
    metadata,
)
from pinnacle.backends.sql.side import VALUE
from pinnacle.backends.sql.source import ColumnTypes, SqlSource, own, resolve, unknown_types_allowed
from pinnacle.backends.sql.stored import freeze, thaw
from pinnacle.base.errors import BackendError, ConfigError, ConnectionLost, OutputTypeConflict, UnsupportedTable
from pinnacle.base.rows import Fields, OutputInfo, OutputSpec
from pinnacle.base.settings import Settings
from pinnacle.base.types import Items, OutputType, SqlColumn, Text


class SqlBackend:
    """One SQL database.

    ``engine`` is the application's: the user's own where one was given. pinnacle's own
    statements run on ``_work``, a sibling with a pool of its own, so that the
    application's pool is never starved by a run.
    """

    name: ClassVar[str]
    schema: ClassVar[str | None]
    capabilities: ClassVar[frozenset[Capability]]
    searcher: Searcher | None = None
    writing_raw: Callable[[], AbstractContextManager[Any]]
    """A write transaction on the driver's own connection: the hot path of a write-back."""

    def __init__(self, engine: sa.Engine, settings: Settings, *, owned: bool) -> None:
        self.engine, self.settings, self._owned = engine, settings, owned
        if engine.get_execution_options().get("schema_translate_map"):
            raise ConfigError(
                "this Engine translates schemas, which reflection and triggers do not follow; pass an Engine whose "
                "search_path is set, or tables with their schema"
            )
        self.dialect = engine.dialect
        self.translate: Mapping[str | None, str | None] = {SCHEMA: self.schema}
        self._work = self._sibling(engine).execution_options(schema_translate_map=self.translate)
        self._is_migrated = False
        self.catalog, self.runs = SqlCatalogStore(self, self.artifacts()), SqlRuns(self)
        self.outputs, self.listeners = SqlOutputs(self), SqlListeners(self)
        self.errors, self.ledger = SqlErrors(self), SqlLedger(self)

    # -- what the dialects say differently ------------------------------------------------

    def _sibling(self, engine: sa.Engine) -> sa.Engine:
        """An engine of the same database with its own pool, which runs of several threads find no bound in.

        The connection used last is used next: it has its statements prepared, and on SQLite takes
        no write of this process's for another's.
        """
        pool = engine.pool.recreate()
        if isinstance(pool, sa.QueuePool):
            pool._max_overflow = -1
            pool._pool.use_lifo = True
        return sa.Engine(pool, engine.dialect, engine.url)

    def column_of(self, output: OutputType) -> SqlColumn:
        """How this database keeps values of a type."""
        raise NotImplementedError

    def column_type(self, output: OutputType) -> sa.types.TypeEngine[Any]:
        """The type of a column made for ``output``."""
        made: sa.types.TypeEngine[Any] = self.column_of(output).type
        return made

    def column_declaration(self, output: OutputType, table: sa.Table) -> str:
        """The type in the ADD COLUMN of an output."""
        return str(self.column_type(output).compile(dialect=self.dialect))

    def check_adoptable(self, output: OutputType, column: sa.Column[Any], table: str) -> None:
        """Raise OutputTypeConflict unless ``column`` can hold ``output`` exactly."""
        kept = self.column_of(output)
        why = "it is computed" if column.computed is not None else kept.unfit(column.type)
        if why or not isinstance(column.type, kept.adopts):
            raise OutputTypeConflict(
                f"column {table}.{column.name} is {column.type!r}{f' ({why})' if why else ''} and the output is "
                f"{output}; choose another name with output=, or change the column"
            )

    def decoder(self, column_type: sa.types.TypeEngine[Any]) -> Encoder | None:
        """How the driver's values become inputs of a model."""
        return decoder(column_type, self.dialect)

    def artifacts(self) -> SqlArtifacts:
        """How the contents of artifacts are kept."""
        return SqlArtifacts(self)

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that takes ON CONFLICT, which each dialect has in a form of its own."""
        raise NotImplementedError

    def now(self) -> sa.ColumnElement[float]:
        """The time in seconds, by the one clock of all who write here."""
        raise NotImplementedError

    def state_suffix(self, table: sa.Table) -> str:
        """What follows CREATE TABLE of a state table."""
        return ""

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        """A write transaction, committed at the end.

        ``durable=False`` lets a power failure undo it, where that is cheaper: leases need no more.
        """
        with wrapped_errors(), self._work.begin() as connection:
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
        with wrapped_errors(), self._work.connect() as connection:
            yield connection

    def prerequisites(self, output: OutputType) -> list[str]:
        """Statements that must run once before the database has a type for ``output``."""
        return []

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

    # -- names ------------------------------------------------------------------------------

    def quote(self, name: str) -> str:
        """``name`` as a quoted identifier, always quoted; a % in it is a plain %."""
        return '"' + name.replace('"', '""') + '"'

    def quote_table(self, table: sa.TableClause) -> str:
        """A table's name, with its schema where it has one."""
        return ".".join(self.quote(part) for part in (table.schema, table.name) if part)

    def own(self, table: str) -> str:
        """One of pinnacle's own tables, quoted."""
        return ".".join(self.quote(part) for part in (self.schema, table) if part)

    # -- Backend ----------------------------------------------------------------------------

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the user's statement on their engine.

        Through a Session of its own, so that entities come back as entities. Rows are
        fetched before it returns and no connection stays open; changes are committed.
        """
        if isinstance(query, str):
            query = sa.text(query)
        with orm.Session(self.engine, expire_on_commit=False) as session, session.begin():
            result = session.execute(query, *args, **kwargs)
            if isinstance(query, sa.UpdateBase) and not query.exported_columns:
                return result
            return result.freeze()() if getattr(result, "returns_rows", True) else result

    def owns(self, query: Any) -> bool:
        return isinstance(query, sa.Executable)

    def default_name(self, fields: Fields, identifier: str) -> str:
        return default_name(fields, identifier)

    def resolve(self, query: Any, fields: Fields, *, checked: bool = False) -> SqlSource:
        """See `Backend.resolve`. Fields are always checked."""
        has_outputs = self.is_migrated()
        find = thaw if isinstance(query, Mapping) else resolve
        with self.reading() as connection:  # one connection: the pool may have no other
            return find(
                connection, query, fields, lambda table: self._output_types(connection, table) if has_outputs else {}
            )

    def freeze(self, source: Source, *, limited: bool = False) -> dict[str, Any]:
        return freeze(own(source), self.dialect, limited=limited)

    def capture_drops(self, number: int) -> list[str]:
        """The statements that take a listener's triggers away, whether or not they are there."""
        raise NotImplementedError

    def lead(self, worker: str, ttl_s: float) -> str | None:
        return None

    def _output_types(self, connection: sa.Connection, table: sa.Table) -> ColumnTypes:
        """The types of outputs by column, and of the items where ``table`` is a side table."""
        found = {info.name: info.type for info in outputs_on(connection, table)}
        for info in side_outputs(connection, table):
            found[VALUE] = info.type.stored
        return {name: self.column_type(kind) for name, kind in found.items() if not isinstance(kind, Items)}

    def plan(self, source: Source, spec: OutputSpec) -> list[str]:
        return self.migration_plan() + self.outputs.plan(own(source), spec)

    def bind(self, source: Source, spec: OutputSpec, *, create: bool = True) -> Target:
        info, exists = self._open_output(own(source), spec, create=create)
        return self.target(own(source), info, spec.version, exists=exists)

    def target(self, source: SqlSource, info: OutputInfo, version: int, *, exists: bool) -> Target:
        """The dialect's way to fill an output; one that does not exist is read as empty."""
        raise NotImplementedError

    def scan(self, source: Source) -> Target:
        return self.bind(source, OutputSpec(NO_OUTPUT, Text(), "", 0, source.fields), create=False)

    def _open_output(self, source: SqlSource, spec: OutputSpec, *, create: bool) -> tuple[OutputInfo, bool]:
        """The output, and whether it is there: with ``create`` it is, after this."""
        if create:
            self.migrate()
            return replace(self.outputs.ensure(source, spec), parameters=spec.parameters), True
        existing = self.outputs.check(source, spec)
        missing = OutputInfo(0, source.table, spec.name, spec.model, spec.version, spec.fields, spec.type, False)
        return replace(existing or missing, parameters=spec.parameters), existing is not None

    # -- pinnacle's own tables ----------------------------------------------------------------

    def is_migrated(self) -> bool:
        if not self._is_migrated:
            with self.reading() as connection:
                self._is_migrated = migrate.check_revision(migrate.current_revision(connection, self.schema))
        return self._is_migrated

    def migration_plan(self) -> list[str]:
        with self.reading() as connection:
            current = migrate.current_revision(connection, self.schema)
        return migrate.upgrade_sql(f"{self.name}://", self.schema, current)

    def migrate(self) -> None:
        if self._is_migrated:
            return
        with self.reading() as connection:
            revision = migrate.current_revision(connection, self.schema)
        if migrate.is_behind(revision):
            with self.writing() as connection:
                self._lock_migration(connection)
                if migrate.is_behind(migrate.current_revision(connection, self.schema)):
                    migrate.upgrade(connection, self.schema)
        self._is_migrated = True

    def _lock_migration(self, connection: sa.Connection) -> None:
        """Keep two processes from creating the tables at once."""

    def removal_plan(self, *, outputs: bool = False) -> list[str]:
        triggers = [statement for record in self.listeners.all() for statement in self.capture_drops(record.output)]
        columns = [self.outputs.drop_column_sql(info) for info in self._droppable(outputs)]
        return triggers + columns + self._own_removal()

    def remove_all(self, *, outputs: bool = False) -> None:
        """Triggers first, so that no write meets half of them; then columns one by one, then all else at once:
        a removal that was cut short can be run again."""
        for record in self.listeners.all():
            self.alter_all(sa.table(record.table), self.capture_drops(record.output))
        for info in self._droppable(outputs):
            self.outputs.drop_column(info)
        statements = self._own_removal()
        with self.writing() as connection:
            for statement in statements:
                self.run_text(connection, statement)
        self._is_migrated = False

    def _droppable(self, outputs: bool) -> list[OutputInfo]:
        """The outputs whose columns a removal drops: those that pinnacle made and that are still there."""
        made = [(info, self.outputs.table_of(info)) for info in self.outputs.all() if outputs and info.created_column]
        with self.reading() as connection:
            return [
                info for info, table in made if isinstance(info.type, Items) or has_column(connection, table, info.name)
            ]

    def _own_removal(self) -> list[str]:
        if not self.is_migrated():
            return []
        with self.reading() as connection:
            found = sa.inspect(connection).get_table_names(schema=self.schema)
        of_outputs = re.compile(f"({STATE_PREFIX}|{OUTBOX_PREFIX}|{WORK_PREFIX})[0-9]+")
        names = [*filter(of_outputs.fullmatch, found), *(table.name for table in metadata.sorted_tables), VERSION_TABLE]
        schema = [f"DROP SCHEMA {self.quote(self.schema)}"] if self.schema else []
        return [f"DROP TABLE {self.own(name)}" for name in names] + schema

    def close(self) -> None:
        self._work.dispose()
        if self._owned:
            self.engine.dispose()


@contextmanager
def wrapped_errors() -> Iterator[None]:
    """Turn SQLAlchemy's errors into pinnacle's, keeping the driver's as the cause."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DBAPIError as error:
        reason = (
            str(error.orig).strip().splitlines()[0] if error.orig and str(error.orig).strip() else type(error).__name__
        )
        if error.connection_invalidated:
            raise ConnectionLost(f"the connection to the database dropped: {reason}") from error
        if "readonly database" in reason or "read-only transaction" in reason:
            raise UnsupportedTable(f"the database is read-only, so no output can be written: {reason}") from error
        raise BackendError(f"the database refused: {reason}") from error
    except sa.exc.TimeoutError as error:
        raise BackendError(f"no connection to the database was free: {error}") from error


def has_column(connection: sa.Connection, table: sa.TableClause, column: str) -> bool:
    """Whether the table is there and has the column."""
    try:
        with unknown_types_allowed():
            columns = sa.inspect(connection).get_columns(table.name, schema=table.schema)
    except sa.exc.NoSuchTableError:
        return False
    return any(found["name"] == column for found in columns)


__all__ = ["SqlBackend", "wrapped_errors"]
