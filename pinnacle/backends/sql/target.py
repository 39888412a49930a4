"""One output over one source on a SQL database: what the engine reads from and writes to."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa

from pinnacle.backends.protocol import Target
from pinnacle.backends.sql.columns import Encoder, Raw, apply, encoder
from pinnacle.backends.sql.inputs import Patched, require_decoded, walker
from pinnacle.backends.sql.queue import SqlQueue
from pinnacle.backends.sql.schema import error, has_traceback, state_table
from pinnacle.backends.sql.session import SqlSession
from pinnacle.backends.sql.source import SqlSource, Steps, key_tuple
from pinnacle.base import limits
from pinnacle.base.encoding import dump_key
from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.failpoints import failpoint
from pinnacle.base.refusals import of_another_database, require_newest
from pinnacle.base.rows import Failure, Key, OutputBatch, OutputInfo, Page, joined

KEYS_A_STATEMENT = 500
MIN_CHUNK_ROWS, MAX_CHUNK_ROWS = 100, 20_000


Own = TypeVar("Own", bound="SqlTarget")
Within = Callable[[Sequence[Any]], Any]
"""The bound of a read, as a condition on whichever key columns it is given."""


class SqlTarget(ABC):
    """See `Target`. Subclasses say how a page is compared and how a batch is written."""

    hold_share: ClassVar[float] = 1.0
    """How much of ``write_target_s`` one transaction may hold its locks for."""
    keys_a_read: ClassVar[int] = KEYS_A_STATEMENT

    def __init__(self, session: SqlSession, source: SqlSource, info: OutputInfo, version: int, *, exists: bool) -> None:
        self.session, self.source, self.info, self.version, self.exists = session, source, info, version, exists
        self.state = state_table(info.id, [source.actual.c[column.name] for column in source.key])
        self.queue = SqlQueue(session, info.id)
        self.width = len(source.key)
        self.state_key = [self.state.c[f"k{i}"] for i in range(self.width)]
        dialect = session.dialect
        self.column_type = self._stored_type()
        self.encode = encoder(self.column_type, dialect)
        self.decoders = [self._decoder(*place) for place in zip(source.inputs, source.steps, strict=True)]
        self._chunk_rows = 1000
        self._is_limited = source.is_limited
        self._chosen_keys: dict[Key, int] | None = None

    def _decoder(self, column: Any, steps: Steps) -> Encoder | None:
        """What makes the driver's values of a column inputs of the model."""
        return walker(self.session.columns.decoder(column.type), steps)

    def _stored_type(self) -> sa.types.TypeEngine[Any]:
        """How values are encoded: as the column made for the type, which an adopted one equals."""
        return self.session.columns.type_of(self.info.type)

    # -- reading --------------------------------------------------------------------------------

    def count(self) -> int:
        if self._is_limited:
            return len(self._chosen())
        with self.session.reading() as connection:
            return int(
                connection.scalar(sa.select(sa.func.count()).select_from(self.source.select(sa.literal(1)).subquery()))
                or 0
            )

    def read(self, after: Key | None, limit: int, *, overwrite: bool = False) -> Page:
        if self._is_limited:
            return self._read_chosen(after, limit, overwrite=overwrite)
        generation = self.queue.generation() if self.exists else 0
        with self.session.reading() as connection:
            with_state = self.exists and not overwrite and self._has_state_after(connection, after)
            within = None if after is None else partial(self._behind, after)
            rows = self._fetch(connection, self._page_select(within, limit, with_state=with_state))
        return self._page(rows, generation, with_state=with_state)

    def _has_state_after(self, connection: sa.Connection, after: Key | None) -> bool:
        """Whether any row behind ``after`` has bookkeeping; a first fill has none, and needs no join."""
        query = sa.select(sa.literal(1)).select_from(self.state).limit(1)
        if after is not None:
            query = query.where(self._behind(after, self.state_key))
        return connection.scalar(query) is not None

    def reread(self, keys: Sequence[Key], *, overwrite: bool = False) -> Page:
        with_state = self.exists and not overwrite
        generation = self.queue.generation() if self.exists else 0
        with self.session.reading() as connection:
            parts = self._parts(keys, self.keys_a_read)
            return joined([self._read_part(connection, part, generation, with_state=with_state) for part in parts])

    def _read_part(self, connection: sa.Connection, keys: Sequence[Key], generation: int, *, with_state: bool) -> Page:
        rows = self._fetch(connection, self._page_select(partial(self._among, keys), None, with_state=with_state))
        return self._page(rows, generation, with_state=with_state)

    def _chosen(self) -> dict[Key, int]:
        """The keys of a limited query, asked for once, in order: own writes would move its window."""
        if self._chosen_keys is None:
            with self.session.reading() as connection:
                rows = self._fetch(connection, self.source.select(*self.source.key).order_by(*self.source.key))
            self._chosen_keys = {key: position for position, key in enumerate(self._keys(rows))}
            self.source = self.source.everything()
        return self._chosen_keys

    def _read_chosen(self, after: Key | None, limit: int, *, overwrite: bool) -> Page:
        chosen = self._chosen()
        start = 0 if after is None else chosen[after] + 1
        keys = list(islice(chosen, start, start + limit))
        page = self.reread(keys, overwrite=overwrite)
        return replace(page, last=keys[-1] if keys else None)

    def _behind(self, after: Key, key: Sequence[Any]) -> Any:
        return key_tuple(key) > self._raw_literal(after)

    def _with_state(self, within: Within | None) -> Any:
        """The source's table with its bookkeeping beside it.

        The bound on the key is put on both sides: through an outer join PostgreSQL does not
        carry it over, and would read the bookkeeping from its start for every page.
        """
        on = [own == column for own, column in zip(self.state_key, self.source.key, strict=True)]
        if within is not None:
            on.append(within(self.state_key))
        return self.source.base.outerjoin(self.state, sa.and_(*on))

    def _raw_literal(self, key: Key) -> Any:
        if self.width == 1:
            return sa.literal(key, Raw())
        return sa.tuple_(*(sa.literal(part, Raw()) for part in key))

    def _fetch(
        self, connection: sa.Connection, statement: Any, parameters: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """The rows as the driver gives them, before SQLAlchemy's types touch them."""
        result = connection.execute(statement, parameters)
        try:
            return list(result.cursor.fetchall())
        finally:
            result.close()

    @abstractmethod
    def _page_select(self, within: Within | None, limit: int | None, *, with_state: bool) -> Any:
        """Keys and inputs, and with the state joined what freshness needs, in key order."""

    @abstractmethod
    def _page(self, rows: list[Any], generation: int, *, with_state: bool) -> Page:
        """Split fresh rows from rows that need work."""

    def _inputs(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Model inputs of raw rows: the bare value for one field, else tuples."""
        width, count = self.width, len(self.decoders)
        if count == 1:
            return apply(self.decoders[0], [row[width] for row in rows])
        if not any(self.decoders):
            return [row[width : width + count] for row in rows]
        columns = [apply(d, [row[width + i] for row in rows]) for i, d in enumerate(self.decoders)]
        return list(zip(*columns, strict=True))

    def _readable(self, rows: Sequence[Any]) -> tuple[Sequence[Any], dict[int, Exception]]:
        """Model inputs of raw rows, all of them at once; where that fails row by row, with what was raised by
        position."""
        if isinstance(rows, Patched):
            return self._one_by_one(rows)
        try:
            return self._inputs(rows), {}
        except Exception:  # of one row at least, which is searched for
            return self._one_by_one(rows)

    def _one_by_one(self, rows: Sequence[Any]) -> tuple[list[Any], dict[int, Exception]]:
        inputs: list[Any] = []
        errors: dict[int, Exception] = {}
        for position, row in enumerate(rows):
            try:
                require_decoded(row[self.width : self.width + len(self.decoders)])
                inputs.append(self._inputs([row])[0])
            except Exception as error:  # the unit of work: one row, which is set aside
                inputs.append(None)
                errors[position] = error
        return inputs, errors

    def _keys(self, rows: Sequence[Any]) -> list[Key]:
        if self.width == 1:
            return [row[0] for row in rows]
        return [tuple(row[: self.width]) for row in rows]

    # -- rows that are not there any more ---------------------------------------------------------

    def absent(self, keys: Sequence[Key]) -> tuple[list[Key], list[Key]]:
        everything, chosen = self._present(keys, self.source.everything()), self._present(keys, self.source)
        return [k for k in keys if k not in everything], [k for k in keys if k in everything and k not in chosen]

    def _present(self, keys: Sequence[Key], source: SqlSource) -> set[Key]:
        found: set[Key] = set()
        with self.session.reading() as connection:
            for part in self._parts(keys, self.keys_a_read):
                statement = source.select(*source.key).where(self._among(part, source.key))
                found.update(self._keys(self._fetch(connection, statement)))
        return found

    def forget(self, keys: Sequence[Key]) -> None:
        gone = sa.not_(sa.exists().where(self._same_row()))
        with self.session.writing() as connection:
            for part in self._parts(keys):
                connection.execute(sa.delete(self.state).where(self._among(part, self.state_key), gone))
            failpoint("in-forget")
            self._clear_errors(connection, keys)

    def blank(self, keys: Sequence[Key]) -> list[Key]:
        """Where the row still is not selected: the output is NULL, and nothing is recorded of it.

        Rows are locked first, in key order, and those that are locked are left: a statement
        that waits with locks in hand may meet a user's transaction that waits for these.
        """
        base, names = self.source.base, [column.name for column in self.source.key]
        table = sa.table(base.name, *map(sa.column, [*names, self.info.name]), schema=base.schema)
        key = [table.c[name] for name in names]
        unmatched = key_tuple(key).not_in(self.source.select(*self.source.key))
        settled: set[Key] = set()
        for part in self._parts(keys):
            with self.session.writing_as(self.info.id) as connection:
                free = sa.select(*key).where(self._among(part, key)).order_by(*key)
                locked = self._keys(
                    self._fetch(connection, free.with_for_update(key_share=True, skip_locked=True, of=table))
                )
                settled.update(locked)
                blanked = sa.update(table).where(self._among(locked, key), unmatched)
                statement = blanked.values({self.info.name: sa.null()}).returning(*key)
                done = self._keys(self._fetch(connection, statement))
                connection.execute(sa.delete(self.state).where(self._among(done, self.state_key)))
        return [each for each in keys if each not in settled]

    def _stored_column(self) -> Any:
        return sa.sql.expression.ColumnClause(self.info.name, self.column_type, _selectable=self.source.base)

    def _same_row(self) -> Any:
        return sa.and_(*(own == column for own, column in zip(self.source.key, self.state_key, strict=True)))

    def orphans(self, after: Key | None, last: Key | None, *, selected: bool) -> list[Key]:
        source = self.source if selected else self.source.everything()
        there = source.select(sa.literal(1)).where(self._same_row()).correlate(self.state).exists()
        query = sa.select(*self.state_key).where(sa.not_(there)).order_by(*self.state_key)
        if after is not None:
            query = query.where(self._behind(after, self.state_key))
        if last is not None:
            query = query.where(sa.not_(self._behind(last, self.state_key)))
        with self.session.reading() as connection:
            return self._keys(self._fetch(connection, query))

    def _parts(self, keys: Sequence[Key], size: int = KEYS_A_STATEMENT) -> Iterator[Sequence[Key]]:
        for start in range(0, len(keys), size):
            yield keys[start : start + size]

    def _among(self, keys: Sequence[Key], key: Sequence[Any]) -> Any:
        """The bound of a read: these keys alone. One parameter of the statement, which expands when it
        runs: made of an object a key, statements would take longer to build than to run."""
        if self.width == 1:
            return key[0].in_(sa.bindparam(None, list(keys), Raw(), unique=True, expanding=True))
        return sa.tuple_(*key, types=[Raw()] * self.width).in_(list(keys))

    # -- leases -----------------------------------------------------------------------------------

    def claim(self, owner: str, page: Page, done: Sequence[str], ttl_s: float) -> tuple[str, Sequence[int], bool]:
        return self.queue.claim(owner, page, done, ttl_s)

    def renew(self, owner: str, ttl_s: float) -> None:
        self.queue.renew(owner, ttl_s)

    def release(self, owner: str) -> None:
        self.queue.release(owner)

    # -- writing ------------------------------------------------------------------------------------

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        return self.info.type.check_all(values)

    def prepare(self, batch: OutputBatch) -> OutputBatch:
        """The batch with its outputs encoded in ``prepared``; ``outputs`` stay as they are."""
        return replace(batch, prepared=apply(self.encode, batch.outputs))

    def write(self, batch: OutputBatch) -> Sequence[int]:
        """Write in transactions whose size follows their measured duration."""
        if batch.prepared is None:
            batch = self.prepare(batch)
        unwritten: list[int] = []
        start = 0
        while start < len(batch.keys):
            stop = min(len(batch.keys), start + self._chunk_rows)
            missed, seconds = self._write_chunk(batch, start, stop)
            unwritten.extend(start + i for i in missed)
            if seconds is not None:
                self._adapt(stop - start, seconds)
            start = stop
        return unwritten

    def _adapt(self, rows: int, seconds: float) -> None:
        """Steer the transaction size towards the target duration, smoothed and at most twofold."""
        target_s = self.session.settings.write_target_s * self.hold_share
        if rows < self._chunk_rows and seconds < target_s:
            return  # a small last part says nothing about a full one
        fitting = rows * target_s / max(seconds, 1e-6)
        aim = min(2.0 * self._chunk_rows, max(0.5 * self._chunk_rows, fitting))
        self._chunk_rows = int(min(MAX_CHUNK_ROWS, max(MIN_CHUNK_ROWS, (self._chunk_rows + aim) / 2)))

    @abstractmethod
    def _write_chunk(self, batch: OutputBatch, start: int, stop: int) -> tuple[Sequence[int], float | None]:
        """One transaction over a part of a prepared batch.

        Returns the part's positions not written, and the seconds that rows were locked for, if known.
        """

    def _require_newest(self, found: int | None) -> None:
        """Raise unless the output, whose version a write has ``found``, is there and not of a newer model."""
        require_newest(self.info, self.version, found)

    def _clear_errors(self, connection: sa.Connection, keys: Sequence[Key]) -> None:
        texts = [dump_key(key) for key in keys]
        connection.execute(sa.delete(error).where(error.c.output_id == self.info.id, error.c.key.in_(texts)))

    def fail(self, failures: Sequence[Failure]) -> None:
        with self.session.writing() as connection:
            self._note_failures(connection, self._mark_failed(connection, failures))
            self._bound_tracebacks(connection)

    def _note_failures(self, connection: sa.Connection, failures: Sequence[Failure]) -> None:
        """Put failures in the place of those that are known of the same rows."""
        now = time.time()
        for failure in failures:
            key = dump_key(failure.key)
            connection.execute(sa.delete(error).where(error.c.output_id == self.info.id, error.c.key == key))
            connection.execute(
                sa.insert(error).values(
                    output_id=self.info.id, key=key, version=self.version, error=failure.error,
                    message=self.session.storable(failure.message), traceback=self.session.storable(failure.traceback),
                    attempts=failure.attempts, failed_at=now,
                )
            )  # fmt: skip

    def _bound_tracebacks(self, connection: sa.Connection) -> None:
        """Take the tracebacks of all but the newest errors away; an index has those that there are."""
        c = error.c
        traced = sa.select(c.key).where(c.output_id == self.info.id, has_traceback(c.traceback))
        older = traced.order_by(c.failed_at.desc(), c.key).offset(limits.MAX_TRACEBACKS)
        found = connection.scalars(older.with_for_update(skip_locked=True)).all()
        for part in self._parts(found):
            mine = c.output_id == self.info.id, c.key.in_(part)
            connection.execute(sa.update(error).where(*mine).values(traceback=""))

    @abstractmethod
    def _mark_failed(self, connection: sa.Connection, failures: Sequence[Failure]) -> Sequence[Failure]:
        """Set aside the rows whose inputs are still those that failed; return these."""


def own_target(target: Target, kind: type[Own]) -> Own:
    """A target as this database bound it."""
    if not isinstance(target, kind):
        raise of_another_database(target)
    return target
