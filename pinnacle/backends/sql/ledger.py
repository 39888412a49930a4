"""What model calls cost, the cache of paid results, and the batches that providers work on, for every SQL database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql import schema
from pinnacle.backends.sql.records import usage_row
from pinnacle.backends.sql.session import SqlSession
from pinnacle.base import limits
from pinnacle.base.failpoints import failpoint
from pinnacle.base.usage import BatchJob, TrimSchedule, UsageRow, merged, newest_first, portions

MAX_LOOKED_UP = 1_000
"""Digests in one statement: every database has a limit on parameters."""


class SqlLedger:
    """The tables usage, cache and batch of one database; made when something is first put into them."""

    def __init__(self, session: SqlSession) -> None:
        self._session, self._trims = session, TrimSchedule()

    # -- usage ------------------------------------------------------------------------------

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        """See `Ledger.add_usage`. One transaction."""
        if not rows:
            return
        self._session.migrate()
        with self._session.writing() as connection:
            self._upsert(connection, schema.usage, [asdict(row) for row in merged(rows)], adds=True)

    def usage(self, model: str | None = None) -> list[UsageRow]:
        if not self._session.is_migrated():
            return []
        query = sa.select(schema.usage)
        if model is not None:
            query = query.where(schema.usage.c.model == model)
        with self._session.reading() as connection:
            return newest_first(map(usage_row, connection.execute(query).mappings()))

    # -- the cache of paid results ----------------------------------------------------------

    def cached(self, digests: Sequence[bytes]) -> dict[bytes, str]:
        if not digests or not self._session.is_migrated():
            return {}
        c = schema.cache.c
        found: dict[bytes, str] = {}
        with self._session.reading() as connection:
            for some in _looked_up(digests):
                query = sa.select(c.digest, c.value).where(c.digest.in_(some), c.expires_at > time.time())
                found |= {bytes(digest): value for digest, value in connection.execute(query)}
        return found

    def cache(self, entries: Mapping[bytes, str], ttl_s: float) -> None:
        """See `Ledger.cache`. Commits portion by portion."""
        if entries:
            self._session.migrate()
        for portion in portions(entries):
            now = time.time()
            rows = [
                {"digest": digest, "cached_at": now, "expires_at": now + ttl_s, "value": self._storable(value)}
                for digest, value in portion
            ]
            with self._session.writing() as connection:
                self._upsert(connection, schema.cache, rows)
            if allowed := self._trims.due(len(portion)):
                self._trim(allowed)

    def _storable(self, value: str) -> str:
        """JSON text, all in ASCII where the database has no form for a character of it."""
        return value if self._session.storable(value) == value else json.dumps(json.loads(value))

    def clear_cache(self) -> None:
        if self._session.is_migrated():
            with self._session.writing() as connection:
                connection.execute(sa.delete(schema.cache))

    def _trim(self, allowed: int) -> None:
        """Delete up to ``allowed`` entries that have expired, and as many that are one too many."""
        c = schema.cache.c
        with self._session.writing(durable=False) as connection:
            _delete(connection, sa.select(c.digest).where(c.expires_at <= time.time()).limit(allowed))
            kept = connection.scalar(sa.select(sa.func.count()).select_from(schema.cache)) or 0
            if kept > limits.MAX_CACHE_ENTRIES:
                excess = min(allowed, kept - limits.MAX_CACHE_ENTRIES)
                _delete(connection, sa.select(c.digest).order_by(c.cached_at, c.digest).limit(excess))

    # -- batches ----------------------------------------------------------------------------

    def save_batch(self, job: BatchJob) -> None:
        row = {**asdict(job), "items": json.dumps(job.items)}
        row["output_id"] = row.pop("output")
        self._session.migrate()
        with self._session.writing() as connection:
            self._upsert(connection, schema.batch, [row])

    def batches(self, output: int) -> list[BatchJob]:
        if not self._session.is_migrated():
            return []
        c = schema.batch.c
        query = sa.select(schema.batch).where(c.output_id == output).order_by(c.created_at, c.id)
        with self._session.reading() as connection:
            return [_job(row) for row in connection.execute(query)]

    def delete_batch(self, batch: str) -> bool:
        if not self._session.is_migrated():
            return False
        with self._session.writing() as connection:
            return _delete_batch(connection, batch)

    def book_batch(self, batch: str, rows: Sequence[UsageRow]) -> bool:
        """See `Ledger.book_batch`. One transaction."""
        if not self._session.is_migrated():
            return False
        with self._session.writing() as connection:
            is_there = _delete_batch(connection, batch)
            failpoint("in-book")
            if is_there and rows:
                self._upsert(connection, schema.usage, [asdict(row) for row in merged(rows)], adds=True)
        return is_there

    def _upsert(
        self, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], *, adds: bool = False
    ) -> None:
        """Insert rows; those that are there are replaced, or with ``adds`` have the new numbers added to theirs."""
        quote, keys = self._session.quote, [column.name for column in table.primary_key]
        names = [column.name for column in table.columns]
        new = {name: f"excluded.{quote(name)}" for name in names if name not in keys}
        if adds:
            new = {name: f"{quote(table.name)}.{quote(name)} + {added}" for name, added in new.items()}
        statement = (
            f"INSERT INTO {self._session.own(table.name)} ({', '.join(map(quote, names))}) "
            f"VALUES ({', '.join(f':{name}' for name in names)}) "
            f"ON CONFLICT ({', '.join(map(quote, keys))}) DO UPDATE SET "
            + ", ".join(f"{quote(name)} = {value}" for name, value in new.items())
        )
        connection.execute(sa.text(statement), rows)


def _looked_up(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(digests), MAX_LOOKED_UP):
        yield digests[start : start + MAX_LOOKED_UP]


def _delete(connection: sa.Connection, chosen: sa.Select[tuple[bytes]]) -> None:
    """Delete the chosen entries, but for those that another process is at: two never wait for each other."""
    doomed = chosen.with_for_update(skip_locked=True).cte("doomed")
    connection.execute(sa.delete(schema.cache).where(schema.cache.c.digest.in_(sa.select(doomed.c.digest))))


def _delete_batch(connection: sa.Connection, batch: str) -> bool:
    return connection.execute(sa.delete(schema.batch).where(schema.batch.c.id == batch)).rowcount > 0


def _job(row: Any) -> BatchJob:
    items = tuple((key, digest) for key, digest in json.loads(row.items))
    return BatchJob(
        id=row.id,
        output=row.output_id,
        model=row.model,
        version=row.version,
        parameters=row.parameters,
        created_at=row.created_at,
        items=items,
    )
