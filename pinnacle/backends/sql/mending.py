"""Makes tables of pinnacle's again that were dropped by hand, and clears what others remember of what they held.

A migration tool that removes the tables it does not know is enough. What was in them is lost;
what is left must not be taken for more than it is, and nothing must wait for ever.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from pinnacle.backends.sql import migrate, places
from pinnacle.backends.sql.schema import (
    CHANGED_AT,
    HEAD,
    OUTBOX_PREFIX,
    SCHEMA,
    STATE_PREFIX,
    VERSION_TABLE,
    WORK_PREFIX,
    batch,
    component,
    component_artifact,
    error,
    identity,
    lease,
    listener,
    metadata,
    metric,
    output,
    place_name,
)
from pinnacle.backends.sql.session import SqlSession
from pinnacle.backends.sql.source import unknown_types_allowed
from pinnacle.base.errors import BackendError, ConfigError, UnsupportedTable
from pinnacle.base.listeners import NO_VERSION, UNDEFINED, new_sweep
from pinnacle.base.told import logger

log = logger(__name__)

MEANS = {
    output.name: "what is recorded of outputs is forgotten: add listeners again, and predict again with adopt=True",
    listener.name: "its listeners are gone: add them again",
    component.name: "the definitions of models and listeners are gone: add them again; their rows are computed anew",
    error.name: "rows that were set aside are tried again",
    batch.name: "batch jobs of providers that were under way are forgotten: their rows are sent again",
}
"""What it means that a table is lost, where that is not only what it held."""

version_table = sa.Table(
    VERSION_TABLE, sa.MetaData(schema=SCHEMA),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)  # fmt: skip
NUMBERED = (STATE_PREFIX, OUTBOX_PREFIX, WORK_PREFIX)
FIXED = {table.name: table for table in (*metadata.sorted_tables, version_table)}


class Mending:
    """See `OwnTables`.

    ``captures`` tells which listeners have triggers, by number; ``capture_drops`` how these are taken away;
    ``free_writes`` takes away those that fail the user's writes, where that can be.
    """

    def __init__(
        self, session: SqlSession, captures: Callable[[sa.Connection], Collection[int]],
        capture_drops: Callable[[int], list[str]], free_writes: Callable[[], None],
    ) -> None:  # fmt: skip
        self._session, self._captures = session, captures
        self._capture_drops, self._free_writes = capture_drops, free_writes
        self._were_here = False

    def look(self) -> bool:
        """Whether pinnacle's tables are here and of this version; those that somebody dropped are made again."""
        with self._session.reading() as connection:
            self._session.require_own_schema(connection)
            found = self.found(connection)
            revision = migrate.current_revision(connection, self._session.schema)
            self.note_identity(connection)
        self._free_writes()
        if found.isdisjoint(FIXED):
            if self._were_here:
                log.error(
                    "pinnacle's tables were dropped from %s: add models and listeners again", self._session.engine.url
                )
            self._were_here = False
            return False
        self._were_here = True
        if revision is not None:
            migrate.check_revision(revision)
        if lost := _lost(found, revision):
            self._make_again(lost)
        return True

    def note_identity(self, connection: sa.Connection) -> None:
        """Know a database by another mark from now on whose mark was dropped. One without any table keeps it: another
        file is perhaps just being copied into this one."""
        found = self.found(connection)
        if found and identity.name not in found:
            self._session.forget_identity()

    def expect_none(self) -> None:
        """They are removed on purpose."""
        self._were_here = False
        self._session.forget_identity()

    def is_behind(self, connection: sa.Connection) -> bool:
        """Whether migrations are missing, or all; not where only some tables are."""
        self._session.require_own_schema(connection)
        revision = migrate.current_revision(connection, self._session.schema)
        return migrate.is_behind(revision) if revision is not None else self.found(connection).isdisjoint(FIXED)

    def clear_strays(self, connection: sa.Connection) -> None:
        """Where nothing tells of outputs any more, take away what they had, before others get their numbers."""
        if self.found(connection).isdisjoint(FIXED):
            for number in self._captures(connection):
                for statement in self._capture_drops(number):
                    self._session.run_text(connection, statement)
            self._drop_numbered(connection, *NUMBERED)

    def found(self, connection: sa.Connection) -> set[str]:
        """The tables in the schema of pinnacle's."""
        return set(sa.inspect(connection).get_table_names(schema=self._session.schema))

    def plan(self) -> list[str]:
        """The statements that make lost tables again."""
        with self._session.reading() as connection:
            lost = _lost(self.found(connection), migrate.current_revision(connection, self._session.schema))
        made = [
            CreateTable(FIXED[name]).compile(
                dialect=self._session.dialect, schema_translate_map=self._session.translate,
                render_schema_translate=True,
            )
            for name in lost
        ]  # fmt: skip
        return [self._session.plain(str(statement)).strip() for statement in made]

    # -- making them again -------------------------------------------------------------------------

    def _make_again(self, lost: Collection[str]) -> None:
        named = ", ".join(lost)
        try:
            if not {output.name, listener.name}.isdisjoint(lost):
                self._drop_captures()
            with self._session.writing() as connection:
                self._session.lock_migration(connection)
                revision = migrate.current_revision(connection, self._session.schema)
                lost = _lost(self.found(connection), revision)  # another process may have been faster
                self._create(connection, lost)
                self._clear(connection, lost)
        except UnsupportedTable as error:
            raise BackendError(
                f"pinnacle's tables {named} were dropped by hand, and cannot be made again: {error}; run pinnacle "
                "migrate URL as somebody who may"
            ) from error
        if lost:
            means = "; ".join(MEANS[name] for name in lost if name in MEANS)
            log.error(
                "pinnacle's tables %s were dropped by hand, perhaps by a migration tool that removes tables it does "
                "not know. They were made again, empty%s", ", ".join(lost), f": {means}" if means else "",
            )  # fmt: skip

    def _drop_captures(self) -> None:
        """Of listeners that nobody knows of any more."""
        with self._session.reading() as connection:
            numbers = sorted(self._captures(connection))
        for number in numbers:
            self._session.alter_all(sa.table(f"the table of output {number}"), self._capture_drops(number))

    def _create(self, connection: sa.Connection, lost: Collection[str]) -> None:
        if VERSION_TABLE in lost:
            self._require_this_form(connection, lost)
        for name in lost:
            FIXED[name].create(connection, checkfirst=True)
        if identity.name in lost:
            connection.execute(sa.insert(identity).values(id=uuid.uuid4().hex))
        if VERSION_TABLE in lost:
            connection.execute(sa.insert(version_table).values(version_num=HEAD))

    def _require_this_form(self, connection: sa.Connection, lost: Collection[str]) -> None:
        """ConfigError where the tables that are left are of another version, which nothing tells any more."""
        inspector, schema = sa.inspect(connection), self._session.schema
        wanted = {name: set(table.c.keys()) for name, table in FIXED.items() if name not in lost}
        wanted |= {name: {CHANGED_AT} for name in migrate.outboxes(connection, schema)}
        for name, columns in wanted.items():
            with unknown_types_allowed():
                there = {column["name"] for column in inspector.get_columns(name, schema=schema)}
            if not columns <= there:
                raise ConfigError(
                    f"pinnacle's table {VERSION_TABLE} was dropped by hand, and {name} is not as this version makes "
                    "it; put the table back from a backup, or take all of pinnacle away: pinnacle remove URL --all"
                )

    # -- what the others remember --------------------------------------------------------------------

    def _clear(self, connection: sa.Connection, lost: Collection[str]) -> None:
        if output.name in lost:
            self._forget_outputs(connection)
        elif listener.name in lost:
            self._drop_numbered(connection, OUTBOX_PREFIX, WORK_PREFIX)
        if component.name in lost:
            self._forget_definitions(connection)
        if error.name in lost and output.name not in lost:
            self._try_failed_again(connection)

    def _forget_outputs(self, connection: sa.Connection) -> None:
        """New outputs get numbers that were none's: another process may still work on an old one."""
        highest = self._drop_numbered(connection, *NUMBERED)
        for table in (lease, error, batch, listener):
            connection.execute(sa.delete(table))
        if highest:
            self._session.skip_numbers(connection, output, highest)

    def _forget_definitions(self, connection: sa.Connection) -> None:
        """Versions are counted anew: what is recorded of the old ones is of none, and the next are computed anew."""
        for table in (component_artifact, metric):
            connection.execute(sa.delete(table))
        connection.execute(sa.update(output).values(version=NO_VERSION))
        connection.execute(sa.update(listener).values(version=NO_VERSION, paused=UNDEFINED))
        for name in self._numbered(connection, STATE_PREFIX):
            self._session.run_text(connection, f"UPDATE {self._session.own(name)} SET version = {NO_VERSION}")

    def _try_failed_again(self, connection: sa.Connection) -> None:
        connection.execute(sa.update(listener).values(sweep=new_sweep()))
        for name in self._numbered(connection, STATE_PREFIX):
            self._session.run_text(connection, f"DELETE FROM {self._session.own(name)} WHERE failed")

    def _drop_numbered(self, connection: sa.Connection, *prefixes: str) -> int:
        """Drop the tables of all outputs, with their states what says where they are; the highest number among them."""
        names = self._numbered(connection, *prefixes)
        for name in names:
            self._session.run_text(connection, f"DROP TABLE {self._session.own(name)}")
        if STATE_PREFIX in prefixes:
            views = [name for name in places.names(self._session, connection) if name != place_name(0)]
            for name in views:
                self._session.run_text(connection, f"DROP VIEW {self._session.own(name)}")
            names += views
        return max((int(name.rpartition("_")[2]) for name in names), default=0)

    def _numbered(self, connection: sa.Connection, *prefixes: str) -> list[str]:
        return numbered(self.found(connection), prefixes)


def numbered(names: Collection[str], prefixes: Collection[str] = NUMBERED) -> list[str]:
    """Those of the names that are of tables of single outputs."""
    return sorted(filter(re.compile(f"({'|'.join(prefixes)})[0-9]+").fullmatch, names))


def _lost(found: Collection[str], revision: str | None) -> list[str]:
    """The tables that somebody dropped; a version table that says nothing counts as one."""
    if revision is None:
        found = set(found) - {VERSION_TABLE}
    return [name for name in FIXED if name not in found]
