"""Connections that take their settings along with each transaction, and leave none of them behind.

The pool may be the user's own, or one that stands between us and the server: what is SET on
its sessions outlives us, and the application's own statements would run under it. So BEGIN
brings the settings of its transaction, and a statement that is a transaction of its own
comes with them in one pipeline: neither takes a round trip more than without.
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa

from pinnacle.base.types import PackedArray

ALWAYS = {"row_security": "off", "extra_float_digits": "1"}
"""Hidden rows are an error, not absent, and numbers travel whole, whatever the role's or the database's settings."""
PLANNED = {**ALWAYS, "plan_cache_mode": "force_custom_plan"}
"""Statements are planned for the keys they are given: a plan for any number of keys is one for few, and takes the
square of their number in time."""
LOCK_TIMEOUT_MS = 20
WRITING = {
    **ALWAYS, "enable_mergejoin": "off", "enable_hashjoin": "off", "lock_timeout": f"{LOCK_TIMEOUT_MS}ms",
}  # fmt: skip
"""A batch is joined to its table by nested loops: a merge join would read the table's index from its start for every
batch. Who meets a lock leaves soon, before PostgreSQL looks for deadlocks, so that it is never the user's transaction
that is aborted."""

RESTED_S = 5.0
"""After so long without use, a connection is asked whether it still is one."""

STALE_PLAN = "RevalidateCachedQuery"
"""The server's function that refuses a prepared statement whose columns have got other types since."""

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
COMMIT = "COMMIT"
"""As the last statement of a pipeline: psycopg's own method has the server end the pipeline twice."""


def begin_parts(settings: Mapping[str, str]) -> list[str]:
    """The same as statements that go into a pipeline one by one."""
    return [BEGIN, f"SELECT {_chosen(settings)}"]


def _chosen(settings: Mapping[str, str]) -> str:
    return ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())


def begin(settings: Mapping[str, str]) -> str:
    """The statements that begin a transaction with these settings, sent as one."""
    return "; ".join([BEGIN, *(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())])


def prepare_pool(pool: sa.Pool, settings: Mapping[str, str]) -> None:
    """Have all connections of a pool run under ``settings``, until it closes them: by then they are as they were.

    How dates are written is a matter of the session, as psycopg asks for it when it reads them. Where
    that is not ISO, it is so for as long as the connection is ours.
    """

    def take(connection: Any, record: Any) -> None:
        record.info["pinnacle_threshold"] = connection.prepare_threshold
        prepare_nothing_behind_a_pooler(connection, record)
        record.info["pinnacle_cursor"] = connection.cursor_factory
        style = connection.pgconn.parameter_status(b"DateStyle").decode()
        if not style.startswith("ISO"):
            record.info["pinnacle_style"] = style
            _set(connection, "SET datestyle = 'ISO'")
        connection.cursor_factory = _cursor_type(tuple(settings.items()))
        connection.adapters.register_dumper(PackedArray, _packed_dumper())

    def give_back(connection: Any, record: Any) -> None:
        if "pinnacle_cursor" not in record.info or connection.closed:
            return
        connection.cursor_factory = record.info.pop("pinnacle_cursor")
        connection.prepare_threshold = record.info.pop("pinnacle_threshold")
        style = record.info.pop("pinnacle_style", None)
        if style is not None:
            _set(connection, "RESET datestyle")
            if connection.pgconn.parameter_status(b"DateStyle").decode() != style:
                _set(connection, f"SET datestyle = '{style}'")

    sa.event.listen(pool, "connect", take)
    sa.event.listen(pool, "close", give_back)


def keep_alive(pool: sa.Pool, dialect: sa.Dialect) -> None:
    """Have a pool replace a connection that the server has closed since it was last used.

    One that was used just now is asked nothing: whether the server has closed it, its socket tells. One that has
    rested is pinged, as what stands between us and the server may have forgotten it.
    """

    def check(connection: Any, record: Any, proxy: Any) -> None:
        used_at = record.info.get("pinnacle_used_at", float("-inf"))
        if time.monotonic() - used_at < RESTED_S and not _has_news(connection.pgconn.socket):
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise sa.exc.DisconnectionError("the server closed the connection") from error

    def note(connection: Any, record: Any) -> None:
        record.info["pinnacle_used_at"] = time.monotonic()

    sa.event.listen(pool, "connect", note)
    sa.event.listen(pool, "checkin", note)
    sa.event.listen(pool, "checkout", check)


def _has_news(socket: int) -> bool:
    """Whether the server sent something that nobody waits for: that it closes the connection, as a rule."""
    news = select.poll()
    news.register(socket, select.POLLIN)
    return bool(news.poll(0))


def is_pooled(connection: Any) -> bool:
    """Whether a pooler stands between: another process answers than the one that was told of at the connect."""
    was_autocommit = connection.autocommit
    connection.autocommit = True
    answering = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    connection.autocommit = was_autocommit
    return bool(answering != connection.info.backend_pid)


def prepare_nothing_behind_a_pooler(connection: Any, record: Any) -> None:
    """For a pool's "connect": the next transaction may be another server process's, which knows none of what was
    prepared."""
    if is_pooled(connection):
        connection.prepare_threshold = None


def forget_plans(connection: Any) -> None:
    """Have the statements that are prepared on a connection be planned anew."""
    from psycopg import Cursor

    Cursor(connection).execute("DEALLOCATE ALL")


def _set(connection: Any, statement: str) -> None:
    connection.execute(statement)
    connection.commit()


@cache
def _cursor_type(settings: tuple[tuple[str, str], ...]) -> type[Any]:
    """A psycopg cursor that sends settings ahead of each statement outside a transaction, which then are one."""
    from psycopg import Cursor
    from psycopg.errors import FeatureNotSupported
    from psycopg.pq import TransactionStatus

    chosen = _chosen(dict(settings))

    class SettingsCursor(Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            is_within = self.connection.pgconn.transaction_status != TransactionStatus.IDLE
            if is_within or (isinstance(query, str) and query.startswith("BEGIN ")):
                return super().execute(query, params, **options)
            try:
                self._send(query, params, options)
            except FeatureNotSupported as error:
                if error.diag.source_function != STALE_PLAN:
                    raise
                forget_plans(self.connection)
                self._send(query, params, options)
            return self

        def _send(self, query: Any, params: Any, options: Any) -> None:
            with self.connection.pipeline():
                Cursor(self.connection).execute(f"SELECT {chosen}")
                super().execute(query, params, **options)

    return SettingsCursor


@cache
def _packed_dumper() -> type[Any]:
    """A psycopg dumper that sends arrays as they are packed; their type is that of the statement's cast."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class PackedDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: PackedArray) -> bytes:
            return bytes(obj)

    return PackedDumper
