"""Reads and writes one output on SQLite.

Hashes are made in Python, so that the plain shell can always write the tables; a write
compares the inputs' own values. A batch goes into a temporary table first, outside any
transaction of the database file: its rows are bound a few dozen a statement, because
Python's driver gives the interpreter lock away at every step, and a step a row would
hold the file's only write lock for as long as busy threads please. The transaction itself
is then three statements, whatever the batch.
"""

from __future__ import annotations

import json
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, compress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from pinnacle.backends.sql.columns import Raw, apply
from pinnacle.backends.sql.inputs import told
from pinnacle.backends.sql.side import SideTarget
from pinnacle.backends.sql.source import SqlSource, key_tuple
from pinnacle.backends.sql.target import SqlTarget, Within
from pinnacle.backends.sqlite.keyless import KeylessRows, failure_of, is_keyless, texts_of
from pinnacle.backends.sqlite.session import SqliteSession
from pinnacle.backends.sqlite.statements import Guard, Statements
from pinnacle.backends.sqlite.text import bound, bytes_of, is_escaped, lenient
from pinnacle.base.encoding import digest, dump_key, fingerprint, fingerprints, tag
from pinnacle.base.failpoints import failpoint
from pinnacle.base.refusals import input_changed_by_trigger, output_kept_out
from pinnacle.base.rows import Failure, Key, OutputBatch, OutputInfo, Page, Unreadable, joined

ROWS_A_STATEMENT = 500
SHORT_TEXT = 256


class SqliteTarget(SqlTarget):
    """See `SqlTarget`.

    SQLite has one lock for the whole file, and whoever waits for it sleeps between tries,
    up to 25 ms: holding it 8 ms costs others 8 ms, holding it 20 ms costs them 33 ms.
    """

    hold_share = 0.4
    keys_a_read = 2_500

    def __init__(
        self, session: SqliteSession, source: SqlSource, info: OutputInfo, version: int, *, exists: bool
    ) -> None:
        super().__init__(session, source, info, version, exists=exists)
        self._single = len(source.inputs) == 1
        self._sql = Statements(session, source, info, version)
        self._seen: tuple[int, int] | None = None
        self._held_s = 0.0
        self._moved: set[Key] = set()
        self._salt = (info.parameters,) if info.parameters else ()
        # SQLite lets rows in without a key, which nothing finds again; at their place a page would end.
        self._has_key = [column.is_not(None) for column in source.key]
        self.keyless = KeylessRows(source, info.id)

    # -- reading ------------------------------------------------------------------------------------

    def read(self, after: Key | None, limit: int, *, overwrite: bool = False) -> Page:
        """Rows without a key are a page of their own, before the others."""
        if after is None and (page := self._read_keyless(overwrite=overwrite)) is not None:
            return page
        return super().read(None if after is not None and is_keyless(after) else after, limit, overwrite=overwrite)

    def _read_keyless(self, *, overwrite: bool) -> Page | None:
        """The page of rows without a key; what is recorded of others is taken back."""
        with self.session.reading() as connection:
            if not self.keyless.are_any(connection, exists=self.exists):
                return None
            found = self.keyless.found(connection)
            known = self.keyless.known(connection) if self.exists else set()
            current = self.keyless.known(connection, self.version) if self.exists and not overwrite else set()
        if gone := known - texts_of(found):
            with self.session.writing() as connection:
                self.keyless.forget(connection, gone)
        return self._of_keyless(found, current) if found else None

    def reread(self, keys: Sequence[Key], *, overwrite: bool = False) -> Page:
        without = {dump_key(key) for key in keys if is_keyless(key)}
        if not without:
            return super().reread(keys, overwrite=overwrite)
        with self.session.reading() as connection:
            found = [row for row in self.keyless.found(connection) if dump_key(row.key) in without]
        pages = [self._of_keyless(found, set())]
        if others := [key for key in keys if not is_keyless(key)]:
            pages.append(super().reread(others, overwrite=overwrite))
        return joined(pages)

    def _of_keyless(self, rows: Sequence[Unreadable], set_aside: set[str]) -> Page:
        """The page of rows that have no key, of which some are set aside already."""
        left = [row for row in rows if dump_key(row.key) not in set_aside]
        return Page(
            keys=[], inputs=[], identities=[], witnesses=[], read=len(rows), fresh=0, set_aside=len(rows) - len(left),
            last=rows[-1].key if rows else None, unreadable=left,
            generation=self.queue.generation() if self.exists else 0,
        )  # fmt: skip

    def settle_keyless(self, connection: sa.Connection) -> None:
        """Set aside the rows that have no key, and take back what is recorded of others."""
        found, known = self.keyless.found(connection), self.keyless.known(connection, self.version)
        self.keyless.forget(connection, self.keyless.known(connection) - texts_of(found))
        self._note_failures(connection, [failure_of(row) for row in found if dump_key(row.key) not in known])

    def _page_select(self, within: Within | None, limit: int | None, *, with_state: bool) -> Any:
        source, state = self.source, self.state
        columns: list[Any] = [*source.key, *source.inputs]
        joined = None
        if with_state:
            joined = self._with_state(within)
            columns += [self._stored_column(), state.c.fingerprint, state.c.version, state.c.failed]
        statement = source.select(*columns, joined=joined).order_by(*source.key).where(*self._has_key)
        if within is not None:
            statement = statement.where(within(source.key))
        return statement if limit is None else statement.limit(limit)

    def _fetch(
        self, connection: sa.Connection, statement: Any, parameters: Mapping[str, Any] | None = None
    ) -> list[Any]:
        raw = connection.connection.driver_connection
        return self._leniently(raw, lambda: super(SqliteTarget, self)._fetch(connection, statement, parameters))

    def fetch_raw(self, raw: Any, statement: str, parameters: Sequence[Any]) -> list[Any]:
        """The rows of a query by a plain statement of the driver, their keys first."""
        return self._leniently(raw, lambda: raw.execute(statement, parameters).fetchall())

    def _leniently(self, raw: Any, fetch: Callable[[], list[Any]]) -> list[Any]:
        """The rows; text that is not UTF-8, which other programs store freely, with escapes for its bytes."""
        try:
            return fetch()
        except self.session.dialect.loaded_dbapi.OperationalError as error:
            if "decode to UTF-8" not in str(error):
                raise
        with lenient(raw):
            return fetch()

    def _among(self, keys: Sequence[Key], key: Sequence[Any]) -> Any:
        """Whole numbers by one JSON array, which is taken apart sooner than as many parameters are bound."""
        if self.width > 1 or set(map(type, keys)) != {int}:
            if any(map(self._is_escaped, keys)):
                return key_tuple(key).in_([self._raw_literal(each) for each in keys])
            return super()._among(keys, key)
        return self._among_listed(sa.literal(json.dumps(list(keys)), Raw()), key)

    def _among_listed(self, numbers: Any, key: Sequence[Any]) -> Any:
        listed = sa.func.json_each(numbers).table_valued("value")
        return key[0].in_(sa.select(listed.c.value))

    def reread_within(self, connection: sa.Connection, keys: Sequence[Key]) -> Page:
        """`reread` of few keys by a statement of an open transaction."""
        rows = self._fetch(connection, *self._few_select(keys))
        return self._page(rows, 0, with_state=True)

    def _few_select(self, keys: Sequence[Key]) -> tuple[Any, Mapping[str, Any]]:
        """The query for pages of few keys, which is made once where that is possible, and its parameters."""
        if self.width > 1 or any(map(self._is_escaped, keys)):
            return self._page_select(partial(self._among, keys), None, with_state=True), {}
        if set(map(type, keys)) == {int}:
            return self._among_few_numbers, {"pinnacle_keys": json.dumps(list(keys))}
        return self._among_few, {"pinnacle_keys": list(keys)}

    @cached_property
    def _among_few_numbers(self) -> Any:
        numbers = sa.bindparam("pinnacle_keys", type_=Raw())
        return self._page_select(partial(self._among_listed, numbers), None, with_state=True)

    @cached_property
    def _among_few(self) -> Any:
        keys = sa.bindparam("pinnacle_keys", type_=Raw(), expanding=True)
        return self._page_select(lambda key: key[0].in_(keys), None, with_state=True)

    def _is_escaped(self, key: Key) -> bool:
        return is_escaped(key) if self.width == 1 else any(map(is_escaped, key))

    def _raw_literal(self, key: Key) -> Any:
        if not self._is_escaped(key):
            return super()._raw_literal(key)
        parts = (key,) if self.width == 1 else key
        literals = [sa.literal(bytes_of(part) if is_escaped(part) else part, Raw()) for part in parts]
        casts = [sa.cast(v, sa.Text) if is_escaped(part) else v for v, part in zip(literals, parts, strict=True)]
        return casts[0] if self.width == 1 else sa.tuple_(*casts)

    def _page(self, rows: list[Any], generation: int, *, with_state: bool) -> Page:
        last = self._keys(rows[-1:])[0] if rows else None
        stale, fresh, set_aside = rows, 0, 0
        if with_state and rows:
            current = self._current(rows)
            stale = [] if all(current) else list(compress(rows, map(operator.not_, current)))
            set_aside = sum(map(operator.and_, current, [row[-1] == 1 for row in rows]))
            fresh = len(rows) - len(stale) - set_aside
        inputs, errors = self._readable(stale)
        witnesses, identities = self._witnesses(stale)
        missing = sum(row[-2] is None for row in stale) if with_state else len(stale)
        missing -= sum(not with_state or stale[i][-2] is None for i in errors)
        page = Page(
            keys=self._keys(stale), inputs=inputs, identities=identities, witnesses=witnesses, read=len(rows),
            fresh=fresh, set_aside=set_aside, last=last, generation=generation, missing=missing,
        )  # fmt: skip
        return page.without(errors)

    def _current(self, rows: list[Any]) -> list[bool]:
        """For each row whether its recorded fingerprint is the one of the row as it is now."""
        start, stop = self.width, self.width + len(self.source.inputs)
        *columns, recorded, versions, failed = ([row[i] for row in rows] for i in range(len(rows[0])))
        inputs = self._told(columns[start:stop])
        if any(failed):
            stored = [() if is_failed else (value,) for value, is_failed in zip(columns[stop], failed, strict=True)]
            rest = zip(*inputs, strict=True)
            found = [fingerprint((*self._salt, *o, *values)) for o, values in zip(stored, rest, strict=True)]
        else:
            found = fingerprints(*self._salted(len(rows)), columns[stop], *inputs)
        if set(versions) == {self.version}:
            return list(map(operator.eq, recorded, found))
        pairs = zip(versions, recorded, found, strict=True)
        return [version == self.version and old == new for version, old, new in pairs]

    def _witnesses(self, rows: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """The raw inputs that a write compares, and hashables equal where inputs are equal."""
        start, stop = self.width, self.width + len(self.source.inputs)
        if any(self.source.steps):
            values = [row[start] if self._single else row[start:stop] for row in rows]
            inputs = self._told([[row[i] for row in rows] for i in range(start, stop)])
            return values, ["".join(map(tag, parts)) for parts in zip(*inputs, strict=True)]
        if self._single:
            values = [row[start] for row in rows]
            if set(map(type, values)) <= {str}:
                if max(map(len, values), default=0) <= SHORT_TEXT:
                    return values, values
                return values, [v if len(v) <= SHORT_TEXT else digest(tag(v)) for v in values]
            return values, [v if type(v) is str else (tag(v),) for v in values]  # the number 5 is not the text "i5;"
        values = [row[start:stop] for row in rows]
        return values, ["".join(map(tag, parts)) for parts in values]

    def _told(self, columns: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """The inputs, column by column, as fingerprints are made of them: of a path only what it leads to."""
        pairs = zip(columns, self.source.steps, strict=True)
        return [[told(value, steps) for value in column] if steps else column for column, steps in pairs]

    # -- writing ------------------------------------------------------------------------------------

    def prepare(self, batch: OutputBatch) -> OutputBatch:
        encoded = apply(self.encode, batch.outputs)
        return replace(batch, prepared=self._parameters(replace(batch, outputs=encoded)))

    def _write_chunk(self, batch: OutputBatch, start: int, stop: int) -> tuple[Sequence[int], float | None]:
        width = self._sql.width
        with self.session.writing_raw() as connection:
            self._fill(connection.execute, batch.prepared[start * width : stop * width])
            self._give_way(connection)
            connection.execute("BEGIN IMMEDIATE")
            began = time.perf_counter()
            missed = self._write_filled(connection, batch.keys[start:stop], self._sql.guard(connection.execute))
            self._held_s = time.perf_counter() - began
        return missed, self._held_s

    def _write_filled(self, connection: Any, keys: Sequence[Key], guard: Guard) -> list[int]:
        """Write what the temporary table has; the positions of rows that are not as they were read."""
        sql, execute = self._sql, connection.execute
        self._require_newest(guard.version)
        missed: list[int] = []
        if guard.has_listener:
            execute(sql.begin_writing)
        if guard.has_triggers:
            with lenient(connection):
                missed = self._update_beside_triggers(execute, keys)
        elif execute(sql.update).rowcount != len(keys):
            with lenient(connection):
                missed = self._drop_unmatched(execute, keys)
        failpoint("in-write")
        if guard.has_listener:
            execute(sql.end_writing)
        execute(sql.record)
        if guard.has_errors:
            unwritten = set(missed)
            written = [key for i, key in enumerate(keys) if i not in unwritten]
            connection.executemany(sql.clear_error, [(dump_key(key),) for key in written])
        return missed

    def write_all(self, batch: OutputBatch, after: Sequence[tuple[str, Sequence[Any]]]) -> bool:
        """Write a small batch and run other statements after it, in one transaction; False, and nothing is done,
        where a row is not as it was read, or the user's triggers may have a say."""
        prepared = batch.prepared if batch.prepared is not None else self.prepare(batch).prepared
        with self.session.writing_raw() as connection:
            self._fill(connection.execute, prepared)
            connection.execute("BEGIN IMMEDIATE")
            began = time.perf_counter()
            guard = self._sql.guard(connection.execute)
            if guard.has_triggers or self._write_filled(connection, batch.keys, guard):
                connection.rollback()
                return False
            for statement, parameters in after:
                connection.execute(statement, parameters)
            failpoint("in-finish")
            self._held_s = time.perf_counter() - began
        return True

    def _give_way(self, connection: Any) -> None:
        """Where others write as well, leave the file alone for as long as it was held.

        Who waits for SQLite's lock only tries now and then, and would find it taken nearly
        every time. Alone, nothing is waited for.
        """
        seen = id(connection), connection.execute("PRAGMA data_version").fetchone()[0]
        if self._seen is not None and self._seen != seen:
            time.sleep(min(self._held_s, self.session.settings.write_target_s))
        self._seen = seen

    def _update_beside_triggers(self, execute: Any, keys: Sequence[Key]) -> list[int]:
        """Write where triggers of the user's may change the row in the same statement: what is recorded is what is
        there afterwards. The positions that were changed before, or whose inputs a trigger changed.

        These are computed anew, once: RowRejected where the next write changes them again, and so would each; and
        where a trigger keeps an output from being written.
        """
        missed = self._drop_unmatched(execute, keys)
        updated = set(self._keys(execute(self._sql.update_telling).fetchall()))
        moved = self._drop_unmatched(execute, keys)
        if any(keys[i] in self._moved for i in moved):
            raise input_changed_by_trigger(self.info)
        left = [*missed, *moved]
        self._moved.difference_update(keys)
        self._moved.update(keys[i] for i in moved)
        width = self.width
        rows = execute(self._sql.altered).fetchall()
        if any(row[width] is None for row in rows) or not updated.issuperset(self._keys(rows)):
            raise output_kept_out(self.info)
        columns = [[row[i] for row in rows] for i in range(width, width + 1 + len(self.source.inputs))]
        hashes = fingerprints(*self._salted(len(rows)), columns[0], *self._told(columns[1:])) if rows else []
        for row, found in zip(rows, hashes, strict=True):
            execute(*self._sql.set_fingerprint(row[:width], found))
        return sorted(left)

    def _drop_unmatched(self, execute: Any, keys: Sequence[Key]) -> list[int]:
        """Take rows whose inputs changed out of the batch; return their positions."""
        changed = set(self._keys(execute(self._sql.drop_unmatched).fetchall()))
        return [i for i, key in enumerate(keys) if key in changed]

    def _parameters(self, batch: OutputBatch) -> list[Any]:
        """The temporary table's rows, flat: key, output, inputs, fingerprint."""
        keys, outputs, witnesses = batch.keys, batch.outputs, batch.witnesses
        stored = [int(o) for o in outputs] if set(map(type, outputs)) == {bool} else outputs
        columns = [witnesses] if self._single else list(zip(*witnesses, strict=True))
        hashes = fingerprints(*self._salted(len(stored)), stored, *self._told(columns))
        if self.width == 1 and self._single:
            return list(chain.from_iterable(zip(keys, outputs, witnesses, hashes, strict=True)))
        key_parts = [(k,) for k in keys] if self.width == 1 else keys
        inputs = [(x,) for x in witnesses] if self._single else witnesses
        rows = zip(key_parts, outputs, inputs, hashes, strict=True)
        return [value for k, o, x, h in rows for value in (*k, o, *x, h)]

    def _salted(self, rows: int) -> list[list[str]]:
        """The prediction's parameters as a column of the fingerprint; none where there are none."""
        return [[text] * rows for text in self._salt]

    def _mark_failed(self, connection: sa.Connection, failures: Sequence[Failure]) -> Sequence[Failure]:
        raw: Any = connection.connection.driver_connection
        parameters: list[Any] = []
        for failure in failures:
            if is_keyless(failure.key):
                continue
            inputs = (failure.witness,) if self._single else tuple(failure.witness)
            key = (failure.key,) if self.width == 1 else tuple(failure.key)
            compared = [column[0] for column in self._told([[value] for value in inputs])]
            parameters += (*key, None, *inputs, fingerprint((*self._salt, *compared)))
        self._fill(raw.execute, parameters)
        with lenient(raw):
            marked = set(self._keys(raw.execute(self._sql.mark_failed).fetchall()))
        return [failure for failure in failures if failure.key in marked or is_keyless(failure.key)]

    def _fill(self, execute: Any, parameters: list[Any]) -> None:
        """Put rows into the temporary table."""
        sql, whole = self._sql, ROWS_A_STATEMENT * self._sql.width
        execute(sql.create_temporary)
        execute(sql.empty_temporary)
        for first in range(0, len(parameters), whole):
            part = parameters[first : first + whole]
            try:
                execute(sql.fill(len(part) // sql.width), part)
            except UnicodeEncodeError:
                for start in range(0, len(part), sql.width):
                    marks, values = bound(part[start : start + sql.width])
                    execute(sql.fill_with(marks), values)


class SqliteSideTarget(SideTarget, SqliteTarget):
    """An output in a side table; a row's items are compared as the text of their literals."""

    def _stored_column(self) -> Any:
        items = f"SELECT quote(pinnacle_item.value) AS item {self._side_of_row()} ORDER BY pinnacle_item.position"
        return sa.literal_column(f"(SELECT group_concat(item, char(10)) FROM ({items}))")

    def _locked_select(self, part: Sequence[Key]) -> Any:
        return self._page_select(partial(self._among, part), None, with_state=False)

    def _insert(self, table: sa.Table) -> Any:
        return sqlite.insert(table)

    def _record(self, connection: sa.Connection, keys: Sequence[Key]) -> None:
        raw: Any = connection.connection.driver_connection
        for part in self._parts(keys):
            query = self.source.select(*self.source.key, *self.source.inputs, self._stored_column())
            rows = self._fetch(connection, query.where(self._among(part, self.source.key)))
            columns = [[row[i] for row in rows] for i in range(self.width, len(rows[0]))]
            hashes = fingerprints(*self._salted(len(rows)), columns[-1], *self._told(columns[:-1]))
            marks = [(*row[: self.width], found) for row, found in zip(rows, hashes, strict=True)]
            try:
                raw.executemany(self._sql.record_one, marks)
            except UnicodeEncodeError:
                for mark in marks:
                    raw.execute(*self._sql.record_bound(mark))
        self._clear_errors(connection, keys)
