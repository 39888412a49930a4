"""PostgreSQL: connecting to the user's own, or starting the embedded one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.postgres.artifacts import PostgresArtifacts
from pinnacle.backends.postgres.capture import capture_drops
from pinnacle.backends.postgres.changes import PostgresFeed
from pinnacle.backends.postgres.connections import prepare_nothing_behind_a_pooler
from pinnacle.backends.postgres.embedded import embedded_server
from pinnacle.backends.postgres.keys import is_alike, retype_key
from pinnacle.backends.postgres.session import PostgresSession
from pinnacle.backends.postgres.target import PostgresSideTarget, PostgresTarget, update_rule
from pinnacle.backends.postgres.wake import PostgresWake
from pinnacle.backends.protocol import NO_OUTPUT, Capability, Target
from pinnacle.backends.sql.backend import SqlBackend
from pinnacle.backends.sql.session import url_of
from pinnacle.backends.sql.source import SqlSource
from pinnacle.backends.sql.target import own_target
from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import ConfigError, MissingPlugin, UnsupportedTable
from pinnacle.base.listeners import Watch
from pinnacle.base.rows import OutputInfo, OutputSpec
from pinnacle.base.seal import Seal
from pinnacle.base.settings import Settings
from pinnacle.base.types import Items


def open_postgres(target: sa.Engine | str, settings: Settings, *, is_embedded: bool = False) -> PostgresBackend:
    """Open the user's PostgreSQL by engine or URL, through psycopg 3."""
    try:
        import pgvector.sqlalchemy  # noqa: F401 - teaches SQLAlchemy to reflect vector columns
        import psycopg  # noqa: F401
    except ImportError as error:
        raise MissingPlugin("psycopg with pgvector", with_extra("postgres"), purpose="PostgreSQL") from error
    seal = Seal.of(settings, is_embedded=is_embedded)
    if isinstance(target, sa.Engine):
        if target.dialect.driver != "psycopg":
            raise ConfigError(
                f"pinnacle needs psycopg 3 and this engine uses {target.dialect.driver}; make it with postgresql+psycopg://"
            )
        return PostgresBackend(PostgresSession(target, settings, owned=False), seal)
    url = url_of(target).set(drivername="postgresql+psycopg")
    named = {} if "application_name" in url.query else {"application_name": settings.application}
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args=named)
    session = PostgresSession(engine, settings, owned=True)
    sa.event.listen(engine.pool, "connect", prepare_nothing_behind_a_pooler)  # its siblings do so by themselves
    return PostgresBackend(session, seal)


def open_embedded(target: str, settings: Settings) -> PostgresBackend:
    """Start the PostgreSQL that comes as a pip package, its data in the URL's directory."""
    url = url_of(target)
    if not url.database:
        raise ConfigError("postgresql+embedded:///DIRECTORY needs the directory for the server's data")
    if not settings.may_create and not Path(url.database).is_dir():
        raise ConfigError(f"there is no database directory {url.database}")
    server = embedded_server(url.database)
    backend = open_postgres(server.get_uri(), settings, is_embedded=True)
    backend.server = server
    with backend.session.writing() as connection:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
    return backend


class PostgresBackend(SqlBackend):
    """See `SqlBackend`."""

    session: PostgresSession
    artifacts_type = PostgresArtifacts
    capabilities = frozenset(
        {Capability.SQL, Capability.TRANSACTIONS, Capability.MANY_PROCESSES, Capability.NATIVE_VECTORS}
    )
    server: Any = None

    def _open_output(self, source: SqlSource, spec: OutputSpec, *, create: bool) -> tuple[OutputInfo, bool]:
        if (
            not isinstance(spec.type, Items)
            and spec.name != NO_OUTPUT
            and (reason := update_rule(self.session, source))
        ):
            raise UnsupportedTable(reason)
        return super()._open_output(source, spec, create=create)

    def follows_key(self, source: SqlSource, info: OutputInfo) -> bool:
        return is_alike(self.session, source, info)

    def follow_key(self, source: SqlSource, info: OutputInfo) -> None:
        if not retype_key(self.session, source, info):
            super().follow_key(source, info)

    def target(self, source: SqlSource, info: OutputInfo, version: int, *, exists: bool) -> PostgresTarget:
        made = PostgresSideTarget if isinstance(info.type, Items) else PostgresTarget
        return made(self.session, source, info, version, exists=exists)

    def feed(self, target: Target, reads: Sequence[str], watch: Watch) -> PostgresFeed:
        return PostgresFeed(self.session, own_target(target, PostgresTarget), reads, watch)

    def capture_drops(self, number: int) -> list[str]:
        return capture_drops(self.session, number)

    def captures(self, connection: sa.Connection) -> set[int]:
        query = sa.text("SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace(:schema)")
        names = connection.scalars(query, {"schema": self.session.schema})
        found = (re.fullmatch(r"pinnacle_capture_(\d+)_[a-z]+", name) for name in names)
        return {int(match[1]) for match in found if match}

    def free_writes(self) -> None:
        """Functions look first whether what they write to is there."""

    def schema_removal(self, connection: sa.Connection) -> list[str]:
        """Not one that holds more than what is removed with it: somebody has put it there."""
        others = sa.text(
            "SELECT nspname, EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid "
            "AND relkind IN ('r', 'v', 'm', 'p', 'f') AND NOT starts_with(relname, 'pinnacle_')) "
            "OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid "
            "AND NOT starts_with(proname, 'pinnacle_capture_')) FROM pg_namespace AS n WHERE nspname = :schema"
        )
        found = connection.execute(others, {"schema": self.session.schema}).first()
        return [] if found is None or found[1] else [f"DROP SCHEMA {self.session.quote(found[0])}"]

    def check(self) -> None:
        """A server stays the one it is, and takes a function's triggers away with the function."""

    def wake(self) -> PostgresWake:
        return self.session.wake()
