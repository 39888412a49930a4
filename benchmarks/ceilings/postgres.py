"""PostgreSQL by hand: read a page, call the function, write outputs and input hashes, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import md5
from typing import Any

import psycopg
import sqlalchemy as sa

VERSION = 0
Batch = Sequence[tuple[int, str, Any]]
"""(key, the body, the output made from it)"""

CHANGED = "some rows changed while they were worked on"
PLANNER = "SET enable_mergejoin = off; SET enable_hashjoin = off"
UPDATE = "UPDATE docs SET words = b.o FROM b WHERE docs.id = b.id AND docs.body = b.x RETURNING b.id, b.h"
UPSERT = "ON CONFLICT (id) DO UPDATE SET h = excluded.h, v = excluded.v"
RECORD = f"INSERT INTO state SELECT id, h, {VERSION} FROM u {UPSERT}"


def fill(url: str, function: Callable[[str], Any], *, write: Callable[..., int], rows: int) -> None:
    """The whole job with one way to write, ``rows`` a transaction."""
    with connect(url) as connection:
        connection.execute("ALTER TABLE docs ADD COLUMN words BIGINT")
        connection.execute("CREATE TABLE state (id INTEGER PRIMARY KEY, h BYTEA NOT NULL, v INTEGER NOT NULL)")
        connection.execute(PLANNER)
        for page in pages(connection, rows):
            if write(connection, [(key, body, function(body)) for key, body in page]) != len(page):
                raise RuntimeError(CHANGED)


def by_arrays_and_text(connection: psycopg.Connection[Any], batch: Batch) -> int:
    """One statement of arrays; the body itself is compared, and hashed here."""
    keys, texts, outputs = map(list, zip(*batch, strict=True))
    hashes = [md5(body.encode()).digest() for body in texts]
    arrays = "unnest(%b::integer[], %b::text[], %b::bigint[], %b::bytea[])"
    statement = f"WITH b (id, x, o, h) AS MATERIALIZED (SELECT * FROM {arrays}), u AS ({UPDATE}) {RECORD}"
    return connection.execute(statement, (keys, texts, outputs, hashes)).rowcount


def by_arrays_and_hash(connection: psycopg.Connection[Any], batch: Batch) -> int:
    """One statement of arrays without the body; its hash is compared in the database."""
    keys, texts, outputs = map(list, zip(*batch, strict=True))
    hashes = [md5(body.encode()).digest() for body in texts]
    arrays = "unnest(%b::integer[], %b::bigint[], %b::bytea[])"
    update = UPDATE.replace("docs.body = b.x", "decode(md5(docs.body), 'hex') = b.h")
    statement = f"WITH b (id, o, h) AS MATERIALIZED (SELECT * FROM {arrays}), u AS ({update}) {RECORD}"
    return connection.execute(statement, (keys, outputs, hashes)).rowcount


def by_copy(connection: psycopg.Connection[Any], batch: Batch) -> int:
    """COPY into a temporary table, then one statement."""
    columns = "id integer, x text, o bigint, h bytea"
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS b ({columns}) ON COMMIT DELETE ROWS")
    with connection.transaction(), connection.cursor() as cursor:
        with cursor.copy("COPY b FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "text", "int8", "bytea"])
            for key, body, output in batch:
                copy.write_row((key, body, output, md5(body.encode()).digest()))
        return connection.execute(f"WITH u AS ({UPDATE}) {RECORD}").rowcount


def verify(url: str) -> int:
    """Read everything, hash every input, compare; how many rows are not fresh."""
    stale = after = 0
    statement = (
        "SELECT d.id, d.body, d.words, s.h, s.v FROM docs AS d "
        "LEFT JOIN state AS s ON s.id = d.id AND s.id > %(after)s WHERE d.id > %(after)s ORDER BY d.id LIMIT 10000"
    )
    with connect(url) as connection:
        while page := connection.execute(statement, {"after": after}, binary=True).fetchall():
            after = page[-1][0]
            stale += sum(md5(x.encode()).digest() != h or o is None or v != VERSION for _, x, o, h, v in page)
    return stale


def verify_in_server(url: str) -> int:
    """The same in one statement that reads nothing out: it tells how many rows, and holds one snapshot throughout."""
    with connect(url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM docs AS d LEFT JOIN state AS s ON s.id = d.id WHERE s.h IS DISTINCT FROM "
            f"decode(md5(d.body), 'hex') OR d.words IS NULL OR s.v IS DISTINCT FROM {VERSION}"
        ).fetchone()
    return int(found[0]) if found else 0


def pages(connection: psycopg.Connection[Any], rows: int) -> Iterator[list[tuple[int, str]]]:
    after = 0
    statement = "SELECT id, body FROM docs WHERE id > %s ORDER BY id LIMIT %s"
    while page := connection.execute(statement, (after, rows), binary=True).fetchall():
        after = page[-1][0]
        yield page


def connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(sa.make_url(url).set(drivername="postgresql").render_as_string(False), autocommit=True)


WAYS: dict[str, Callable[[str, Callable[[str], Any]], None]] = {
    f"{write.__name__.replace('_', ' ')}, {rows}": partial(fill, write=write, rows=rows)
    for write in (by_arrays_and_text, by_arrays_and_hash, by_copy)
    for rows in (2000, 5000)
}
