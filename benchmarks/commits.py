"""Another process's paced single-row writes: ``python -m benchmarks.commits DATABASE URL ROWS COUNT``.

Updates and inserts in turn. Prints as JSON, for each write, the number that its body ends with and when its commit
returned, by the machine's monotonic clock.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
import sqlalchemy as sa

from benchmarks.places import TABLE, connected, docs

FIRST_NUMBER = 10_000_000
PACE_S = (0.02, 0.04)


def main(name: str, url: str, rows: int, count: int) -> None:
    chance, committed = random.Random(7), []
    with writes(name, url) as (update, insert):
        for number in range(FIRST_NUMBER, FIRST_NUMBER + count):
            time.sleep(chance.uniform(*PACE_S))
            body = f"written by another process {number}"
            if number % 2:
                insert(number, body)
            else:
                update(chance.randint(1, rows), body)
            committed.append((number, time.monotonic()))
    print(json.dumps(committed))


@contextmanager
def writes(name: str, url: str) -> Iterator[tuple[Callable[[int, str], Any], Callable[[int, str], Any]]]:
    """Two functions that commit one row each, an update and an insert, over a connection of their own."""
    if name == "mongodb":
        with pymongo.MongoClient[Any](url) as client:
            collection = client.get_default_database()[TABLE]
            yield (
                lambda key, body: collection.update_one({"_id": key}, {"$set": {"body": body}}),
                lambda key, body: collection.insert_one({"_id": key, "body": body}),
            )
        return
    table = docs()
    update = sa.update(table).where(table.c.id == sa.bindparam("key")).values(body=sa.bindparam("text"))
    insert = sa.insert(table).values(id=sa.bindparam("key"), body=sa.bindparam("text"))
    with connected(url) as connection:

        def committing(statement: Any) -> Callable[[int, str], Any]:
            def commit(key: int, body: str) -> None:
                with connection.begin():
                    connection.execute(statement, {"key": key, "text": body})

            return commit

        yield committing(update), committing(insert)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
