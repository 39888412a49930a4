"""The SQL text of one output's write-back on PostgreSQL, and the types it is written with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.postgres.session import PostgresSession
from pinnacle.backends.sql.schema import error, output
from pinnacle.backends.sql.source import SqlSource
from pinnacle.base.rows import OutputInfo

HASHED_AS = {
    "character varying": "text", "citext": "text", "character varying[]": "text[]", "citext[]": "text[]",
    "smallint": "bigint", "integer": "bigint", "smallint[]": "bigint[]", "integer[]": "bigint[]",
}  # fmt: skip
"""Types whose values are also those of a wider one, and reach a model as the same. Not so are ``real``, which
widens to other digits, ``character(n)``, which is padded, and numbers with another count of decimals."""


FIRST_CUSTOM_OID = 16384
"""From here on types are made by CREATE TYPE, CREATE DOMAIN or an extension."""
NEVER = "CAST('' AS bytea)"
"""The fingerprint of a row whose input a trigger of the user's has changed in the write of its output: no row's."""


class Kind:
    """A column's type, as the catalog of the database describes it; ``bare`` without its length or
    precision: a cast to varchar(5) would cut a value that an assignment refuses. ``hashed``: the type
    that values are hashed as, where that is another: types that hold the same values hash the same.
    ``number``: the column's place in its table, which a renaming leaves."""

    def __init__(
        self, oid: int, declared: str, bare: str, send: str, category: str, collation: str | None, base: str | None,
        number: int,
    ) -> None:  # fmt: skip
        self.oid, self.declared, self.bare, self.send, self.number = oid, declared, bare, send, number
        self.is_array = category == "A"
        self.hashed = HASHED_AS.get(base or bare, base)
        self.with_collation = f"{declared} COLLATE {collation}" if collation else declared


def column_kinds(connection: sa.Connection, table: str) -> dict[str | None, Kind]:
    """A table's columns and their types, by name."""
    rows = connection.execute(
        sa.text(
            "SELECT a.attname, a.atttypid::bigint, format_type(a.atttypid, a.atttypmod), "
            "format_type(a.atttypid, NULL), CASE e.typsend WHEN 0 THEN '-' ELSE t.typsend::text END, t.typcategory, "
            "CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END, "
            "CASE t.typtype WHEN 'e' THEN 'text' WHEN 'd' THEN format_type(t.typbasetype, NULL) END, a.attnum "
            "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' "
            "WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND NOT a.attisdropped"
        ),
        {"table": table},
    )
    return {row[0]: Kind(*row[1:]) for row in rows}


@dataclass(frozen=True)
class Hashes:
    """What fingerprints are made of, in SQL: a row's inputs; these and what a failed row is known by; and with
    them the output as stored."""

    inputs: Any
    failed: Any
    full: Any


class Statements:
    """What every output needs, wherever its values are: to set rows aside, and to forget that they were."""

    def __init__(
        self, session: PostgresSession, source: SqlSource, info: OutputInfo, version: int,
        kinds: Mapping[str | None, Kind], hashes: Hashes,
    ) -> None:  # fmt: skip
        self.keys = [f"k{i}" for i in range(len(source.key))]
        self.table = escaped(session.quote_table(source.actual))
        self.own = [f"{self.table}.{escaped(session.quote(column.name))}" for column in source.key]
        self.kinds = [escaped(kinds[column.name].declared) for column in source.key]
        self.state, self.errors = session.own(f"pinnacle_state_{info.id}"), session.own(error.name)
        self.inputs_hash = _text(hashes.inputs, session)
        listed, returned = ", ".join(self.keys), ", ".join(self.own)
        self.upsert = (
            f"ON CONFLICT ({listed}) DO UPDATE SET fingerprint = excluded.fingerprint, version = excluded.version, "
            "failed = excluded.failed"
        )
        on = f"to_regclass({escaped(quoted(session.quote_table(source.actual)))})"
        self.has_triggers = (
            f"EXISTS (SELECT FROM pg_trigger WHERE tgrelid = ANY(ARRAY(SELECT CAST({on} AS oid) UNION ALL "
            f"SELECT CAST(relid AS oid) FROM pg_partition_tree({on}))) AND NOT tgisinternal "
            "AND tgenabled <> 'D' AND tgtype & 16 <> 0 AND NOT tgname ~ '^~?pinnacle_[0-9]+_')"
        )
        self.clear_errors = f"DELETE FROM {self.errors} WHERE output_id = {info.id} AND key = ANY(%s)"
        chosen = " AND ".join(f"{o} = %s::{kind}" for o, kind in zip(self.own, self.kinds, strict=True))
        self.mark_failed = (
            f"INSERT INTO {self.state} ({listed}, fingerprint, version, failed) SELECT {returned}, "
            f"{_text(hashes.failed, session)}, {version}, true FROM {self.table} WHERE {chosen} "
            f"AND {self.inputs_hash} = %s {self.upsert}"
        )


class ColumnStatements(Statements):
    """For outputs in a column of the user's table: one statement that writes and records a batch."""

    def __init__(
        self, session: PostgresSession, source: SqlSource, info: OutputInfo, version: int,
        kinds: Mapping[str | None, Kind], hashes: Hashes,
    ) -> None:  # fmt: skip
        super().__init__(session, source, info, version, kinds, hashes)
        name, stored = escaped(session.quote(info.name)), escaped(kinds[info.name].bare)
        same_row = " AND ".join(f"{o} = pinnacle_b.{k}" for o, k in zip(self.own, self.keys, strict=True))
        unchanged = f"{self.inputs_hash} = pinnacle_b.h"
        listed, returned = ", ".join(self.keys), ", ".join(self.own)
        outputs = info.type.on_postgres().cast.format(type=stored)
        arrays = ", ".join([*(f"%b::{kind}[]" for kind in self.kinds), outputs, "%b::bytea[]"])
        batch = f"pinnacle_b ({listed}, o, h, n) AS MATERIALIZED (SELECT * FROM unnest({arrays}) WITH ORDINALITY), "
        guard = (
            f"pinnacle_guard AS MATERIALIZED (SELECT version, set_config('pinnacle.writer', '{info.id}', true), "
            f"set_config('synchronous_commit', %s, true) FROM {session.own(output.name)} WHERE id = {info.id} "
            "FOR KEY SHARE), "
        )
        allowed = f"(SELECT version FROM pinnacle_guard) <= {version}"
        written = (
            f"RETURNING pinnacle_b.n, {returned}, "
            f"CASE WHEN {unchanged} THEN {_text(hashes.full, session)} ELSE {NEVER} END AS fingerprint), "
            f"pinnacle_recorded AS (INSERT INTO {self.state} ({listed}, fingerprint, version, failed) "
            f"SELECT {', '.join(f'pinnacle_u.{k}' for k in self.keys)}, pinnacle_u.fingerprint, {version}, "
            f"false FROM pinnacle_u {self.upsert}) "
        )
        known = (
            "SELECT NULL, (SELECT version FROM pinnacle_guard), "
            f"EXISTS (SELECT 1 FROM {self.errors} WHERE output_id = {info.id}), {self.has_triggers}"
        )
        tail = (
            f"{written}(SELECT n, NULL::integer, NULL::boolean, NULL::boolean FROM pinnacle_b "
            f"EXCEPT ALL SELECT n, NULL, NULL, NULL FROM pinnacle_u) UNION ALL {known}"
        )
        updated = f"pinnacle_u (n, {listed}, fingerprint) AS (UPDATE {self.table} SET {name} = pinnacle_b.o FROM "
        matching = f"WHERE {same_row} AND {unchanged} AND {allowed}"
        self.write = f"WITH {guard}{batch}{updated}pinnacle_b {matching} {tail}"
        locked = (
            f"pinnacle_free AS MATERIALIZED (SELECT pinnacle_b.* FROM pinnacle_b JOIN {self.table} ON {same_row} "
            f"WHERE {unchanged} ORDER BY {returned} "
            f"FOR NO KEY UPDATE OF {escaped(session.quote(source.actual.name))} SKIP LOCKED), "
        )
        self.write_unlocked = f"WITH {guard}{batch}{locked}{updated}pinnacle_free AS pinnacle_b {matching} {tail}"
        self.ways = self.write, self.write_unlocked
        # Rows that were there as they were read, locked, and not updated all the same: a trigger has a say in it.
        telling = (
            f"{written}SELECT n, NULL::integer, NULL::boolean, n IN (SELECT n FROM pinnacle_free) FROM pinnacle_b "
            f"WHERE n NOT IN (SELECT n FROM pinnacle_u) UNION ALL {known}"
        )
        self.write_telling = f"WITH {guard}{batch}{locked}{updated}pinnacle_free AS pinnacle_b {matching} {telling}"
        full, state_key = (
            _text(hashes.full, session),
            " AND ".join(f"pinnacle_s.{k} = pinnacle_b.{k}" for k in self.keys),
        )
        joined = f"pinnacle_b JOIN {self.table} ON {same_row}"
        # What triggers have changed after the statement that wrote: inputs, or an output, which is recorded as it is.
        self.settle_altered = (
            f"WITH pinnacle_b ({listed}, h, n) AS MATERIALIZED (SELECT * FROM unnest("
            f"{', '.join([*(f'%b::{kind}[]' for kind in self.kinds), '%b::bytea[]'])}) WITH ORDINALITY), "
            f"pinnacle_recorded AS (UPDATE {self.state} AS pinnacle_s SET fingerprint = {full} FROM {joined} "
            f"WHERE {state_key} AND {unchanged} AND pinnacle_s.fingerprint <> {full}) "
            f"SELECT pinnacle_b.n, {unchanged}, {self.table}.{name} IS NULL FROM {joined} "
            f"WHERE NOT {unchanged} OR {self.table}.{name} IS NULL"
        )


def _text(expression: Any, session: PostgresSession) -> str:
    compiled = expression.compile(
        dialect=session.dialect, compile_kwargs={"literal_binds": True, "include_table": True}
    )
    return escaped(session.plain(str(compiled)))


def quoted(text: str) -> str:
    """Text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def escaped(text: str) -> str:
    """SQL text as psycopg takes it: a % begins a placeholder."""
    return text.replace("%", "%%")
