"""The application's own statements, timed: ``python -m benchmarks.application DATABASE URL ROWS COUNT TRUNCATES``.

Updates and deletes of single rows in turn at a steady pace, then truncates of a full table,
which SQLite does by DELETE without WHERE and MongoDB by dropping the collection. A deleted row
is put back, and the table filled anew, without being timed. Prints as JSON the milliseconds of
each statement, by its kind.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pymongo
import sqlalchemy as sa

from benchmarks.places import TABLE, connected, docs
from benchmarks.rows import bodies

PACE_S = 0.01
LONGEST_PAUSE_S = 0.25


class Statements(Protocol):
    """One kind of statement a method; each commits."""

    def update(self, key: int, body: str) -> None: ...
    def delete(self, key: int) -> None: ...
    def insert(self, key: int, body: str) -> None: ...
    def truncate(self) -> None: ...
    def fill(self, rows: dict[int, str]) -> None: ...


class SqlStatements:
    def __init__(self, connection: sa.Connection) -> None:
        self._connection, self._docs = connection, docs()

    def update(self, key: int, body: str) -> None:
        self._run(sa.update(self._docs).where(self._docs.c.id == key).values(body=body))

    def delete(self, key: int) -> None:
        self._run(sa.delete(self._docs).where(self._docs.c.id == key))

    def insert(self, key: int, body: str) -> None:
        self._run(sa.insert(self._docs).values(id=key, body=body))

    def truncate(self) -> None:
        is_postgres = self._connection.dialect.name == "postgresql"
        self._run(sa.text(f"TRUNCATE {TABLE}") if is_postgres else sa.delete(self._docs))

    def fill(self, rows: dict[int, str]) -> None:
        with self._connection.begin():
            self._connection.execute(sa.insert(self._docs), [{"id": key, "body": body} for key, body in rows.items()])

    def _run(self, statement: Any) -> None:
        with self._connection.begin():
            self._connection.execute(statement)


class MongoStatements:
    def __init__(self, collection: Any) -> None:
        self._collection = collection

    def update(self, key: int, body: str) -> None:
        self._collection.update_one({"_id": key}, {"$set": {"body": body}})

    def delete(self, key: int) -> None:
        self._collection.delete_one({"_id": key})

    def insert(self, key: int, body: str) -> None:
        self._collection.insert_one({"_id": key, "body": body})

    def truncate(self) -> None:
        self._collection.drop()

    def fill(self, rows: dict[int, str]) -> None:
        self._collection.insert_many([{"_id": key, "body": body} for key, body in rows.items()])


@contextmanager
def application(name: str, url: str) -> Iterator[Statements]:
    """Statements over a connection of their own."""
    if name == "mongodb":
        with pymongo.MongoClient[Any](url) as client:
            yield MongoStatements(client.get_default_database()[TABLE])
        return
    with connected(url) as connection:
        yield SqlStatements(connection)


def measure(run: Statements, rows: int, count: int, truncates: int) -> dict[str, list[float]]:
    chance, contents = random.Random(7), dict(enumerate(bodies(rows), 1))
    times_ms: dict[str, list[float]] = {"update": [], "delete": [], "truncate": []}
    for _ in range(count):
        key = chance.randint(1, rows)
        times_ms["update"].append(timed(run.update, key, f"edited {time.monotonic()}"))
        time.sleep(PACE_S)
        times_ms["delete"].append(timed(run.delete, key))
        time.sleep(PACE_S)
        run.insert(key, contents[key])
    for _ in range(truncates):
        time.sleep(chance.uniform(0, LONGEST_PAUSE_S))
        times_ms["truncate"].append(timed(run.truncate))
        run.fill(contents)
    return times_ms


def timed(statement: Any, *arguments: Any) -> float:
    began = time.perf_counter()
    statement(*arguments)
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    with application(sys.argv[1], sys.argv[2]) as statements:
        print(json.dumps(measure(statements, *map(int, sys.argv[3:]))))
