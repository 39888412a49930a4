"""The SQL text of one output's write-back on PostgreSQL, and the types it is written with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pinnacle.backends.sql.schema import error, output

if TYPE_CHECKING:
    from pinnacle.backends.postgres.backend import PostgresBackend
    from pinnacle.backends.postgres.target import PostgresTarget


HASHED_AS = {
    "character varying": "text", "citext": "text", "character varying[]": "text[]", "citext[]": "text[]",
    "smallint": "bigint", "integer": "bigint", "smallint[]": "bigint[]", "integer[]": "bigint[]",
}  # fmt: skip
"""Types whose values are also those of a wider one, and reach a model as the same. Not so are ``real``, which
widens to other digits, ``character(n)``, which is padded, and numbers with another count of decimals."""


class Kind:
    """A column's type, as the catalog of the database describes it; ``bare`` without its length or
    precision: a cast to varchar(5) would cut a value that an assignment refuses. ``hashed``: the type
    that values are hashed as, where that is another: types that hold the same values hash the same."""

    def __init__(
        self, oid: int, declared: str, bare: str, send: str, category: str, collation: str | None, base: str | None
    ) -> None:
        self.oid, self.declared, self.bare, self.send = oid, declared, bare, send
        self.is_array = category == "A"
        self.hashed = HASHED_AS.get(base or bare, base)
        self.with_collation = f"{declared} COLLATE {collation}" if collation else declared


def column_kinds(connection: sa.Connection, table: str) -> dict[str | None, Kind]:
    """A table's columns and their types, by name."""
    rows = connection.execute(
        sa.text(
            "SELECT a.attname, a.atttypid::bigint, format_type(a.atttypid, a.atttypmod), "
            "format_type(a.atttypid, NULL), t.typsend::text, t.typcategory, "
            "CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END, "
            "CASE t.typtype WHEN 'e' THEN 'text' WHEN 'd' THEN format_type(t.typbasetype, NULL) END "
            "FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND NOT a.attisdropped"
        ),
        {"table": table},
    )
    return {row[0]: Kind(*row[1:]) for row in rows}


class Statements:
    """What every output needs, wherever its values are: to set rows aside, and to forget that they were."""

    def __init__(self, target: PostgresTarget) -> None:
        backend, source, info = target.backend, target.source, target.info
        self.keys = [f"k{i}" for i in range(target.width)]
        self.table = escaped(backend.quote_table(source.actual))
        self.own = [f"{self.table}.{escaped(backend.quote(column.name))}" for column in source.key]
        self.kinds = [escaped(target.kinds[column.name].declared) for column in source.key]
        self.state, self.errors = backend.own(f"pinnacle_state_{info.id}"), backend.own(error.name)
        self.inputs_hash = _text(target.inputs_hash, backend)
        listed, returned = ", ".join(self.keys), ", ".join(self.own)
        self.upsert = (
            f"ON CONFLICT ({listed}) DO UPDATE SET fingerprint = excluded.fingerprint, version = excluded.version, "
            "failed = excluded.failed"
        )
        self.clear_errors = f"DELETE FROM {self.errors} WHERE output_id = {info.id} AND key = ANY(%s)"
        chosen = " AND ".join(f"{o} = %s::{kind}" for o, kind in zip(self.own, self.kinds, strict=True))
        self.mark_failed = (
            f"INSERT INTO {self.state} ({listed}, fingerprint, version, failed) SELECT {returned}, "
            f"{_text(target.failed_hash, backend)}, {target.version}, true FROM {self.table} WHERE {chosen} "
            f"AND {self.inputs_hash} = %s {self.upsert}"
        )


class ColumnStatements(Statements):
    """For outputs in a column of the user's table: one statement that writes and records a batch."""

    def __init__(self, target: PostgresTarget) -> None:
        super().__init__(target)
        backend, source, info = target.backend, target.source, target.info
        name, stored = escaped(backend.quote(info.name)), escaped(target.kinds[info.name].bare)
        same_row = " AND ".join(f"{o} = pinnacle_b.{k}" for o, k in zip(self.own, self.keys, strict=True))
        unchanged = f"{self.inputs_hash} = pinnacle_b.h"
        listed, returned = ", ".join(self.keys), ", ".join(self.own)
        outputs = info.type.on_postgres().cast.format(type=stored)
        arrays = ", ".join([*(f"%b::{kind}[]" for kind in self.kinds), outputs, "%b::bytea[]"])
        batch = f"pinnacle_b ({listed}, o, h, n) AS MATERIALIZED (SELECT * FROM unnest({arrays}) WITH ORDINALITY), "
        guard = (
            f"pinnacle_guard AS MATERIALIZED (SELECT version, set_config('pinnacle.writer', '{info.id}', true), "
            f"set_config('synchronous_commit', %s, true) FROM {backend.own(output.name)} WHERE id = {info.id} "
            "FOR KEY SHARE), "
        )
        allowed = f"(SELECT version FROM pinnacle_guard) <= {target.version}"
        tail = (
            f"RETURNING pinnacle_b.n, {returned}, {_text(target.full_hash, backend)} AS fingerprint), "
            f"pinnacle_recorded AS (INSERT INTO {self.state} ({listed}, fingerprint, version, failed) "
            f"SELECT {', '.join(f'pinnacle_u.{k}' for k in self.keys)}, pinnacle_u.fingerprint, {target.version}, "
            f"false FROM pinnacle_u {self.upsert}) "
            "(SELECT n, NULL::integer, NULL::boolean FROM pinnacle_b "
            "EXCEPT ALL SELECT n, NULL, NULL FROM pinnacle_u) UNION ALL "
            "SELECT NULL, (SELECT version FROM pinnacle_guard), "
            f"EXISTS (SELECT 1 FROM {self.errors} WHERE output_id = {info.id})"
        )
        updated = f"pinnacle_u (n, {listed}, fingerprint) AS (UPDATE {self.table} SET {name} = pinnacle_b.o FROM "
        matching = f"WHERE {same_row} AND {unchanged} AND {allowed}"
        self.write = f"WITH {guard}{batch}{updated}pinnacle_b {matching} {tail}"
        locked = (
            f"pinnacle_free AS MATERIALIZED (SELECT pinnacle_b.* FROM pinnacle_b JOIN {self.table} ON {same_row} "
            f"WHERE {unchanged} ORDER BY {returned} "
            f"FOR NO KEY UPDATE OF {escaped(backend.quote(source.actual.name))} SKIP LOCKED), "
        )
        self.write_unlocked = f"WITH {guard}{batch}{locked}{updated}pinnacle_free AS pinnacle_b {matching} {tail}"


def _text(expression: Any, backend: PostgresBackend) -> str:
    compiled = expression.compile(
        dialect=backend.dialect, compile_kwargs={"literal_binds": True, "include_table": True}
    )
    return escaped(backend.plain(str(compiled)))


def escaped(text: str) -> str:
    """SQL text as psycopg takes it: a % begins a placeholder."""
    return text.replace("%", "%%")
