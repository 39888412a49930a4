"""The SQL text of one output's write-back on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import sqlalchemy as sa

from pinnacle.backends.sql.schema import error, identity, listener, output
from pinnacle.backends.sql.source import SqlSource
from pinnacle.backends.sqlite.session import SqliteSession
from pinnacle.backends.sqlite.text import bound
from pinnacle.base.rows import OutputInfo


class Guard(NamedTuple):
    """The output's version in the registry, None where it was removed; whether it has rows set aside, whether it has a
    listener, and whether its table has triggers of the user's."""

    version: int | None
    has_errors: bool
    has_listener: bool
    has_triggers: bool


class Statements:
    """Statements over ``temp.pinnacle_batch_<id>_<shape>``, whose columns are the key (k0, ...), the
    output (o), the inputs as read (x0, ...) and the fingerprint (h). A connection keeps that of a former key."""

    def __init__(self, session: SqliteSession, source: SqlSource, info: OutputInfo, version: int) -> None:
        self._session, self._info, self._version = session, info, version
        quote, width = session.quote, len(source.key)
        keys = [f"k{i}" for i in range(width)]
        inputs = [f"x{i}" for i in range(len(source.inputs))]
        columns = [*keys, "o", *inputs, "h"]
        self.width = len(columns)
        kinds = [_declared(source.actual.c[column.name], session.dialect) for column in source.key]
        declared = ", ".join(f"{k} {kind}" for k, kind in zip(keys, kinds, strict=True))
        temporary = f"pinnacle_batch_{info.id}_{crc32(f'{declared} {len(inputs)}'.encode()):08x}"
        batch, state = f"temp.{temporary}", session.own(f"pinnacle_state_{info.id}")
        table = session.quote_table(source.actual)
        own_keys = [f"{table}.{quote(column.name)}" for column in source.key]
        same_row = " AND ".join(f"{own} = b.{k}" for own, k in zip(own_keys, keys, strict=True))
        texts = [_text(expression, session.dialect) for expression in source.inputs]
        unchanged = " AND ".join(_same(text, f"b.{x}") for text, x in zip(texts, inputs, strict=True))
        matching = f"FROM {batch} AS b CROSS JOIN {table} ON {same_row} WHERE {unchanged}"
        listed, chosen = ", ".join(keys), ", ".join(f"b.{k}" for k in keys)
        own_key = own_keys[0] if width == 1 else f"({', '.join(own_keys)})"
        rowid = "" if width == 1 and kinds[0] == "INTEGER" else " WITHOUT ROWID"
        rest = ", ".join(["o", *inputs, "h"])
        name, own_state = quote(info.name), f"{listed}, fingerprint, version, failed"

        self.create_temporary = (
            f"CREATE TEMP TABLE IF NOT EXISTS {temporary} ({declared}, {rest}, PRIMARY KEY ({listed})){rowid}"
        )
        self.empty_temporary = f"DELETE FROM {batch}"
        self._insert = f"INSERT INTO {batch} ({', '.join(columns)}) VALUES "
        self._tuple = f"({', '.join('?' * self.width)})"
        self.update = (
            f"UPDATE {table} SET {name} = (SELECT b.o FROM {batch} AS b WHERE {same_row}) "
            f"WHERE {own_key} IN (SELECT {chosen} {matching})"
        )
        self.update_telling = f"{self.update} RETURNING {', '.join(quote(column.name) for column in source.key)}"
        self.drop_unmatched = (
            f"DELETE FROM {batch} WHERE ({listed}) NOT IN (SELECT {chosen} {matching}) RETURNING {listed}"
        )
        # Outputs that a trigger of the user's changed in the statement that wrote them, with the inputs as read.
        values = ", ".join(f"b.{x}" for x in inputs)
        self.altered = (
            f"SELECT {chosen}, {table}.{name}, {values} FROM {batch} AS b CROSS JOIN {table} ON {same_row} "
            f"WHERE NOT ({_same(f'{table}.{name}', 'b.o')})"
        )
        self._set_fingerprint = f"UPDATE {batch} SET h = ? WHERE {' AND '.join(f'{k} = {{}}' for k in keys)}"
        upsert = (
            f"ON CONFLICT ({listed}) DO UPDATE SET fingerprint = excluded.fingerprint, version = excluded.version, "
            "failed = excluded.failed"
        )
        self.record = (
            f"INSERT INTO {state} ({own_state}) SELECT {listed}, h, {version}, 0 FROM {batch} WHERE true {upsert}"
        )
        self._record = f"INSERT INTO {state} ({own_state}) VALUES ({{}}, {version}, 0) {upsert}"
        self.record_one = self._record.format(", ".join("?" * (width + 1)))
        self.mark_failed = (
            f"INSERT INTO {state} ({own_state}) SELECT {chosen}, b.h, {version}, 1 "
            f"{matching} {upsert} RETURNING {listed}"
        )
        errors, listeners = session.own(error.name), session.own(listener.name)
        self._guard = (
            f"SELECT (SELECT version FROM {session.own(output.name)} WHERE id = {info.id}), "
            f"EXISTS (SELECT 1 FROM {errors} WHERE output_id = {info.id}), "
            f"EXISTS (SELECT 1 FROM {listeners} WHERE output_id = {info.id}), "
            f"EXISTS (SELECT 1 FROM {quote(source.actual.schema or 'main')}.sqlite_master WHERE type = 'trigger' "
            f"AND tbl_name = {_literal(source.actual.name)} COLLATE NOCASE AND name NOT GLOB 'pinnacle_[0-9]*'), "
            f"(SELECT id FROM {session.own(identity.name)})"
        )
        # What triggers see while this output is written by its own model.
        self.begin_writing, self.end_writing = (
            f"UPDATE {listeners} SET is_writing = {flag} WHERE output_id = {info.id}" for flag in (1, 0)
        )
        self.clear_error = f"DELETE FROM {errors} WHERE output_id = {info.id} AND key = ?"

    def fill(self, rows: int) -> str:
        """The INSERT of ``rows`` rows into the temporary table."""
        return _fill(self._insert, self._tuple, rows)

    def fill_with(self, marks: Sequence[str]) -> str:
        """The INSERT of one row whose values are marked so."""
        return f"{self._insert}({', '.join(marks)})"

    def record_bound(self, row: Sequence[Any]) -> tuple[str, list[Any]]:
        """`record_one` for a row that the driver does not take as it is, with its parameters."""
        marks, values = bound(row)
        return self._record.format(", ".join(marks)), values

    def set_fingerprint(self, key: Sequence[Any], found: bytes) -> tuple[str, list[Any]]:
        """Give a row of the temporary table another fingerprint; with the parameters."""
        marks, values = bound(key)
        return self._set_fingerprint.format(*marks), [found, *values]

    def guard(self, execute: Callable[[str], Any]) -> Guard:
        """What a write must know. DatabaseReplaced where this is another database."""
        version, has_errors, has_listener, has_triggers, found = execute(self._guard).fetchone()
        self._session.require_identity(found)
        return Guard(version, bool(has_errors), bool(has_listener), bool(has_triggers))


@lru_cache(maxsize=256)
def _fill(insert: str, row: str, rows: int) -> str:
    return insert + ", ".join([row] * rows)


def _text(expression: Any, dialect: sa.Dialect) -> str:
    return str(expression.compile(dialect=dialect, compile_kwargs={"literal_binds": True, "include_table": True}))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _same(text: str, stored: str) -> str:
    """Equal in type and value, whatever the column's collation."""
    return f"{text} IS {stored} COLLATE BINARY AND typeof({text}) = typeof({stored})"


def _declared(column: sa.Column[Any], dialect: sa.Dialect) -> str:
    return str(column.type.compile(dialect=dialect))
