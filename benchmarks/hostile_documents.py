"""The MongoDB part of `benchmarks.hostile`: documents of every BSON type, as no driver would make them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pymongo

from benchmarks.places import TABLE as DOCUMENTS
from benchmarks.table import Table
from pinnacle import Database, Listener, model, pinnacle
from pinnacle.backends.mongodb import Collection
from tests import hostile_documents as hostile
from tests.hostile_documents import UNREADABLE, HostileDocuments

PATIENCE_S = 300.0
TYPES = 21
CALLS: list[Any] = []


@model(identifier="tell_documents", max_attempts=1)
def tell(value: object) -> str:
    CALLS.append(value)
    return hostile.told(value)


def measure(table: Table, database: str, url: str, *, rows: int, seed: int) -> None:
    """Two rows of the table; documents that the server refuses, most of them for their key, are not counted."""
    with pymongo.MongoClient[Any](url) as client, pinnacle(url) as db:
        documents = client.get_default_database()[DOCUMENTS]
        documents.delete_many({})
        hostile.insert(documents, HostileDocuments(seed).documents(rows))
        ways: tuple[tuple[str, str, Callable[[Database], tuple[int, int]]], ...] = (
            ("predict", "predicted", predicted), ("listener", "listened", listened),
        )  # fmt: skip
        for way, output, work in ways:
            CALLS.clear()
            began = time.monotonic()
            counts = work(db)
            verdict(table, (database, way), documents, db, output, counts, time.monotonic() - began)


def predicted(db: Database) -> tuple[int, int]:
    """How many documents are fresh by a second predict, and how many set aside."""
    asked: dict[str, Any] = {"X": "body", "db": db, "select": Collection(DOCUMENTS).find(), "output": "predicted"}
    tell.predict(**asked, progress=False)
    again = tell.predict(**asked, progress=False)
    return again.fresh, again.set_aside


def listened(db: Database) -> tuple[int, int]:
    """How many documents of a listener are fresh once it has drained, and how many failed."""
    find = Collection(DOCUMENTS).find()
    db.add(Listener(model=tell, key="body", select=find, output="listened", identifier="listener"))
    db.listen()
    db.drain(PATIENCE_S)
    counts = db.fresh("listener")
    return counts.fresh, counts.failed


def verdict(
    table: Table, place: tuple[str, str], documents: Any, db: Database, output: str, counts: tuple[int, int],
    seconds: float,
) -> None:  # fmt: skip
    """One row of the table: what came of each document beside what the driver alone reads; inputs that are the same
    are one call."""
    wanted, found = hostile.expected(documents, "body"), hostile.outputs(documents, output)
    errors = [error.key for error in db.errors(limit=4 * len(wanted)) if error.output.endswith(f".{output}")]
    told = {key if str(key).startswith("BSON ") else repr(key) for key in errors}
    named = [bool(names & told) for names in hostile.keys(documents)]
    bad = [value is UNREADABLE for value in wanted]
    right = len(wanted) - sum(bad)
    wrong = sum(is_named != is_bad for is_named, is_bad in zip(named, bad, strict=True))
    wrong += sum(not b and f != w for b, f, w in zip(bad, found, wanted, strict=True))
    holds = wrong == 0 and counts == (right, sum(bad)) and len(CALLS) <= right
    table.add(*place, len(wanted), TYPES, right, len(errors), wrong, len(CALLS), *counts, seconds, holds=holds)
