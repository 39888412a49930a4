"""SQLite: opening the file, and its one worker."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.protocol import Capability, Target
from pinnacle.backends.sql.backend import SqlBackend
from pinnacle.backends.sql.columns import Declared
from pinnacle.backends.sql.schema import lease
from pinnacle.backends.sql.session import url_of
from pinnacle.backends.sql.source import SqlSource
from pinnacle.backends.sql.target import own_target
from pinnacle.backends.sqlite.changes import SqliteFeed, capture_drops
from pinnacle.backends.sqlite.keys import is_followed
from pinnacle.backends.sqlite.repair import own_triggers, take_broken_triggers_away
from pinnacle.backends.sqlite.session import SqliteSession
from pinnacle.backends.sqlite.target import SqliteSideTarget, SqliteTarget
from pinnacle.backends.sqlite.wake import SqliteWake
from pinnacle.base.errors import ConfigError, UnsupportedTable
from pinnacle.base.listeners import Watch
from pinnacle.base.processes import is_gone, shown, this_process
from pinnacle.base.rows import Fields, OutputInfo
from pinnacle.base.seal import Seal
from pinnacle.base.settings import Settings
from pinnacle.base.types import Items

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "9p"}
)


def open_sqlite(target: sa.Engine | str, settings: Settings) -> SqliteBackend:
    """Open a SQLite file by engine or URL; a file that does not exist is made in WAL mode, where that is allowed."""
    url = url_of(target)
    if url.host:
        meant = f"{url.host}/{url.database}" if url.database else url.host
        raise ConfigError(f"a SQLite file takes three slashes, as in sqlite:///{meant}, and four from the root")
    if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
        raise ConfigError(
            "an in-memory SQLite database cannot be shared between the threads and processes of a prediction; "
            "use a file, for example sqlite:///docs.db"
        )
    path = Path(url.database.removeprefix("file:").split("?")[0])
    is_new = not path.exists() or path.stat().st_size == 0
    if not path.exists() and not settings.may_create:
        raise ConfigError(f"there is no database file {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be made: there is no directory {path.parent}")
    engine = target if isinstance(target, sa.Engine) else sa.create_engine(url)
    is_owned = engine is not target
    session = SqliteSession(engine, settings, owned=is_owned)
    backend = SqliteBackend(session, Seal.of(settings, is_embedded=True))
    with backend.session.reading() as connection:  # never on the user's pool, whose connections may all be in use
        if is_new and is_owned:
            _refuse_network_wal(path)
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        elif connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal":
            _refuse_network_wal(path)
        backend.session.remember_file(connection)
    backend.check()
    return backend


def _refuse_network_wal(path: Path) -> None:
    kind = file_system_of(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise ConfigError(
            f"{path} is on a network file system ({kind}), where SQLite's WAL mode corrupts files; "
            "use a local disk, or make the file yourself with PRAGMA journal_mode = DELETE"
        )


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The type of the file system that holds ``path``; None where the system does not tell."""
    if not mounts.exists():
        return None
    resolved = os.path.realpath(path)
    best, kind = "", None
    for line in mounts.read_text(errors="replace").splitlines():
        _, point, name, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if os.path.commonpath([resolved, point]) == point and len(point) >= len(best):
            best, kind = point, name
    return kind


class SqliteBackend(SqlBackend):
    """See `SqlBackend`."""

    session: SqliteSession
    capabilities = frozenset({Capability.SQL, Capability.TRANSACTIONS})
    _checked_schema: int | None = None

    def check(self) -> None:
        """See `Backend.check`. The tables are looked at when the schema has changed."""
        self.session.require_same_file()
        self.session.require_same_database()
        if self._schema() == self._checked_schema:
            return
        self.free_writes()
        self.session.forget_migration()
        self._checked_schema = self._schema()

    def _schema(self) -> int:
        with self.session.reading() as connection:
            return int(connection.exec_driver_sql("PRAGMA schema_version").scalar() or 0)

    def resolve(self, query: Any, fields: Fields, *, checked: bool = False) -> SqlSource:
        """Keys of any declaration are kept as the file has them: SQLite stores what it was given."""
        source = super().resolve(query, fields, checked=checked)
        declared = "SELECT name, type FROM pragma_table_xinfo(?, ?)"
        with self.session.reading() as connection:
            place = (source.actual.name, source.actual.schema or "main")
            texts = {row.name: row.type for row in connection.exec_driver_sql(declared, place)}
        for column in source.actual.primary_key:
            is_rowid = texts[column.name].upper() == "INTEGER"  # INT and BIGINT take text as well
            if not is_rowid and not isinstance(column.type, sa.String):
                column.type = Declared(texts[column.name])
        return source

    def follows_key(self, source: SqlSource, info: OutputInfo) -> bool:
        with self.session.reading() as connection:
            return is_followed(connection, source, info)

    def target(self, source: SqlSource, info: OutputInfo, version: int, *, exists: bool) -> SqliteTarget:
        made = SqliteSideTarget if isinstance(info.type, Items) else SqliteTarget
        return made(self.session, source, info, version, exists=exists)

    def feed(self, target: Target, reads: Sequence[str], watch: Watch) -> SqliteFeed:
        target = own_target(target, SqliteTarget)
        if target.source.actual.schema:
            raise UnsupportedTable(
                f"{target.info.table} is in an attached file, whose triggers cannot reach pinnacle's tables; "
                "open that file by itself"
            )
        if watch.replicated:
            raise ConfigError("replicated=True is for PostgreSQL: SQLite applies no changes of others")
        return SqliteFeed(self.session, target, reads, watch)

    def capture_drops(self, number: int) -> list[str]:
        return capture_drops(self.session, number)

    def captures(self, connection: sa.Connection) -> set[int]:
        return {number for _, _, number in own_triggers(connection)}

    def free_writes(self) -> None:
        take_broken_triggers_away(self.session)

    def lead(self, worker: str, ttl_s: float) -> str | None:
        """One worker a file: SQLite has one writer, and two would only wait for each other."""
        if not self.session.is_migrated():  # its tables were dropped by hand: there is nothing to work on
            return None
        mine = {
            "output_id": 0,
            "owner": worker,
            "process": this_process(),
            "expires_at": time.time() + ttl_s,
            "keys": "[]",
        }
        with self.session.writing() as connection:
            query = sa.select(lease.c.owner, lease.c.process, lease.c.expires_at).where(lease.c.id == "worker")
            found = connection.execute(query).first()
            if found is None:
                connection.execute(sa.insert(lease).values(id="worker", **mine))
                return None
            if found.owner == worker or found.expires_at < time.time() or is_gone(found.process):
                connection.execute(sa.update(lease).where(lease.c.id == "worker").values(mine))
                return None
            return shown(found.process)

    def wake(self) -> SqliteWake:
        return self.session.wake()


__all__ = ["SqliteBackend", "file_system_of", "open_sqlite"]
