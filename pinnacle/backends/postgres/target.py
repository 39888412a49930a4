"""Reads and writes one output on PostgreSQL.

Hashes are made in SQL over the binary form of the values (``record_send``), which no
session setting changes. A batch travels as arrays and is written by one statement that
updates the rows whose inputs still hash the same, records them, and returns the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pinnacle.backends.postgres.connections import COMMIT, WRITING, begin_parts
from pinnacle.backends.postgres.session import PostgresSession
from pinnacle.backends.postgres.statements import FIRST_CUSTOM_OID, ColumnStatements, Hashes, Statements, column_kinds
from pinnacle.backends.postgres.values import RowReader, key_columns
from pinnacle.backends.sql.columns import Declared, Encoder, Raw
from pinnacle.backends.sql.inputs import walker
from pinnacle.backends.sql.schema import output
from pinnacle.backends.sql.side import SideTarget
from pinnacle.backends.sql.source import SqlSource, Steps, key_tuple
from pinnacle.backends.sql.target import SqlTarget, Within
from pinnacle.base.encoding import dump_key
from pinnacle.base.errors import BackendError, RowRejected
from pinnacle.base.failpoints import failpoint
from pinnacle.base.refusals import input_changed_by_trigger, output_kept_out
from pinnacle.base.rows import Failure, Key, OutputBatch, OutputInfo, Page
from pinnacle.base.told import logger

log = logger(__name__)

JSON_KINDS = ("json", "jsonb")
NEEDS_WORK, FRESH, SET_ASIDE, MISSING = 0, 1, 2, -1

Statement = tuple[str, Sequence[Any] | Mapping[str, Any]]
"""Its text, and its parameters."""


class PostgresTarget(SqlTarget):
    """See `SqlTarget`. A page's witnesses are the hashes of its inputs."""

    session: PostgresSession
    keys_a_read = 5_000
    _has_triggers: bool | None = None
    """Whether triggers of the user's run when outputs are written; each write tells of it for the next."""

    def __init__(
        self, session: PostgresSession, source: SqlSource, info: OutputInfo, version: int, *, exists: bool
    ) -> None:
        with session.reading() as connection:
            self.kinds = column_kinds(connection, session.quote_table(source.actual))
        super().__init__(session, source, info, version, exists=exists)
        self._moved: set[Key] = set()
        self.encode = None  # psycopg takes Python's own values; `_encoded` makes arrays of them
        key, inputs = ([self.kinds[c.name] for c in columns] for columns in (source.key, source.inputs))
        self._reader = RowReader(key, inputs)
        places = zip(source.inputs, source.inputs, source.steps, strict=True)
        self.compared = [self._compared(*place) for place in places]
        self.inputs_hash = self._hash(self.compared)
        if exists:
            stored = self._stored_column()
            salt = [sa.cast(sa.literal(text), sa.Text) for text in (info.parameters,) if text]
            self.failed_hash = self._hash((*self.compared, *salt))
            self.full_hash = self._hash((*self.compared, stored, *salt))
            hashes = Hashes(self.inputs_hash, self.failed_hash, self.full_hash)
            self._make_statements(hashes)

    def _make_statements(self, hashes: Hashes) -> None:
        self._writes = ColumnStatements(self.session, self.source, self.info, self.version, self.kinds, hashes)
        self._upkeep: Statements = self._writes

    def _hash(self, expressions: Sequence[Any]) -> Any:
        return self._hash_of([(expression, expression) for expression in expressions])

    def _hash_of(self, named: Sequence[tuple[Any, Any]]) -> Any:
        """md5 over the binary forms of values, given with the expressions that tell their types.

        A type that holds only values of a wider one is hashed as that: a migration to it changes no value.

        A type made by CREATE TYPE or an extension has another id in every database, so it
        is hashed by its own send function.
        """
        f = sa.func
        return f.decode(f.md5(f.record_send(f.row(*(self._portable(*pair) for pair in named)))), "hex")

    def _portable(self, expression: Any, value: Any) -> Any:
        kind = self.kinds.get(getattr(expression, "name", None))
        if kind is not None and kind.hashed is not None:
            return sa.cast(value, Declared(kind.hashed))
        if kind is None or (kind.oid < FIRST_CUSTOM_OID and kind.send != "-"):
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
            return _ordered(source.select(*columns, self.inputs_hash.label("h")), source, within, limit)
        hashes = sa.case((state.c.failed, self.failed_hash), else_=self.full_hash)
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
        places = zip(self.source.inputs, values, self.source.steps, strict=True)
        compared = [self._compared(*place) for place in places]
        inputs_hash = self._hash_of(list(zip(self.compared, compared, strict=True)))
        verdict = sa.cast(page.c.verdict, sa.BigInteger)
        nothing = [sa.cast(sa.null(), sa.BigInteger)] * 3
        stale = sa.select(*keys, *values, inputs_hash, verdict, *nothing).where(page.c.verdict <= NEEDS_WORK)
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
        last = self._keys(rows[-1:])[0] if rows else None
        read, fresh, set_aside, missing = len(rows), 0, 0, len(rows)
        if with_state and rows:
            read, fresh, set_aside, missing = rows.pop()[-4:]
        hashes = [bytes(row[self.width + len(self.decoders)]) for row in rows]
        inputs, errors = self._readable(rows)
        missing -= sum(not with_state or rows[i][-4] == MISSING for i in errors)
        page = Page(
            keys=self._keys(rows), inputs=inputs, identities=hashes, witnesses=hashes, read=read, fresh=fresh,
            set_aside=set_aside, last=last, generation=generation, missing=missing,
        )  # fmt: skip
        return page.without(errors)

    def _fetch(
        self, connection: sa.Connection, statement: Any, parameters: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """As the driver gives them; where it cannot, or would change a key, value by value."""
        result = connection.execute(statement, parameters)
        try:
            return self._reader.fetch(result.cursor)
        finally:
            result.close()

    def rows_of(self, cursor: Any) -> list[Any]:
        """The same of the driver's own cursor."""
        return self._reader.fetch(cursor)

    def _keys(self, rows: Sequence[Any]) -> list[Key]:
        return self._reader.exact(super()._keys(rows))

    def _decoder(self, column: Any, steps: Steps) -> Encoder | None:
        """psycopg decodes JSON itself, and not where a mapped class keeps it as text."""
        kind = self.kinds[column.name]
        if steps and kind.bare not in JSON_KINDS:
            return walker(json.loads, steps)
        return walker(self.session.columns.decoder(column.type, kind.oid), steps)

    def _compared(self, column: Any, value: Any, steps: Steps) -> Any:
        """What hashes are made of, given the value of a column: of a path what it leads to, where that cannot fail."""
        kind = self.kinds.get(column.name)
        if not steps or kind is None or kind.bare not in JSON_KINDS:
            return value
        path = [sa.literal(step, sa.Text) for step in steps]
        if kind.bare == "jsonb":
            return sa.func.jsonb_extract_path(value, *path)
        backslash = sa.func.chr(92)
        escape = sa.func.concat(backslash, backslash, "u(0000|d[89a-f])" if self.session.encoding == "utf-8" else "u")
        is_unsafe = sa.cast(value, sa.Text).op("~*")(escape)
        return sa.case((is_unsafe, value), else_=sa.func.json_extract_path(value, *path))

    def _among(self, keys: Sequence[Key], key: Sequence[Any]) -> Any:
        """By one array a key column, which psycopg neither expands nor parses."""
        return self._among_arrays([sa.literal(column, Raw()) for column in key_columns(keys, self.width)], key)

    def _among_arrays(self, columns: Sequence[Any], key: Sequence[Any]) -> Any:
        kinds = [Declared(f"{self.kinds[column.name].declared}[]") for column in self.source.key]
        arrays = [sa.cast(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        if self.width == 1:
            return key[0] == sa.func.any(arrays[0])
        return key_tuple(key).in_(sa.select(*map(sa.func.unnest, arrays)))

    def few_page(self, keys: Sequence[Key]) -> Statement:
        """The query for the page of few keys, for the driver; `page_of` reads its result."""
        text, parameters = self._few_page
        return text, {**parameters, **{f"pinnacle_k{i}": c for i, c in enumerate(key_columns(keys, self.width))}}

    def page_of(self, cursor: Any) -> Page:
        """The page of claimed rows that a query for one gave."""
        return self._page(self.rows_of(cursor), 0, with_state=True)

    @cached_property
    def _few_page(self) -> tuple[str, Mapping[str, Any]]:
        columns = [sa.bindparam(f"pinnacle_k{i}", [], Raw()) for i in range(self.width)]
        compiled = self._page_select(partial(self._among_arrays, columns), None, with_state=True).compile(
            dialect=self.session.dialect, schema_translate_map=self.session.translate,
            compile_kwargs={"render_postcompile": True}, render_schema_translate=True,
        )  # fmt: skip
        processes = compiled._bind_processors
        parameters = {name: processes[name](v) if name in processes else v for name, v in compiled.params.items()}
        return str(compiled), parameters

    @property
    def is_by_key_alone(self) -> bool:
        """Whether the select looks at no other rows than those of its table that it chooses."""
        where = [] if self.source.where is None else [self.source.where]
        parts = (part for condition in where for part in sa.sql.visitors.iterate(condition))
        return self.source.subquery is None and not any(isinstance(part, sa.SelectBase) for part in parts)

    # -- writing ------------------------------------------------------------------------------------

    def _encoded(self, outputs: Sequence[Any]) -> Any:
        column = self.session.columns.of(self.info.type)
        try:
            return column.array_of(outputs, self.kinds[self.info.name].oid)
        except Exception as error:  # of an output type's own code: the row is searched for
            raise RowRejected(f"the output cannot be encoded: {type(error).__name__}: {error}") from error

    def _write_chunk(self, batch: OutputBatch, start: int, stop: int) -> tuple[Sequence[int], float | None]:
        import psycopg

        part = OutputBatch(
            keys=batch.keys[start:stop], outputs=batch.outputs[start:stop], witnesses=batch.witnesses[start:stop]
        )
        arrays = (*key_columns(part.keys, self.width), self._encoded(part.outputs), list(part.witnesses))
        is_last = stop == len(batch.keys)
        ways = [partial(self._run, each, arrays, part.keys, is_last) for each in self._writes.ways]
        if self._must_tell():
            ways = [partial(self._write_beside_triggers, arrays, part)]
        for write in ways:
            try:
                return write()
            except psycopg.errors.LockNotAvailable:
                continue
            except BackendError:
                self._require_there()
                raise
        return range(len(part.keys)), None  # the whole table is locked: the engine comes back

    def _require_there(self) -> None:
        """Raise if the output was removed: the database refuses a write by the column's name first."""
        with self.session.reading() as connection:
            version = connection.scalar(sa.select(output.c.version).where(output.c.id == self.info.id))
            is_there = self.info.name in column_kinds(connection, self.session.quote_table(self.source.actual))
        self._require_newest(version if is_there else None)

    def _run(
        self, statement: str, arrays: tuple[Any, ...], keys: Sequence[Key], is_last: bool
    ) -> tuple[Sequence[int], float | None]:
        """One statement that is its own transaction, in one round trip: each wait for the server
        is also a wait for the interpreter lock, which a busy model may hold for milliseconds.

        Only the last transaction of a batch waits for the disk. Its commit flushes the log
        of those before it, so that the batch is durable when `write` returns and no row is
        locked during a flush. Its own time says little about its size, so it is not returned.
        """
        with self.session.writing_raw() as connection:
            began = time.perf_counter()
            *rows, (_, version, has_errors, self._has_triggers) = connection.execute(
                statement, ("on" if is_last else "off", *arrays), binary=True
            ).fetchall()
            seconds = time.perf_counter() - began
            self._require_newest(version)
            unwritten = [row[0] - 1 for row in rows]
            if has_errors:
                self._clear_written(connection, keys, unwritten)
        return unwritten, None if is_last else seconds

    def _clear_written(self, connection: Any, keys: Sequence[Key], unwritten: Sequence[int]) -> None:
        missed = set(unwritten)
        written = [dump_key(key) for i, key in enumerate(keys) if i not in missed]
        connection.execute(self._upkeep.clear_errors, (written,))

    def _must_tell(self) -> bool:
        """Whether the user's triggers may have a say in a write, so that what came of it is to be looked at."""
        if self._has_triggers is None:
            with self.session.writing_raw() as connection:
                self._has_triggers = bool(connection.execute(f"SELECT {self._writes.has_triggers}", ()).fetchone()[0])
        return self._has_triggers

    def _write_beside_triggers(self, arrays: tuple[Any, ...], batch: OutputBatch) -> tuple[Sequence[int], float | None]:
        """Write where triggers of the user's may change the row in the same transaction: what is recorded is what is
        there afterwards. The positions that were changed or locked before, or whose inputs a trigger changed.

        These are computed anew, once: RowRejected where the next write changes them again, and so would each; and
        where a trigger keeps an output from being written. Nothing is written then.
        """
        keys, (*key_arrays, _, hashes) = batch.keys, arrays
        with self.session.writing_raw() as connection, connection.transaction():
            for statement in ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", *begin_parts(WRITING)[1:]):
                connection.execute(statement)
            *rows, (_, version, has_errors, self._has_triggers) = connection.execute(
                self._writes.write_telling, ("on", *arrays), binary=True
            ).fetchall()
            self._require_newest(version)
            unwritten = [n - 1 for n, _, _, _ in rows]
            altered = connection.execute(self._writes.settle_altered, (*key_arrays, hashes), binary=True).fetchall()
            found = [(n - 1, is_same, is_null) for n, is_same, is_null in altered if n - 1 not in set(unwritten)]
            moved = [i for i, is_same, _ in found if not is_same]
            if any(keys[i] in self._moved for i in moved):
                raise input_changed_by_trigger(self.info)
            is_void = any(is_same and is_null and batch.outputs[i] is not None for i, is_same, is_null in found)
            if is_void or any(is_kept_out for *_, is_kept_out in rows):
                raise output_kept_out(self.info)
            if has_errors:
                self._clear_written(connection, keys, [*unwritten, *moved])
        self._moved.difference_update(keys)
        self._moved.update(keys[i] for i in moved)
        return sorted([*unwritten, *moved]), None

    def write_all(self, batch: OutputBatch, before: Statement, after: Sequence[Statement]) -> bool:
        """Write a small batch between other statements, in one transaction of two round trips; False, and nothing
        is done, where a row is not as it was read or is locked."""
        import psycopg

        with self.session.writing_raw() as connection:
            try:
                if self._write_between(connection, batch, before, after):
                    return True
            except (psycopg.errors.LockNotAvailable, psycopg.errors.FeatureNotSupported) as error:
                log.debug("a small batch is left to who can wait, and plan anew: %s", error)
            connection.rollback()
        return False

    def _write_between(
        self, connection: Any, batch: OutputBatch, before: Statement, after: Sequence[Statement]
    ) -> bool:
        arrays = (*key_columns(batch.keys, self.width), self._encoded(batch.outputs), list(batch.witnesses))
        with connection.pipeline():
            for statement in begin_parts(WRITING):
                connection.execute(statement)
            connection.execute(*before)
            written = connection.execute(self._writes.write, ("on", *arrays), binary=True)
        *unwritten, (_, version, has_errors, self._has_triggers) = written.fetchall()
        self._require_newest(version)
        failpoint("in-write")
        if unwritten or self._has_triggers:
            return False
        cleared = [(self._upkeep.clear_errors, (list(map(dump_key, batch.keys)),))] if has_errors else []
        with connection.pipeline():
            for statement, parameters in (*cleared, *after):
                connection.execute(statement, parameters)
            failpoint("in-finish")
            connection.execute(COMMIT)
        return True

    def _mark_failed(self, connection: sa.Connection, failures: Sequence[Failure]) -> Sequence[Failure]:
        raw: Any = connection.connection.driver_connection
        keys = [(f.key,) if self.width == 1 else tuple(f.key) for f in failures]
        marks = [raw.execute(self._upkeep.mark_failed, (*k, f.witness)) for k, f in zip(keys, failures, strict=True)]
        return [failure for failure, mark in zip(failures, marks, strict=True) if mark.rowcount]


class PostgresSideTarget(SideTarget, PostgresTarget):
    """An output in a side table; a row's items are hashed as one array."""

    def _stored_column(self) -> Any:
        is_text = self.session.columns.of(self.info.type.stored).is_hashed_as_text
        value = "CAST(pinnacle_item.value AS text)" if is_text else "pinnacle_item.value"
        return sa.literal_column(f"(SELECT array_agg({value} ORDER BY pinnacle_item.position) {self._side_of_row()})")

    def _make_statements(self, hashes: Hashes) -> None:
        self._upkeep = Statements(self.session, self.source, self.info, self.version, self.kinds, hashes)

    def _locked_select(self, part: Sequence[Key]) -> Any:
        found = self._page_select(partial(self._among, part), None, with_state=False)
        return found.with_for_update(key_share=True, skip_locked=True, of=self.source.base)

    def _insert(self, table: sa.Table) -> Any:
        return postgresql.insert(table)

    def _record(self, connection: sa.Connection, keys: Sequence[Key]) -> None:
        for part in self._parts(keys):
            found = self.source.everything().select(
                *self.source.key, self.full_hash, sa.literal(self.version), sa.false()
            )
            names = [*(column.name for column in self.state_key), "fingerprint", "version", "failed"]
            insert = postgresql.insert(self.state).from_select(names, found.where(self._among(part, self.source.key)))
            new = {name: insert.excluded[name] for name in names[self.width :]}
            connection.execute(insert.on_conflict_do_update(index_elements=names[: self.width], set_=new))
        self._clear_errors(connection, keys)


def update_rule(session: PostgresSession, source: SqlSource) -> str | None:
    """Why no output can be written into the table, where a rule of the user's rewrites each UPDATE."""
    query = sa.text("SELECT min(rulename) FROM pg_rewrite WHERE ev_class = to_regclass(:table) AND ev_type = '2'")
    with session.reading() as connection:
        rule = connection.scalar(query, {"table": session.quote_table(source.actual)})
    if rule is None:
        return None
    return (
        f"{source.table} has a rule {rule!r} for UPDATE, with which no output can be written into it; keep the output "
        "in a table of its own with Side(), or make a trigger of the rule"
    )


def _ordered(statement: sa.Select[Any], source: SqlSource, within: Within | None, limit: int | None) -> sa.Select[Any]:
    statement = statement.order_by(*source.key)
    if within is not None:
        statement = statement.where(within(source.key))
    return statement if limit is None else statement.limit(limit)
