"""Reads and writes one output on PostgreSQL.

Hashes are made in SQL over the binary form of the values (``record_send``), which no
session setting changes. A batch travels as arrays and is written by one statement that
updates the rows whose inputs still hash the same, records them, and returns the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pinnacle.backends.sql.schema import error, output
from pinnacle.backends.sql.source import SqlSource
from pinnacle.backends.sql.target import SqlTarget, Within
from pinnacle.base.encoding import dump_key
from pinnacle.base.errors import Conflict
from pinnacle.base.rows import Failure, Key, OutputBatch, OutputInfo, Page
from pinnacle.base.types import Json, Vector, dump_json

if TYPE_CHECKING:
    from pinnacle.backends.postgres.backend import PostgresBackend

FIRST_CUSTOM_OID = 16384
NEEDS_WORK, FRESH, SET_ASIDE, MISSING = 0, 1, 2, -1


class PostgresTarget(SqlTarget):
    """See `SqlTarget`. A page's witnesses are the hashes of its inputs."""

    backend: PostgresBackend

    def __init__(
        self, backend: PostgresBackend, source: SqlSource, info: OutputInfo, version: int, *, exists: bool
    ) -> None:
        super().__init__(backend, source, info, version, exists=exists)
        self.encode = None  # psycopg takes Python's own values; `_encode_outputs` does the rest
        with backend.reading() as connection:
            self._kinds = column_kinds(connection, backend.quote_table(source.actual))
            self._vector_oids = _vector_oids(connection) if isinstance(info.type, Vector) else (0, 0)
        self._inputs_hash = self._hash(source.inputs)
        if exists:
            stored = sa.sql.expression.ColumnClause(info.name, self.column_type, _selectable=source.base)
            salt = [sa.cast(sa.literal(text), sa.Text) for text in (info.parameters,) if text]
            self._failed_hash = self._hash((*source.inputs, *salt))
            self._full_hash = self._hash((*source.inputs, stored, *salt))
            self._statements = _Statements(self)

    def _hash(self, expressions: Sequence[Any]) -> Any:
        return self._hash_of([(expression, expression) for expression in expressions])

    def _hash_of(self, named: Sequence[tuple[Any, Any]]) -> Any:
        """md5 over the binary forms of values, given with the expressions that tell their types.

        A type made by CREATE TYPE or an extension has another id in every database, so it
        is hashed by its own send function.
        """
        f = sa.func
        return f.decode(f.md5(f.record_send(f.row(*(self._portable(*pair) for pair in named)))), "hex")

    def _portable(self, expression: Any, value: Any) -> Any:
        kind = self._kinds.get(getattr(expression, "name", None))
        if kind is None or kind.oid < FIRST_CUSTOM_OID:
            return value
        if kind.send == "-" or kind.is_array:
            return sa.cast(value, sa.Text)
        send = sa.func
        for part in kind.send.split("."):
            send = getattr(send, part.strip('"'))
        return send(value)

    # -- reading ------------------------------------------------------------------------------------

    def _page_select(self, within: Within | None, limit: int | None, *, with_state: bool) -> Any:
        source, state = self.source, self.state
        columns = [c.label(f"c{i}") for i, c in enumerate((*source.key, *source.inputs))]
        if not with_state:
            return _ordered(source.select(*columns, self._inputs_hash.label("h")), source, within, limit)
        hashes = sa.case((state.c.failed, self._failed_hash), else_=self._full_hash)
        verdict = sa.case(
            (state.c.version.is_(None), MISSING),
            (state.c.version != self.version, NEEDS_WORK),
            (hashes != state.c.fingerprint, NEEDS_WORK),
            (state.c.failed, SET_ASIDE),
            else_=FRESH,
        )
        statement = source.select(*columns, verdict.label("verdict"), joined=self._with_state(within))
        page = _ordered(statement, source, within, limit).cte("page").prefix_with("MATERIALIZED", dialect="postgresql")
        return self._stale_and_last(page)

    def _stale_and_last(self, page: sa.CTE) -> Any:
        """Of a window of rows only those that need work, and at the end its last key with
        the window's counts. Fresh rows never cross the wire."""
        keys, values = list(page.c)[: self.width], list(page.c)[self.width : -1]
        inputs_hash = self._hash_of(list(zip(self.source.inputs, values, strict=True)))
        nothing = [sa.cast(sa.null(), sa.BigInteger)] * 4
        stale = sa.select(*keys, *values, inputs_hash, *nothing).where(page.c.verdict <= NEEDS_WORK)
        last = sa.select(*keys).order_by(*(key.desc() for key in keys)).limit(1).subquery("last")
        tally = sa.select(
            sa.func.count().label("read"),
            sa.func.count().filter(page.c.verdict == FRESH).label("fresh"),
            sa.func.count().filter(page.c.verdict == SET_ASIDE).label("set_aside"),
            sa.func.count().filter(page.c.verdict == MISSING).label("missing"),
        ).subquery("tally")
        ending = sa.select(*last.c, *[sa.null()] * (len(values) + 1), *tally.c).select_from(last.join(tally, sa.true()))
        return sa.union_all(stale, ending)

    def _page(self, rows: list[Any], generation: int, *, with_state: bool) -> Page:
        last = (rows[-1][0] if self.width == 1 else tuple(rows[-1][: self.width])) if rows else None
        read, fresh, set_aside, missing = len(rows), 0, 0, len(rows)
        if with_state and rows:
            read, fresh, set_aside, missing = rows.pop()[-4:]
        hashes = [bytes(row[self.width + len(self.decoders)]) for row in rows]
        keys, inputs = self._keys(rows), self._inputs(rows)
        return Page(keys, inputs, hashes, hashes, read, fresh, set_aside, last, generation, missing)

    # -- writing ------------------------------------------------------------------------------------

    def _encode_outputs(self, outputs: Sequence[Any]) -> Any:
        if isinstance(self.info.type, Vector):
            from pinnacle.backends.postgres.vectors import pack

            return pack(outputs, self.info.type.dim, self._vector_oids[0])
        if isinstance(self.info.type, Json):
            return [None if value is None else dump_json(value) for value in outputs]
        return list(outputs)

    def _write_chunk(self, batch: OutputBatch, start: int, stop: int) -> tuple[Sequence[int], float | None]:
        import psycopg

        part = OutputBatch(batch.keys[start:stop], batch.outputs[start:stop], batch.witnesses[start:stop])
        keys = [list(part.keys)] if self.width == 1 else [list(column) for column in zip(*part.keys, strict=True)]
        arrays = (*keys, self._encode_outputs(part.outputs), list(part.witnesses))
        is_last = stop == len(batch.keys)
        for statement in (self._statements.write, self._statements.write_unlocked):
            try:
                return self._run(statement, arrays, part.keys, is_last)
            except psycopg.errors.LockNotAvailable:
                continue
        return range(len(part.keys)), None  # the whole table is locked: the engine comes back

    def _run(
        self, statement: str, arrays: tuple[Any, ...], keys: Sequence[Key], is_last: bool
    ) -> tuple[list[int], float | None]:
        """One statement that is its own transaction, in one round trip: each wait for the server
        is also a wait for the interpreter lock, which a busy model may hold for milliseconds.

        Only the last transaction of a batch waits for the disk. Its commit flushes the log
        of those before it, so that the batch is durable when `write` returns and no row is
        locked during a flush. Its own time says little about its size, so it is not returned.
        """
        with self.backend.writing_raw() as connection:
            self._adapt_vectors(connection)
            began = time.perf_counter()
            *rows, (_, version, has_errors) = connection.execute(
                statement, ("on" if is_last else "off", *arrays), binary=True
            ).fetchall()
            seconds = time.perf_counter() - began
            self._check_version(version)
            unwritten = [row[0] - 1 for row in rows]
            if has_errors:
                missed = set(unwritten)
                written = [dump_key(key) for i, key in enumerate(keys) if i not in missed]
                connection.execute(self._statements.clear_errors, (written,))
        return unwritten, None if is_last else seconds

    def _adapt_vectors(self, connection: Any) -> None:
        if self._vector_oids[1]:
            from pinnacle.backends.postgres.vectors import PackedVectors, packed_dumper

            connection.adapters.register_dumper(PackedVectors, packed_dumper(self._vector_oids[1]))

    def _check_version(self, found: int | None) -> None:
        if found is None or found > self.version:
            raise Conflict(
                f"{self.info.table}.{self.info.name} "
                + ("was removed" if found is None else f"is now computed by version {found}, not {self.version}")
                + " while this run was at work; what it wrote before is kept"
            )

    def _mark_failed(self, connection: sa.Connection, failures: Sequence[Failure]) -> Sequence[Failure]:
        raw: Any = connection.connection.driver_connection
        keys = [(f.key,) if self.width == 1 else tuple(f.key) for f in failures]
        marks = [
            raw.execute(self._statements.mark_failed, (*k, f.witness)) for k, f in zip(keys, failures, strict=True)
        ]
        return [failure for failure, mark in zip(failures, marks, strict=True) if mark.rowcount]


def _ordered(statement: sa.Select[Any], source: SqlSource, within: Within | None, limit: int | None) -> sa.Select[Any]:
    statement = statement.order_by(*source.key)
    if within is not None:
        statement = statement.where(within(source.key))
    return statement if limit is None else statement.limit(limit)


class Kind:
    """A column's type, as the catalog of the database describes it; ``bare`` without its length or
    precision: a cast to varchar(5) would cut a value that an assignment refuses."""

    def __init__(self, oid: int, declared: str, bare: str, send: str, category: str, collation: str | None) -> None:
        self.oid, self.declared, self.bare, self.send = oid, declared, bare, send
        self.is_array = category == "A"
        self.with_collation = f"{declared} COLLATE {collation}" if collation else declared


def column_kinds(connection: sa.Connection, table: str) -> dict[str | None, Kind]:
    """A table's columns and their types, by name."""
    rows = connection.execute(
        sa.text(
            "SELECT a.attname, a.atttypid::bigint, format_type(a.atttypid, a.atttypmod), "
            "format_type(a.atttypid, NULL), t.typsend::text, t.typcategory, "
            "CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END "
            "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND NOT a.attisdropped"
        ),
        {"table": table},
    )
    return {row[0]: Kind(*row[1:]) for row in rows}


def _vector_oids(connection: sa.Connection) -> tuple[int, int]:
    """The ids of ``vector`` and ``vector[]`` in this database."""
    row = connection.execute(
        sa.text("SELECT oid::bigint, typarray::bigint FROM pg_type WHERE typname = 'vector'")
    ).first()
    return (int(row[0]), int(row[1])) if row is not None else (0, 0)


class _Statements:
    """The SQL text of one output's write-back."""

    def __init__(self, target: PostgresTarget) -> None:
        backend, source, info = target.backend, target.source, target.info
        width = target.width
        keys = [f"k{i}" for i in range(width)]
        table, name = _escaped(backend.quote_table(source.actual)), _escaped(backend.quote(info.name))
        own = [f"{table}.{_escaped(backend.quote(column.name))}" for column in source.key]
        kinds = [_escaped(target._kinds[column.name].declared) for column in source.key]
        stored = _escaped(target._kinds[info.name].bare)
        state = backend.own(f"pinnacle_state_{info.id}")
        same_row = " AND ".join(f"{o} = b.{k}" for o, k in zip(own, keys, strict=True))
        unchanged = f"{_text(target._inputs_hash, backend)} = b.h"
        listed, returned = ", ".join(keys), ", ".join(own)
        arrays = ", ".join([*(f"%b::{kind}[]" for kind in kinds), _array(info.type, stored), "%b::bytea[]"])
        batch = f"b ({listed}, o, h, n) AS MATERIALIZED (SELECT * FROM unnest({arrays}) WITH ORDINALITY), "
        upsert = (
            f"ON CONFLICT ({listed}) DO UPDATE SET fingerprint = excluded.fingerprint, version = excluded.version, "
            "failed = excluded.failed"
        )
        full = _text(target._full_hash, backend)
        registry, errors = backend.own(output.name), backend.own(error.name)
        guard = (
            f"guard AS MATERIALIZED (SELECT version, set_config('pinnacle.writer', '{info.id}', true), "
            f"set_config('synchronous_commit', %s, true) FROM {registry} WHERE id = {info.id} FOR KEY SHARE), "
        )
        allowed = f"(SELECT version FROM guard) <= {target.version}"
        tail = (
            f"RETURNING b.n, {returned}, {full} AS fingerprint), "
            f"recorded AS (INSERT INTO {state} ({listed}, fingerprint, version, failed) "
            f"SELECT {', '.join(f'u.{k}' for k in keys)}, u.fingerprint, {target.version}, false FROM u {upsert}) "
            "(SELECT n, NULL::integer, NULL::boolean FROM b EXCEPT ALL SELECT n, NULL, NULL FROM u) UNION ALL "
            "SELECT NULL, (SELECT version FROM guard), "
            f"EXISTS (SELECT 1 FROM {errors} WHERE output_id = {info.id})"
        )
        updated = f"u (n, {listed}, fingerprint) AS (UPDATE {table} SET {name} = b.o FROM "
        matching = f"WHERE {same_row} AND {unchanged} AND {allowed}"
        self.write = f"WITH {guard}{batch}{updated}b {matching} {tail}"
        locked = (
            f"free AS MATERIALIZED (SELECT b.* FROM b JOIN {table} ON {same_row} WHERE {unchanged} "
            f"ORDER BY {returned} FOR NO KEY UPDATE OF {_escaped(backend.quote(source.actual.name))} SKIP LOCKED), "
        )
        self.write_unlocked = f"WITH {guard}{batch}{locked}{updated}free AS b {matching} {tail}"
        self.clear_errors = f"DELETE FROM {errors} WHERE output_id = {info.id} AND key = ANY(%s)"
        chosen = " AND ".join(f"{o} = %s::{kind}" for o, kind in zip(own, kinds, strict=True))
        self.mark_failed = (
            f"INSERT INTO {state} ({listed}, fingerprint, version, failed) SELECT {returned}, "
            f"{_text(target._failed_hash, backend)}, {target.version}, true FROM {table} WHERE {chosen} "
            f"AND {_text(target._inputs_hash, backend)} = %s {upsert}"
        )


def _array(kind: Any, declared: str) -> str:
    if isinstance(kind, Vector):
        return "%b"
    return "%b::text[]::" + f"{declared}[]" if isinstance(kind, Json) else f"%b::{declared}[]"


def _text(expression: Any, backend: PostgresBackend) -> str:
    compiled = expression.compile(
        dialect=backend.dialect, compile_kwargs={"literal_binds": True, "include_table": True}
    )
    return _escaped(backend.plain(str(compiled)))


def _escaped(text: str) -> str:
    """SQL text as psycopg takes it: a % begins a placeholder."""
    return text.replace("%", "%%")
