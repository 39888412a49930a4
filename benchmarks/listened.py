"""A listener on the benchmarks' rows and workers in processes of their own, for the figures about listeners."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pymongo

from benchmarks.places import TABLE, Place, connected
from pinnacle import Database, Listener, Model, pinnacle

FILL_S = 120.0
COMMAND = (sys.executable, "-c", "from pinnacle.cli import main; main()", "worker")


def listen(place: Place, url: str, model: Model, output: str, **options: Any) -> None:
    """Compute all rows, and leave a listener behind that keeps them fresh."""
    with pinnacle(url) as db:
        model.predict(X="body", db=db, select=place.query(), output=output, progress=False)
        db.add(Listener(model=model, key="body", select=place.query(), output=output, **options))


@contextmanager
def workers(url: str, count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`pinnacle worker` so many times, with nothing left to do; ended by SIGTERM."""
    with ExitStack() as stack:
        started = [stack.enter_context(worker(url)) for _ in range(count)]
        with pinnacle(url) as db:
            db.drain(FILL_S)
        yield started


@contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """One worker process; whoever uses it waits until it has come up."""
    with subprocess.Popen([*COMMAND, url], stderr=subprocess.PIPE) as process:
        if process.stderr is None or not process.stderr.readline().startswith(b"Working on"):
            raise RuntimeError("the worker did not start")
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()


def drained(db: Database, timeout_s: float) -> None:
    """Wait until nothing is pending; raises where rows were set aside on the way."""
    db.drain(timeout_s)
    if errors := db.errors(limit=1):
        raise RuntimeError(f"a row was set aside: {errors[0].message}")


def lengthen_all(name: str, url: str) -> None:
    """Change every row's body, in one statement."""
    if name == "mongodb":
        with pymongo.MongoClient[Any](url) as client:
            change = [{"$set": {"body": {"$concat": ["more ", "$body"]}}}]
            client.get_default_database()[TABLE].update_many({}, change)
        return
    with connected(url) as connection:
        connection.exec_driver_sql(f"UPDATE {TABLE} SET body = 'more ' || body")
