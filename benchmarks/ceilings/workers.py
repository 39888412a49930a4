"""A worker by hand for one row at a time: ``python -m benchmarks.ceilings.workers DATABASE URL``.

It is told of changes as pinnacle is (an outbox with a notification, ``data_version``, a change stream), reads the row
after it took the change, writes the output where the body is still the one it read, and keeps the body's hash. It loses
no change when it is killed: a change is taken away, or the stream's position kept, when its output is written; on
PostgreSQL several may run. It knows its one table and its one model; of versions, failures and sweeps it knows nothing.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from hashlib import md5
from typing import Any

import psycopg
import pymongo
import sqlalchemy as sa

from benchmarks.ceilings.postgres import connect

READY = b"Working on"
"""What it prints to stderr once it is told of changes."""
LOOK_S = 0.005
"""How often it looks at SQLite's ``data_version``; pinnacle does as often while nothing is written."""
WAIT_S = 5.0

POSTGRES = (
    "ALTER TABLE docs ADD COLUMN number bigint",
    "CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key integer, taken_at timestamptz)",
    "CREATE TABLE state (id integer PRIMARY KEY, h bytea)",
    "CREATE FUNCTION capture() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN INSERT INTO outbox (key) VALUES (new.id); PERFORM pg_notify('outbox', ''); RETURN NULL; END $$",
    "CREATE TRIGGER capture AFTER INSERT OR UPDATE OF body ON docs FOR EACH ROW EXECUTE FUNCTION capture()",
)
SQLITE = (
    "ALTER TABLE docs ADD COLUMN number BIGINT",
    "CREATE TABLE outbox (id INTEGER PRIMARY KEY, key INTEGER)",
    "CREATE TABLE state (id INTEGER PRIMARY KEY, h BLOB)",
    "CREATE TRIGGER added AFTER INSERT ON docs BEGIN INSERT INTO outbox (key) VALUES (new.id); END",
    "CREATE TRIGGER changed AFTER UPDATE OF body ON docs BEGIN INSERT INTO outbox (key) VALUES (new.id); END",
)


TAKE = (
    "UPDATE outbox SET taken_at = now() WHERE id IN (SELECT id FROM outbox "
    "WHERE taken_at IS NULL OR taken_at < now() - interval '60 s' ORDER BY id FOR UPDATE SKIP LOCKED) RETURNING id, key"
)


def output(body: str) -> tuple[int, bytes]:
    """The model, and the input's hash."""
    return int(body.rsplit(maxsplit=1)[-1]), md5(body.encode()).digest()


def on_postgres(url: str) -> None:
    uri = sa.make_url(url).set(drivername="postgresql").render_as_string(False)
    with connect(url) as listening, psycopg.connect(uri) as connection:
        for statement in POSTGRES:
            listening.execute(statement)
        listening.execute("LISTEN outbox")
        tell()
        while True:
            for _ in listening.notifies(timeout=WAIT_S, stop_after=1):
                work_off(connection)


def work_off(connection: psycopg.Connection[Any]) -> None:
    """All that the outbox has: taken, for a minute, and read in one transaction, written and cleared in another."""
    with connection.transaction():
        changes = connection.execute(TAKE).fetchall()
        keys = [key for _, key in changes]
        rows = connection.execute("SELECT id, body FROM docs WHERE id = ANY(%s)", (keys,)).fetchall()
    with connection.transaction():
        for key, body in rows:
            number, digest = output(body)
            connection.execute("UPDATE docs SET number = %s WHERE id = %s AND body = %s", (number, key, body))
            connection.execute(
                "INSERT INTO state VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET h = excluded.h", (key, digest)
            )
        connection.execute("DELETE FROM outbox WHERE id = ANY(%s)", ([number for number, _ in changes],))


def on_sqlite(url: str) -> None:
    path = str(sa.make_url(url).database)
    watching, connection = (sqlite3.connect(path, isolation_level=None, timeout=30.0) for _ in range(2))
    for statement in SQLITE:
        connection.execute(statement)
    connection.execute("PRAGMA synchronous = NORMAL")
    seen = 0
    tell()
    while True:
        version = watching.execute("PRAGMA data_version").fetchone()[0]
        if version == seen:
            time.sleep(LOOK_S)
            continue
        seen = version
        keys = connection.execute("SELECT max(id), key FROM outbox GROUP BY key").fetchall()
        rows = [connection.execute("SELECT id, body FROM docs WHERE id = ?", (key,)).fetchone() for _, key in keys]
        connection.execute("BEGIN IMMEDIATE")
        for key, body in rows:
            number, digest = output(body)
            connection.execute("UPDATE docs SET number = ? WHERE id = ? AND body IS ?", (number, key, body))
            connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, digest))
        for last, key in keys:
            connection.execute("DELETE FROM outbox WHERE key = ? AND id <= ?", (key, last))
        connection.execute("COMMIT")


def on_mongodb(url: str) -> None:
    with pymongo.MongoClient[Any](url) as client:
        database = client.get_default_database()
        changes = [{"$match": {"$or": [
            {"operationType": "insert"}, {"updateDescription.updatedFields.body": {"$exists": True}}
        ]}}]  # fmt: skip
        with database.docs.watch(changes) as stream:
            tell()
            for event in stream:
                key = event["documentKey"]["_id"]
                row = database.docs.find_one({"_id": key})
                if row is None:
                    continue
                number, digest = output(row["body"])
                database.docs.update_one({"_id": key, "body": row["body"]}, {"$set": {"number": number}})
                kept = {"h": digest, "at": stream.resume_token}
                database.state.update_one({"_id": key}, {"$set": kept}, upsert=True)


def tell() -> None:
    sys.stderr.write(f"{READY.decode()} it\n")
    sys.stderr.flush()


WAYS = {"sqlite": on_sqlite, "postgres": on_postgres, "mongodb": on_mongodb}

if __name__ == "__main__":
    WAYS[sys.argv[1]](sys.argv[2])
