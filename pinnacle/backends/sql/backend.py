"""What SQLite and PostgreSQL share as a Backend: queries, outputs, and the removal of all that is pinnacle's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import orm

from pinnacle.backends.protocol import NO_OUTPUT, Capability, Feed, Searcher, Source, Target, Wake
from pinnacle.backends.sql import places
from pinnacle.backends.sql.artifacts import SqlArtifacts
from pinnacle.backends.sql.catalog import SqlCatalogStore
from pinnacle.backends.sql.errors import SqlErrors
from pinnacle.backends.sql.keys import forget_keys
from pinnacle.backends.sql.ledger import SqlLedger
from pinnacle.backends.sql.listeners import SqlListeners
from pinnacle.backends.sql.mending import FIXED, Mending, numbered
from pinnacle.backends.sql.outputs import SqlOutputs, default_name, outputs_on, side_outputs
from pinnacle.backends.sql.runs import SqlRuns
from pinnacle.backends.sql.seals import SqlSeals
from pinnacle.backends.sql.session import SqlSession, has_column
from pinnacle.backends.sql.side import VALUE
from pinnacle.backends.sql.source import ColumnTypes, KnownTypes, SqlSource, own, resolve
from pinnacle.backends.sql.stored import freeze, read_by, thaw
from pinnacle.base.listeners import Watch
from pinnacle.base.rows import Fields, OutputInfo, OutputSpec
from pinnacle.base.seal import Seal
from pinnacle.base.types import Items, Text


class SqlBackend(ABC):
    """One SQL database, over the `SqlSession` that its parts share."""

    capabilities: ClassVar[frozenset[Capability]]
    searcher: Searcher | None = None
    artifacts_type: ClassVar[type[SqlArtifacts]] = SqlArtifacts

    def __init__(self, session: SqlSession, seal: Seal) -> None:
        self.session, self.name, self.engine = session, session.name, session.engine
        self.seals = SqlSeals(session, seal)
        session.own_tables = Mending(session, self.captures, self.capture_drops, self.free_writes)
        self.catalog = SqlCatalogStore(session, self.artifacts_type(session), self.seals)
        self.runs = SqlRuns(session)
        self.outputs, self.listeners = SqlOutputs(session), SqlListeners(session, self.capture_drops)
        self.errors, self.ledger = SqlErrors(session), SqlLedger(session)

    # -- what the dialects say differently ------------------------------------------------

    @abstractmethod
    def target(self, source: SqlSource, info: OutputInfo, version: int, *, exists: bool) -> Target:
        """The dialect's way to fill an output; one that does not exist is read as empty."""

    @abstractmethod
    def feed(self, target: Target, reads: Sequence[str], watch: Watch) -> Feed: ...

    @abstractmethod
    def wake(self) -> Wake: ...

    @abstractmethod
    def follows_key(self, source: SqlSource, info: OutputInfo) -> bool:
        """Whether what is recorded of an output is by a key like the one that the table has."""

    def follow_key(self, source: SqlSource, info: OutputInfo) -> None:
        """Have an output recorded by the key that its table has; what is of other keys is forgotten."""
        if not self.follows_key(source, info):
            forget_keys(self.session, source, info, self.capture_drops(info.id))

    @abstractmethod
    def capture_drops(self, number: int) -> list[str]:
        """The statements that take a listener's triggers away, whether or not they are there."""

    @abstractmethod
    def captures(self, connection: sa.Connection) -> set[int]:
        """The numbers of the listeners that have triggers, known or not."""

    @abstractmethod
    def free_writes(self) -> None:
        """Take triggers away that fail the user's writes, because what they write to was dropped by hand."""

    @abstractmethod
    def check(self) -> None: ...

    def lead(self, worker: str, ttl_s: float) -> str | None:
        return None

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
        has_outputs = self.session.is_migrated()
        find = thaw if isinstance(query, Mapping) else resolve
        with self.session.reading() as connection:  # one connection: the pool may have no other
            known = KnownTypes(
                self.session.columns, lambda table: self._output_types(connection, table) if has_outputs else {}
            )
            return find(connection, query, fields, known)

    def freeze(self, source: Source, *, limited: bool = False) -> dict[str, Any]:
        with self.session.reading() as connection:
            return freeze(connection, own(source), limited=limited)

    def _output_types(self, connection: sa.Connection, table: sa.Table) -> ColumnTypes:
        """The types of outputs by column, and of the items where ``table`` is a side table."""
        found = {info.name: info.type for info in outputs_on(connection, table)}
        for info in side_outputs(connection, table):
            found[VALUE] = info.type.stored
        return {name: self.session.columns.type_of(kind) for name, kind in found.items() if not isinstance(kind, Items)}

    def plan(self, source: Source, spec: OutputSpec) -> list[str]:
        return self.migration_plan() + self.outputs.plan(own(source), spec)

    def bind(self, source: Source, spec: OutputSpec, *, create: bool = True) -> Target:
        info, exists = self._open_output(own(source), spec, create=create)
        return self.target(own(source), info, spec.version, exists=exists)

    def scan(self, source: Source) -> Target:
        return self.bind(
            source, OutputSpec(name=NO_OUTPUT, type=Text(), model="", version=0, fields=source.fields), create=False
        )

    def _open_output(self, source: SqlSource, spec: OutputSpec, *, create: bool) -> tuple[OutputInfo, bool]:
        """The output, and whether it is there: with ``create`` it is, after this."""
        parameters = read_by(spec.parameters, source)
        if create:
            self.migrate()
            info = self.outputs.ensure(source, spec)
            self.follow_key(source, info)
            return replace(info, parameters=parameters), True
        existing = self.outputs.check(source, spec)
        missing = OutputInfo.unmade(source.table, spec, created_column=False)
        exists = existing is not None and self.outputs.has_state(existing.id) and self.follows_key(source, existing)
        return replace(existing or missing, parameters=parameters), exists

    # -- pinnacle's own tables ----------------------------------------------------------------

    def migration_plan(self) -> list[str]:
        return self.session.migration_plan()

    def migrate(self) -> None:
        self.session.migrate()

    def removal_plan(self, *, outputs: bool = False) -> list[str]:
        with self.session.reading() as connection:
            numbers = sorted(self.captures(connection))
            tables = self._own_removal(connection)
        triggers = [statement for number in numbers for statement in self.capture_drops(number)]
        columns = [self.outputs.drop_column_sql(info) for info in self._droppable(outputs)]
        return triggers + columns + tables

    def remove_all(self, *, outputs: bool = False) -> None:
        """Triggers first, so that no write meets half of them; then columns one by one, then all else at once:
        a removal that was cut short can be run again. What is there is looked for in the database, not in the
        registry, of which parts may be lost."""
        with self.session.reading() as connection:
            self.session.own_tables.note_identity(connection)
            numbers = sorted(self.captures(connection))
        for number in numbers:
            self.session.alter_all(sa.table(f"the table of output {number}"), self.capture_drops(number))
        for info in self._droppable(outputs):
            self.outputs.drop_column(info)
        with self.session.writing() as connection:
            for statement in self._own_removal(connection):
                self.session.run_text(connection, statement)
        self.session.own_tables.expect_none()
        self.session.forget_migration()

    def _droppable(self, outputs: bool) -> list[OutputInfo]:
        """The outputs whose columns a removal drops: those that pinnacle made and that are still there."""
        known = self.outputs.all() if outputs else []
        made = [(info, self.outputs.table_of(info)) for info in known if self.outputs.is_made(info)]
        with self.session.reading() as connection:
            return [
                info for info, table in made if isinstance(info.type, Items) or has_column(connection, table, info.name)
            ]

    def _own_removal(self, connection: sa.Connection) -> list[str]:
        found = self.session.own_tables.found(connection)
        names = [*numbered(found), *(name for name in FIXED if name in found)]
        views = [f"DROP VIEW {self.session.own(name)}" for name in places.names(self.session, connection)]
        return views + [f"DROP TABLE {self.session.own(name)}" for name in names] + self.schema_removal(connection)

    def schema_removal(self, connection: sa.Connection) -> list[str]:
        """The statement that drops the schema of pinnacle's tables, where there is one and nobody else uses it."""
        return []

    def close(self) -> None:
        self.session.close()
