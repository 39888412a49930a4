"""SQLite by hand: read a page, call the function, write outputs and input hashes, commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import Any

import sqlalchemy as sa

VERSION = 0
Rows = Sequence[tuple[int, str]]
Batch = Sequence[tuple[int, Any, str, bytes]]
"""(key, output, the body it was made from, the body's hash)"""

CHANGED = "some rows changed while they were worked on"
UPSERT = "ON CONFLICT (id) DO UPDATE SET h = excluded.h, v = excluded.v"
INSERT = "INSERT INTO batch (id, o, x, h) VALUES "


def fill(url: str, function: Callable[[str], Any], *, write: Callable[..., None], rows: int) -> None:
    """The whole job with one way to write, ``rows`` a transaction."""
    with closing(connect(url)) as connection:
        connection.execute("ALTER TABLE docs ADD COLUMN words BIGINT")
        connection.execute("CREATE TABLE state (id INTEGER PRIMARY KEY, h BLOB NOT NULL, v INTEGER NOT NULL)")
        for page in pages(connection, rows):
            write(connection, [(key, function(body), body, hashed(body)) for key, body in page])


def by_row(connection: sqlite3.Connection, batch: Batch) -> None:
    """One UPDATE and one INSERT a row."""
    connection.execute("BEGIN IMMEDIATE")
    updated = connection.executemany(
        "UPDATE docs SET words = ? WHERE id = ? AND body IS ? COLLATE BINARY", [(o, key, x) for key, o, x, _ in batch]
    ).rowcount
    if updated != len(batch):
        raise RuntimeError(CHANGED)
    connection.executemany(f"INSERT INTO state VALUES (?, ?, {VERSION}) {UPSERT}", [(key, h) for key, _, _, h in batch])
    connection.execute("COMMIT")


def by_temporary_table(connection: sqlite3.Connection, batch: Batch) -> None:
    """The batch into a temporary table, 100 rows a statement, then one UPDATE and one INSERT."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS batch (id INTEGER PRIMARY KEY, o, x, h)")
    connection.execute("DELETE FROM batch")
    values = list(chain.from_iterable(batch))
    for start in range(0, len(values), 400):
        part = values[start : start + 400]
        connection.execute(INSERT + ", ".join(["(?, ?, ?, ?)"] * (len(part) // 4)), part)
    connection.execute("BEGIN IMMEDIATE")
    updated = connection.execute(
        "UPDATE docs SET words = (SELECT o FROM batch WHERE batch.id = docs.id) WHERE id IN "
        "(SELECT b.id FROM batch AS b CROSS JOIN docs AS d ON d.id = b.id WHERE d.body IS b.x COLLATE BINARY)"
    ).rowcount
    if updated != len(batch):
        raise RuntimeError(CHANGED)
    connection.execute(f"INSERT INTO state SELECT id, h, {VERSION} FROM batch WHERE true {UPSERT}")
    connection.execute("COMMIT")


def verify(url: str) -> int:
    """Read everything, hash every input, compare; how many rows are not fresh."""
    stale = 0
    with closing(connect(url)) as connection:
        cursor = connection.execute(
            "SELECT d.body, d.words, s.h, s.v FROM docs AS d LEFT JOIN state AS s ON s.id = d.id ORDER BY d.id"
        )
        while page := cursor.fetchmany(5000):
            stale += sum(hashed(x) != h or o is None or v != VERSION for x, o, h, v in page)
    return stale


def pages(connection: sqlite3.Connection, rows: int) -> Iterator[Rows]:
    after = 0
    statement = "SELECT id, body FROM docs WHERE id > ? ORDER BY id LIMIT ?"
    while page := connection.execute(statement, (after, rows)).fetchall():
        after = page[-1][0]
        yield page


def hashed(body: str) -> bytes:
    return blake2b(body.encode(), digest_size=16).digest()


def connect(url: str) -> sqlite3.Connection:
    connection = sqlite3.connect(sa.make_url(url).database or "", isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


WAYS: dict[str, Callable[[str, Callable[[str], Any]], None]] = {
    f"{write.__name__.replace('_', ' ')}, {rows}": partial(fill, write=write, rows=rows)
    for write in (by_row, by_temporary_table)
    for rows in (2000, 10_000)
}
