"""The tortured table on SQLite and PostgreSQL: rows, a user's statements, and a snapshot with pinnacle's verdict."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from benchmarks.torture_verdict import Look, Row
from benchmarks.torture_writer import MANY, Change
from pinnacle.backends.open import open_backend
from pinnacle.backends.sql.listeners import ATTENDANCE
from pinnacle.base.rows import OutputInfo, OutputSpec
from pinnacle.base.settings import Settings
from pinnacle.db import Database

COLUMNS = "id, body, lang, votes"
EVERYTHING = 1_000_000
BUSY_TIMEOUT_S = 30.0
INSERT = f"INSERT INTO tickets ({COLUMNS}) VALUES (:key, :text, :language, 0)"
MANY_KEYS = "SELECT id FROM tickets WHERE id >= :key ORDER BY id LIMIT :many"
STATEMENTS = {
    "insert": INSERT,
    "update": "UPDATE tickets SET body = :text WHERE id = :key",
    "many": f"UPDATE tickets SET body = :text || ' ' || id WHERE id IN ({MANY_KEYS})",
    "noop": "UPDATE tickets SET body = body WHERE id = :key",
    "unrelated": "UPDATE tickets SET votes = votes + 1 WHERE id = :key",
    "null": "UPDATE tickets SET body = NULL WHERE id = :key",
    "delete": "DELETE FROM tickets WHERE id = :key",
    "move": "UPDATE tickets SET id = :to WHERE id = :key RETURNING body",
    "upsert": f"{INSERT} ON CONFLICT (id) DO UPDATE SET body = excluded.body, lang = excluded.lang",
    "replace": f"INSERT OR REPLACE INTO tickets ({COLUMNS}) SELECT {COLUMNS} FROM tickets WHERE id = :key "
    "RETURNING body",
    "language": "UPDATE tickets SET lang = CASE lang WHEN 'en' THEN 'de' ELSE 'en' END WHERE id = :key RETURNING body",
    "overwrite summary": "UPDATE tickets SET summary = :text WHERE id = :key RETURNING body",
    "blank summary": "UPDATE tickets SET summary = NULL WHERE id = :key RETURNING body",
    "overwrite headline": "UPDATE tickets SET headline = :text WHERE id = :key RETURNING body",
    "save old": "UPDATE tickets SET body = :text, summary = :text, headline = :text WHERE id = :key",
}
"""What returns a body takes its outputs away, or their rows."""


tickets = sa.table("tickets", sa.column("id"), sa.column("body"), sa.column("lang"), sa.column("summary"))


def everything() -> sa.Select[Any]:
    return sa.select(tickets.c.id)


def in_language(language: str) -> sa.Select[Any]:
    return sa.select(tickets.c.id).where(tickets.c.lang == language)


def create(url: str, texts: Sequence[str]) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE tickets (id INTEGER PRIMARY KEY, body TEXT, lang TEXT NOT NULL, votes INTEGER NOT NULL)"
        )
        rows = [{"key": key, "text": text, "language": "en" if key % 3 else "de"} for key, text in enumerate(texts, 1)]
        connection.execute(sa.text(INSERT), rows)


class SqlWrites:
    """See `Writes`."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, pool_size=1)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        if self._is_sqlite:
            self._engine = sa.create_engine(url, pool_size=1, connect_args={"timeout": BUSY_TIMEOUT_S})
            sa.event.listen(self._engine, "connect", _begin_by_hand)
            sa.event.listen(self._engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))

    def run(self, changes: Sequence[Change], *, commits: bool, pause_s: float) -> list[str]:
        excused: list[str] = []
        with self._engine.connect() as connection, connection.begin() as transaction:
            for change in changes:
                excused += [body for body in self._run(connection, change) if body is not None]
            time.sleep(pause_s)
            if not commits:
                transaction.rollback()
        return excused

    def empty(self) -> None:
        with self._engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM tickets" if self._is_sqlite else "TRUNCATE tickets")

    def _run(self, connection: sa.Connection, change: Change) -> list[str | None]:
        values = {
            "key": change.key, "to": change.to, "text": change.text, "language": change.language, "many": MANY,
        }  # fmt: skip
        statement = STATEMENTS[change.kind]
        if change.kind == "replace" and not self._is_sqlite:
            return self._replace(connection, change.key)
        if change.kind == "many" and not self._is_sqlite:
            statement = statement.replace(":many", ":many FOR UPDATE").replace(":text", "CAST(:text AS text)")
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        result = connection.execute(sa.text(statement), used)
        return list(result.scalars()) if result.returns_rows else []

    def _replace(self, connection: sa.Connection, key: int) -> list[str | None]:
        """Delete a row and insert it again without what pinnacle has added."""
        found = connection.execute(sa.text(f"DELETE FROM tickets WHERE id = :key RETURNING {COLUMNS}"), {"key": key})
        rows = [dict(row) for row in found.mappings()]
        for row in rows:
            connection.execute(sa.text(f"INSERT INTO tickets ({COLUMNS}) VALUES (:id, :body, :lang, :votes)"), row)
        return [row["body"] for row in rows]


def _begin_by_hand(connection: Any, record: Any) -> None:
    connection.isolation_level = None


class SqlSight:
    """One listener's rows as a transaction sees them, and what pinnacle itself says of them in the same transaction."""

    def __init__(self, url: str, output: str, language: str | None) -> None:
        self._backend: Any = open_backend(url, Settings())
        info: OutputInfo = next(info for info in self._backend.outputs.all() if info.name == output)
        source = self._backend.resolve(in_language(language) if language else everything(), info.fields)
        spec = OutputSpec(name=info.name, type=info.type, model=info.model, version=info.version, fields=info.fields)
        self._target = self._backend.bind(source, spec, create=False)
        is_sqlite = self._backend.session.dialect.name == "sqlite"
        self._begin = "BEGIN" if is_sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

    def look(self) -> Look:
        with self._backend.session.reading() as connection:
            connection.exec_driver_sql(self._begin)
            try:
                with patch.object(self._backend.session, "reading", lambda: nullcontext(connection)):
                    page = self._target.read(None, EVERYTHING)
                rows = rows_of(connection)
            finally:
                connection.exec_driver_sql("ROLLBACK")
        return Look(rows, set(page.keys), page.read, page.set_aside)

    def orphans(self) -> list[Any]:
        return list(self._target.orphans(None, None, selected=True))

    def close(self) -> None:
        self._backend.close()


def rows_of(connection: sa.Connection) -> dict[Any, Row]:
    found = connection.exec_driver_sql("SELECT id, body, lang, summary, headline FROM tickets")
    return {key: Row(*values) for key, *values in found}


def leftovers(db: Database) -> dict[str, int]:
    """What must be 0 once nothing is left to do, by name."""
    with db.engine.connect() as connection:
        names = sa.inspect(connection).get_table_names(schema=None if _is_sqlite(db) else "pinnacle")
        prefix = "" if _is_sqlite(db) else "pinnacle."
        kept = [name for name in names if name.startswith(("pinnacle_outbox_", "pinnacle_work_"))]
        counts = {name: connection.exec_driver_sql(f"SELECT count(*) FROM {prefix}{name}").scalar() for name in kept}
        leases = f"SELECT count(*) FROM {prefix}pinnacle_lease WHERE id <> 'worker' AND id NOT LIKE '{ATTENDANCE}%%'"
        counts["pinnacle_lease"] = connection.exec_driver_sql(leases).scalar()
        if not _is_sqlite(db):
            deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            counts["deadlocks"] = connection.exec_driver_sql(deadlocks).scalar()
    return {name: int(count or 0) for name, count in counts.items()}


def final_rows(db: Database) -> dict[Any, Row]:
    with db.engine.connect() as connection:
        return rows_of(connection)


def _is_sqlite(db: Database) -> bool:
    return bool(db.engine.dialect.name == "sqlite")
