"""What an open change stream costs who writes to MongoDB: capture is that stream, and nothing in the collection.

The stream's reader is a process of its own, and takes keys and changed field names alone.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pymongo

from benchmarks.listened import listen, workers
from benchmarks.models import word_count
from benchmarks.places import TABLE, opened
from benchmarks.table import Table
from benchmarks.writer_cost import BATCH_ROWS, BODY, Run, total

ROWS, SINGLES, REPEATS, TURNS = 30_000, 1_500, 3, 6
NOTHING, STREAM, OURS = "nothing", "a stream", "our worker"
PIPELINE = [{"$project": {"operationType": 1, "documentKey": 1, "updateDescription": {"removedFields": 1}}}]
HEADINGS = (
    "database", "inserts", "nothing s", "a stream s", "our worker s", "stream x", "of medians", "worker x",
    "of medians",
)  # fmt: skip


def run(databases: tuple[str, ...], *, rows: int = ROWS, singles: int = SINGLES) -> Iterator[Table]:
    """No bound: what a worker costs is its model and its write-backs, on the same machine."""
    if "mongodb" not in databases:
        return
    table = Table(f"L3. Inserts of 1 KB into MongoDB: {rows:,} in batches, {singles:,} one by one", HEADINGS)
    with opened("mongodb", 0) as place:
        single, batches = list[Run](), list[Run]()
        for _ in range(REPEATS):
            single.append({})
            batches.append({})
            for side in (NOTHING, STREAM, OURS):
                url = place.renew()
                if side == OURS:
                    listen(place, url, word_count, "words")
                reader: Any = {NOTHING: nullcontext, STREAM: stream, OURS: workers}[side]
                with reader(*() if side == NOTHING else (url,)), pymongo.MongoClient[Any](url) as client:
                    collection = client.get_default_database()[TABLE]
                    single[-1][side] = timed_inserts(collection, 0, singles, 1)
                    batches[-1][side] = timed_inserts(collection, singles, rows, BATCH_ROWS)
    for kind, runs in ((f"{BATCH_ROWS:,} at a time", batches), ("one at a time", single)):
        best, medians = ({side: total(runs, side, of) for side in runs[0]} for of in (min, statistics.median))
        ratios = [which[side] / which[NOTHING] for side in (STREAM, OURS) for which in (best, medians)]
        table.add("MongoDB", kind, *(best[side] for side in (NOTHING, STREAM, OURS)), *ratios)
    yield table


def timed_inserts(collection: Any, first: int, count: int, a_statement: int) -> list[float]:
    """Seconds of each of some parts."""
    seconds, a_turn = [], count // TURNS
    for start in range(first, first + count, a_turn):
        documents = [{"_id": key, "body": BODY} for key in range(start, start + a_turn)]
        began = time.perf_counter()
        for position in range(0, a_turn, a_statement):
            part = documents[position : position + a_statement]
            collection.insert_many(part) if len(part) > 1 else collection.insert_one(part[0])
        seconds.append(time.perf_counter() - began)
    return seconds


@contextmanager
def stream(url: str) -> Iterator[None]:
    """A change stream over the whole database, read in another process."""
    context = multiprocessing.get_context("spawn")
    is_open = context.Event()
    process = context.Process(target=follow, args=(url, is_open), daemon=True)
    process.start()
    if not is_open.wait(30):
        raise RuntimeError("the stream did not open")
    try:
        yield
    finally:
        process.terminate()
        process.join()


def follow(url: str, is_open: Any) -> None:
    with pymongo.MongoClient[Any](url) as client, client.get_default_database().watch(PIPELINE) as changes:
        is_open.set()
        for _ in changes:
            pass
