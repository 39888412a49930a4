"""A file into and out of a database by the database's own way with large values, 1 MiB at a time, hashed on the way."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gridfs
import psycopg
import pymongo
import sqlalchemy as sa

PIECE_BYTES = 1 << 20
INV_READ, INV_WRITE = 0x40000, 0x20000


def sqlite_in(url: str, path: Path) -> str:
    """Incremental blob I/O: room for the whole value, then written into; one transaction."""
    with closing(_sqlite(url)) as connection:
        connection.execute("CREATE TABLE large (id INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO large VALUES (1, zeroblob(?))", (path.stat().st_size,))
        with connection.blobopen("large", "data", 1) as blob:
            digest = passed(pieces(path), blob.write)
        connection.execute("COMMIT")
        return digest


def sqlite_out(url: str, path: Path) -> str:
    with (
        closing(_sqlite(url)) as connection,
        connection.blobopen("large", "data", 1, readonly=True) as blob,
        path.open("wb") as file,
    ):
        return passed(iter(lambda: blob.read(PIECE_BYTES), b""), file.write)


def _sqlite(url: str) -> sqlite3.Connection:
    connection = sqlite3.connect(sa.make_url(url).database or "", isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def postgres_in(url: str, path: Path) -> str:
    """A large object, in one transaction."""
    with psycopg.connect(url) as connection:
        descriptor = connection.execute("SELECT lo_open(lo_create(42), %s)", (INV_WRITE,)).fetchone()[0]
        cursor = connection.cursor(binary=True)
        return passed(pieces(path), lambda piece: cursor.execute("SELECT lowrite(%s, %b)", (descriptor, piece)))


def postgres_out(url: str, path: Path) -> str:
    with psycopg.connect(url) as connection, path.open("wb") as file:
        descriptor = connection.execute("SELECT lo_open(42, %s)", (INV_READ,)).fetchone()[0]
        cursor = connection.cursor(binary=True)

        def read() -> bytes:
            return bytes(cursor.execute("SELECT loread(%s, %s)", (descriptor, PIECE_BYTES)).fetchone()[0])

        return passed(iter(read, b""), file.write)


def mongodb_in(url: str, path: Path) -> str:
    """GridFS, with chunks of 1 MiB rather than its 255 KiB."""
    with pymongo.MongoClient(url) as client, _grid(client).open_upload_stream_with_id(1, "large") as large:
        return passed(pieces(path), large.write)


def mongodb_out(url: str, path: Path) -> str:
    with pymongo.MongoClient(url) as client, path.open("wb") as file:
        large = _grid(client).open_download_stream(1)
        return passed(iter(large.readchunk, b""), file.write)


def _grid(client: pymongo.MongoClient) -> gridfs.GridFSBucket:
    return gridfs.GridFSBucket(client.get_default_database(), chunk_size_bytes=PIECE_BYTES)


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(PIECE_BYTES), b"")


def passed(chunks: Iterable[bytes], write: Callable[[bytes], Any]) -> str:
    """Write every chunk; the hash of all of them."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        write(chunk)
    return digest.hexdigest()


Way = Callable[[str, Path], str]
WAYS: dict[str, tuple[str, Way, Way]] = {
    "sqlite": ("blob I/O", sqlite_in, sqlite_out),
    "postgres": ("a large object", postgres_in, postgres_out),
    "mongodb": ("GridFS", mongodb_in, mongodb_out),
}
