"""SQLite: opening the file, its one writer, and the column types it has."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from pinnacle.backends.protocol import Capability, Target
from pinnacle.backends.sql.backend import SqlBackend, wrapped_errors
from pinnacle.backends.sql.columns import Declared
from pinnacle.backends.sql.schema import lease
from pinnacle.backends.sql.source import SqlSource
from pinnacle.backends.sql.target import own_target
from pinnacle.backends.sqlite.changes import TRIGGERS, SqliteFeed, trigger_name
from pinnacle.backends.sqlite.target import SqliteSideTarget, SqliteTarget
from pinnacle.backends.sqlite.wake import SqliteWake
from pinnacle.base.errors import BackendError, ConfigError, RowRejected, UnsupportedTable
from pinnacle.base.listeners import Watch
from pinnacle.base.processes import is_gone, shown, this_process
from pinnacle.base.rows import Fields, OutputInfo
from pinnacle.base.settings import Settings
from pinnacle.base.types import Items, OutputType, SqliteColumn

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "9p"}
)
BUSY_TIMEOUT_MS = 30_000


def open_sqlite(target: sa.Engine | sa.URL, settings: Settings) -> SqliteBackend:
    """Open a SQLite file by engine or URL; a file that does not exist is made in WAL mode."""
    url = target.url if isinstance(target, sa.Engine) else target
    if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
        raise ConfigError(
            "an in-memory SQLite database cannot be shared between the threads and processes of a run; "
            "use a file, for example sqlite:///docs.db"
        )
    path = Path(url.database.removeprefix("file:").split("?")[0])
    is_new = not path.exists() or path.stat().st_size == 0
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be made: there is no directory {path.parent}")
    engine = target if isinstance(target, sa.Engine) else sa.create_engine(url)
    is_owned = engine is not target
    backend = SqliteBackend(engine, settings, owned=is_owned)
    with backend.reading() as connection:  # never on the user's pool, whose connections may all be in use
        if is_new and is_owned:
            _refuse_network_wal(path)
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        elif connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal":
            _refuse_network_wal(path)
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
    """See `SqlBackend`. Every write transaction is BEGIN IMMEDIATE: one that begins as a
    reader fails at once when another process commits in between."""

    name: ClassVar[str] = "sqlite"
    schema: ClassVar[str | None] = None
    capabilities = frozenset({Capability.SQL, Capability.TRANSACTIONS})

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

    def column_of(self, output: OutputType) -> SqliteColumn:
        return output.on_sqlite()

    def resolve(self, query: Any, fields: Fields, *, checked: bool = False) -> SqlSource:
        """Keys of any declaration are kept as the file has them: SQLite stores what it was given."""
        source = super().resolve(query, fields, checked=checked)
        declared = "SELECT name, type FROM pragma_table_xinfo(?, ?)"
        with self.reading() as connection:
            place = (source.actual.name, source.actual.schema or "main")
            texts = {row.name: row.type for row in connection.exec_driver_sql(declared, place)}
        for column in source.actual.primary_key:
            if not isinstance(column.type, (sa.Integer, sa.String)):
                column.type = Declared(texts[column.name])
        return source

    def is_strict(self, table: sa.Table) -> bool:
        """Whether the table takes only SQLite's own type names (CREATE TABLE ... STRICT)."""
        query = "SELECT strict FROM pragma_table_list(?) WHERE schema = ?"
        with self.reading() as connection:
            return bool(connection.exec_driver_sql(query, (table.name, table.schema or "main")).scalar())

    def column_declaration(self, output: OutputType, table: sa.Table) -> str:
        if self.is_strict(table):
            return self.column_of(output).strict
        return super().column_declaration(output, table)

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
            except BaseException:
                raw.rollback()
                raise

    def target(self, source: SqlSource, info: OutputInfo, version: int, *, exists: bool) -> SqliteTarget:
        made = SqliteSideTarget if isinstance(info.type, Items) else SqliteTarget
        return made(self, source, info, version, exists=exists)

    def feed(self, target: Target, reads: Sequence[str], watch: Watch) -> SqliteFeed:
        target = own_target(target, SqliteTarget)
        if target.source.actual.schema:
            raise UnsupportedTable(
                f"{target.info.table} is in an attached file, whose triggers cannot reach pinnacle's tables; "
                "open that file by itself"
            )
        if watch.replicated:
            raise ConfigError("replicated=True is for PostgreSQL: SQLite applies no changes of others")
        return SqliteFeed(self, target, reads, watch)

    def capture_drops(self, number: int) -> list[str]:
        return [f"DROP TRIGGER IF EXISTS {self.quote(trigger_name(number, kind))}" for kind in TRIGGERS]

    def lead(self, worker: str, ttl_s: float) -> str | None:
        """One worker a file: SQLite has one writer, and two would only wait for each other."""
        mine = {"output_id": 0, "run": worker, "owner": this_process(), "expires_at": time.time() + ttl_s, "keys": "[]"}
        with self.writing() as connection:
            query = sa.select(lease.c.run, lease.c.owner, lease.c.expires_at).where(lease.c.id == "worker")
            found = connection.execute(query).first()
            if found is None:
                connection.execute(sa.insert(lease).values(id="worker", **mine))
                return None
            if found.run == worker or found.expires_at < time.time() or is_gone(found.owner):
                connection.execute(sa.update(lease).where(lease.c.id == "worker").values(mine))
                return None
            return shown(found.owner)

    def wake(self) -> SqliteWake:
        return SqliteWake(self._work)


def _prepare(connection: Any, record: Any) -> None:
    """Set up each of pinnacle's own connections; the application's are left alone."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA temp_store = MEMORY")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


__all__ = ["SqliteBackend", "file_system_of", "open_sqlite"]
