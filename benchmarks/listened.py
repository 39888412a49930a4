"""A listener on the benchmarks' rows and workers in processes of their own, for the figures about listeners."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pymongo

from benchmarks.places import TABLE, Place, connected
from pinnacle import Listener, Model, pinnacle
from pinnacle.backends.open import open_backend
from pinnacle.base.settings import Settings

FILL_S, LOOK_S = 120.0, 0.05
COMMAND = (sys.executable, "-c", "from pinnacle.cli import main; main()", "worker")


def listen(place: Place, url: str, model: Model, output: str, **options: Any) -> None:
    """Add a listener over all rows, which whichever worker runs fills first."""
    with pinnacle(url) as db:
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


@contextmanager
def progress(url: str) -> Iterator[Callable[[], int]]:
    """How many rows the only listener has done so far, read from the registry alone: it costs the workers nothing."""
    with closing(open_backend(url, Settings())) as backend:
        yield lambda: backend.listeners.all()[0].processed


def wait_for(processed: Callable[[], int], rows: int, timeout_s: float) -> None:
    """Wait until so many rows have been done."""
    until = time.monotonic() + timeout_s
    while (done := processed()) < rows:
        if time.monotonic() > until:
            raise RuntimeError(f"{done:,} rows were done, not {rows:,}")
        time.sleep(LOOK_S)


def lengthen_all(name: str, url: str) -> None:
    """Change every row's body, in one statement."""
    if name == "mongodb":
        with pymongo.MongoClient[Any](url) as client:
            change = [{"$set": {"body": {"$concat": ["more ", "$body"]}}}]
            client.get_default_database()[TABLE].update_many({}, change)
        return
    with connected(url) as connection:
        connection.exec_driver_sql(f"UPDATE {TABLE} SET body = 'more ' || body")
