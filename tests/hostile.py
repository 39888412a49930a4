"""Hostile values: of every type that a column can have, whatever the database takes, from a seed.

A table has a column of each type, and a row a value in one of them. What a row is worth is found
by another way than pinnacle's: SQLAlchemy reads the one value, or raises.
"""

from __future__ import annotations

import json
import random
import string
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

TABLE = "hostile"
UNREADABLE = object()
Value = Any
Generator = Callable[[random.Random], Value]


class Refusing(sa.types.TypeDecorator[str]):
    """A type of the user's own, which refuses every value with an odd number of characters."""

    impl = sa.Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is not None and len(value) % 2:
            raise LookupError(f"{len(value)} characters")
        return value


DECLARED = {"an_enum": sa.Enum("new", "old", name="state", native_enum=False), "own": Refusing()}
"""Columns that the user's table object declares as something else than the database does."""


@dataclass(frozen=True)
class Hostile:
    """The table, as the user's program knows it, and the column that each row has its value in."""

    table: sa.Table
    columns: tuple[str, ...]
    places: dict[int, str]


def told(value: Any) -> str:
    """What the model makes of a value; all there is of it, and text that any column takes."""
    return f"{type(value).__name__} {value!r}"[:2_000] if not _is_deep(value) else "deep"


def _is_deep(value: Any) -> bool:
    try:
        repr(value)
    except RecursionError:
        return True
    return False


# -- values ----------------------------------------------------------------------------------------


def text(rng: random.Random) -> str:
    """Of any characters but NUL, in any length that is not usual."""
    alphabet = rng.choice([string.ascii_letters, string.printable, "äöüß€", "😀𝕏\u202e\ufeff", "'\"\\%{}[]:,"])
    return "".join(rng.choices(alphabet, k=rng.choice([0, 1, 2, 7, 40, 3_000])))


def number(rng: random.Random) -> str:
    """A number as text; some are larger, smaller or finer than any type of Python's but one."""
    return rng.choice(
        [
            str(rng.randint(-10, 10)), str(rng.choice([1, -1]) * 2 ** rng.choice([15, 16, 31, 32, 53, 63, 64, 200])),
            repr(rng.uniform(-1e9, 1e9)), f"{rng.random()}e{rng.randint(-320, 320)}", "NaN", "Infinity", "-Infinity",
            f"{rng.randint(0, 10**60)}.{rng.randint(0, 10**60)}", "-0.0", "0.30000000000000004",
        ]
    )  # fmt: skip


def document(rng: random.Random, depth: int = 0) -> str:
    """JSON as text, or what is nearly JSON."""
    if depth == 0 and rng.random() < 0.15:
        levels = rng.choice([50, 5_000])
        return '{"a":' * levels + "1" + "}" * levels
    if depth > 3 or rng.random() < 0.4:
        plain = ["true", "null", "1e400", '"\\u0000"', '"\\ud83d\\ude00"', '"\\ud800"', "NaN", "{", '"é"']
        return rng.choice([*plain, number(rng), json.dumps(text(rng))])
    items = [document(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.5:
        return f"[{','.join(items)}]"
    return "{" + ",".join(f"{json.dumps(rng.choice(['a', '0', 'é', '']))}:{item}" for item in items) + "}"


def date(rng: random.Random) -> str:
    year = rng.choice([1, 4, 1900, 2024, 9_999, 10_000, 20_000, 294_276])
    era = rng.choice(["", "", " BC"])
    return rng.choice(["infinity", "-infinity", "", f"{year:04}-{rng.randint(1, 12):02}-{rng.randint(1, 31):02}{era}"])


def time(rng: random.Random) -> str:
    return rng.choice(["24:00", "24:00:00", "23:59:60", f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:07.123456"])


def moment(rng: random.Random) -> str:
    day, _, era = date(rng).partition(" ")
    zone = rng.choice(["", "+00", "+15:59:59", "-12"])
    return day if not day[:4].isdigit() else f"{day} {time(rng)}{zone} {era}".strip()


def span(rng: random.Random) -> str:
    unit = rng.choice(["mon", "years", "days", "hours", "microseconds", "mon -3 days"])
    return rng.choice(["infinity", f"{rng.choice([0, 1, -1, 14, 100_000, 100_000_000])} {unit}"])


def raw(rng: random.Random) -> str:
    return "\\x" + rng.randbytes(rng.choice([0, 1, 16, 300])).hex()


def address(rng: random.Random) -> str:
    four = ".".join(str(rng.randint(0, 255)) for _ in range(4))
    six = ":".join(f"{rng.randint(0, 65_535):x}" for _ in range(8))
    return rng.choice([four, f"{four}/{rng.randint(0, 32)}", six, f"{six}/{rng.randint(0, 128)}", "08:00:2b:01:02:03"])


def shape(rng: random.Random) -> str:
    x, y = number(rng), number(rng)
    return rng.choice([f"({x},{y})", f"(({x},{y}),(1,2))", f"<({x},{y}),3>", f"{{{x},{y},1}}", f"[({x},1),(2,{y})]"])


def any_text(rng: random.Random) -> str:
    kinds = [text, number, document, date, time, moment, span, raw, address, shape, _bits, _uuid]
    return rng.choice(kinds)(rng)


def _bits(rng: random.Random) -> str:
    return "".join(rng.choices("01", k=rng.choice([1, 8, 64])))


def _uuid(rng: random.Random) -> str:
    return rng.randbytes(16).hex()


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array(rng: random.Random, of: Generator) -> str:
    items = [rng.choice(["NULL", _quoted(of(rng))]) for _ in range(rng.choice([0, 1, 3]))]
    flat = "{" + ",".join(items) + "}"
    return rng.choice([flat, flat, f"{{{flat}}}", f"[5:{4 + len(items)}]={flat}" if items else flat])


def range_of(rng: random.Random, of: Generator) -> str:
    low, high = (rng.choice(["", _quoted(of(rng))]) for _ in range(2))
    one = rng.choice(["empty", f"[{low},{high})", f"({low},{high}]"])
    return rng.choice([one, f"{{{one}}}"])


# -- PostgreSQL --------------------------------------------------------------------------------------

MEANT_FOR: dict[str, Generator] = {
    "date": date, "time": time, "timetz": time, "timestamp": moment, "timestamptz": moment, "interval": span,
    "json": document, "jsonb": document, "bytea": raw, "uuid": _uuid, "numeric": number, "float8": number,
    "float4": number, "int2": number, "int4": number, "int8": number, "inet": address, "cidr": address,
}  # fmt: skip

TYPES = """
SELECT t.oid::regtype::text, t.typname, t.typcategory, e.typname, r.rngsubtype::regtype::text
FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
LEFT JOIN pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid)
WHERE t.typtype IN ('b', 'r', 'm', 'e', 'd') AND t.typnamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace)
AND COALESCE(e.typtype, 'b') IN ('b', 'r', 'm', 'e') AND t.typname NOT LIKE 'pg\\_%' AND t.typname !~ '^_pg_'
ORDER BY t.oid
"""


PUT = f"""
CREATE FUNCTION put(key integer, place text, kind text, candidates text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE candidate text;
BEGIN
  FOREACH candidate IN ARRAY candidates || ARRAY[NULL] LOOP
    BEGIN
      EXECUTE format('INSERT INTO {TABLE} (id, %I) VALUES ($1, CAST($2 AS %s))', place, kind) USING key, candidate;
      RETURN;
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
END $$
"""
"""Add a row with the first of some texts that the type of a column takes, NULL where it takes none."""


def postgres_table(engine: sa.Engine, rows: int, seed: int) -> Hostile:
    """Rows of every type that the server knows."""
    rng = random.Random(seed)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TYPE mood AS ENUM ('sad', 'ok')")
        connection.exec_driver_sql("CREATE DOMAIN year AS integer CHECK (value > 0)")
        types = [_postgres_kind(*row) for row in connection.execute(sa.text(TYPES))]
    kinds: dict[str, tuple[str, Generator]] = {f"v{i}": kind for i, kind in enumerate(types)}
    declared = ", ".join(f"{column} {kind}" for column, (kind, _) in kinds.items())
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {TABLE} (id integer PRIMARY KEY, an_enum text, own text, {declared})")
        kinds |= {"an_enum": ("text", _word), "own": ("text", text)}
        names, places = list(kinds), dict[int, str]()
        connection.execute(sa.text(PUT))
        put = sa.text("SELECT put(:key, :column, :kind, CAST(:values AS text[]))")
        for key in range(1, rows + 1):
            column = names[key % len(names)]
            kind, generate = kinds[column]
            values = [rng.choice([generate, generate, generate, any_text])(rng) for _ in range(20)]
            connection.execute(put, {"key": key, "column": column, "kind": kind, "values": values})
            places[key] = column
    return _hostile(engine, places, DECLARED)


def _word(rng: random.Random) -> str:
    return rng.choice(["new", "old", "older", ""])


def _postgres_kind(
    kind: str, name: str, category: str, element: str | None, subtype: str | None
) -> tuple[str, Generator]:
    if category == "A" and element is not None:
        of = MEANT_FOR.get(element, any_text)
        return kind, lambda rng: array(rng, of)
    if subtype is not None:
        short = {"timestamp without time zone": "timestamp", "timestamp with time zone": "timestamptz"}
        of = MEANT_FOR.get(short.get(subtype, subtype), number)
        return kind, lambda rng: range_of(rng, of)
    return kind, MEANT_FOR.get(name, any_text)


# -- SQLite ------------------------------------------------------------------------------------------

SQLITE_TYPES = (
    "", "INTEGER", "BIGINT", "TEXT", "VARCHAR(5)", "REAL", "FLOAT", "NUMERIC", "DECIMAL(10, 2)", "BOOLEAN", "DATE",
    "TIME", "DATETIME", "TIMESTAMP", "JSON", "BLOB", "CHAR(3)", "UUID",
)  # fmt: skip


def sqlite_value(rng: random.Random) -> tuple[str, Value]:
    """How a value is bound, and it: of any class that SQLite stores, text that is not UTF-8 among them."""
    kind = rng.choice(["integer", "real", "text", "blob", "not UTF-8"])
    if kind == "integer":
        return "?", rng.choice([0, 1, -1, 2, 20_240_101, 2**63 - 1, -(2**63)])
    if kind == "real":
        return "?", rng.choice([0.1 + 0.2, -0.0, 1e308, float("inf"), 5e-324])
    if kind == "text":
        return "?", any_text(rng)
    found = rng.choice([rng.randbytes(rng.randint(0, 20)), struct.pack("<d", rng.random()), b"\xff\x00"])
    return ("?", found) if kind == "blob" else ("CAST(? AS TEXT)", b"caf\xe9" + found.replace(b"\0", b""))


def sqlite_table(engine: sa.Engine, rows: int, seed: int) -> Hostile:
    """Rows of every type that columns are declared with, and every class of value in each."""
    rng = random.Random(seed)
    kinds = {f"v{i}": kind for i, kind in enumerate(SQLITE_TYPES)} | {"an_enum": "TEXT", "own": "TEXT"}
    declared = ", ".join(f"{column} {kind}" for column, kind in kinds.items())
    names, places = list(kinds), dict[int, str]()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, {declared})")
        for key in range(1, rows + 1):
            column = names[key % len(names)]
            meant = {"DATE": date, "TIME": time, "DATETIME": moment, "JSON": document}.get(kinds[column])
            mark, value = ("?", meant(rng)) if meant and rng.random() < 0.5 else sqlite_value(rng)
            connection.exec_driver_sql(f"INSERT INTO {TABLE} (id, {column}) VALUES (?, {mark})", (key, value))
            places[key] = column
    return _hostile(engine, places, DECLARED)


def _hostile(engine: sa.Engine, places: dict[int, str], declared: dict[str, Any]) -> Hostile:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Did not recognize type", sa.exc.SAWarning)
        actual = sa.Table(TABLE, sa.MetaData(), autoload_with=engine)
    columns = [sa.Column(c.name, declared.get(c.name, c.type), primary_key=c.primary_key) for c in actual.c]
    return Hostile(sa.Table(TABLE, sa.MetaData(), *columns), tuple(c.name for c in columns[1:]), places)


# -- what is right -----------------------------------------------------------------------------------


def expected(engine: sa.Engine, hostile: Hostile) -> dict[int, Any]:
    """What the model is to have told of each row; None for NULL, `UNREADABLE` where SQLAlchemy cannot read it."""
    return dict(_expected(engine, hostile))


def _expected(engine: sa.Engine, hostile: Hostile) -> Iterator[tuple[int, Any]]:
    table = hostile.table
    with engine.connect() as connection:
        raw_connection: Any = connection.connection.driver_connection
        if engine.dialect.name == "sqlite":
            raw_connection.text_factory = lambda found: found.decode("utf-8", "surrogateescape")
        for key, column in hostile.places.items():
            try:
                value = connection.execute(sa.select(table.c[column]).where(table.c.id == key)).scalar_one()
                if isinstance(table.c[column].type, sa.Interval | postgresql.INTERVAL):  # psycopg makes 0 of it
                    as_text = sa.select(sa.cast(table.c[column], sa.Text)).where(table.c.id == key)
                    assert "infinity" not in (connection.execute(as_text).scalar_one() or "")
            except Exception:  # whatever a driver or a type raises on it
                yield key, UNREADABLE
            else:
                yield key, None if value is None else told(value)
        if engine.dialect.name == "sqlite":
            raw_connection.text_factory = str


# -- keys --------------------------------------------------------------------------------------------

KEY_TYPES = """
SELECT t.oid::regtype::text, t.typname FROM pg_type t
JOIN pg_opclass c ON c.opcintype = t.oid AND c.opcdefault JOIN pg_am a ON a.oid = c.opcmethod AND a.amname = 'btree'
WHERE t.typtype IN ('b', 'e') AND t.typcategory <> 'A' AND t.typname NOT IN ('jsonb', 'xid8') ORDER BY t.oid
"""


def postgres_key_types(engine: sa.Engine) -> list[tuple[str, Generator]]:
    """The types that a primary key can have, with what makes values of them."""
    with engine.begin() as connection:
        return [(kind, MEANT_FOR.get(name, any_text)) for kind, name in connection.execute(sa.text(KEY_TYPES))]


def postgres_keys(engine: sa.Engine, table: str, kind: str, generate: Generator, seed: int) -> int:
    """A table (k, body) with keys of a type; how many rows it got."""
    rng = random.Random(seed)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {table} (k {kind} PRIMARY KEY, body text)")
    insert = sa.text(f"INSERT INTO {table} VALUES (CAST(:key AS {kind}), :body) ON CONFLICT DO NOTHING")
    made = 0
    for number in range(60):
        value = rng.choice([generate, generate, any_text])(rng)
        try:
            with engine.begin() as connection:
                made += connection.execute(insert, {"key": value, "body": f"row {number}"}).rowcount
        except sa.exc.DBAPIError:  # not of the type, or too large for an index
            continue
    return made


def sqlite_keys(engine: sa.Engine, table: str, kind: str, seed: int) -> int:
    """The same; SQLite keeps a key of any class in a column of any type but INTEGER."""
    rng = random.Random(seed)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {table} (k {kind} PRIMARY KEY, body text)")
        for number in range(60):
            mark, value = sqlite_value(rng)
            statement = f"INSERT OR IGNORE INTO {table} VALUES ({mark}, ?)"
            connection.exec_driver_sql(statement, (value, f"row {number}"))
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
