"""Folding changes while a session of the application idles in a transaction: vacuum can remove nothing meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import psycopg

from benchmarks.bulk import require
from benchmarks.ceilings.postgres import connect
from benchmarks.models import word_count
from benchmarks.places import TABLE, Place, opened
from benchmarks.table import Table
from pinnacle import Listener, pinnacle
from pinnacle.backends.open import open_backend
from pinnacle.backends.protocol import Backend, Feed
from pinnacle.base.listeners import Watch
from pinnacle.base.rows import Fields, OutputSpec
from pinnacle.base.settings import Settings

ROWS, CHANGES, A_TURN, LEASE_S = 25_000, 500_000, 2_500, 60.0
SHARE, RATE_BOUND = 0.1, 0.5
VERIFIED_EVERY = 20
"""Turns; a worker verifies its triggers every two seconds."""
SESSIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "one that has read": ("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM docs"),
    "one that has written": ("BEGIN", "INSERT INTO aside VALUES (1)"),
}
HEADINGS = (
    "database", "idle session", "changes", "folded/s", "at the end", "ratio", "at least", "cleared/s", "at the end",
    "ratio", "holds",
)  # fmt: skip


@dataclass
class Rates:
    """Rows a second, turn by turn: into the work, and through a claim out of it."""

    folded: list[float] = field(default_factory=list)
    cleared: list[float] = field(default_factory=list)


def run(databases: tuple[str, ...], *, changes: int = CHANGES) -> Iterator[Table]:
    """The median rate of the first tenth of the turns, beside that of the last tenth."""
    if "postgres" not in databases:
        return
    table = Table(f"L8. Folding changes, {A_TURN:,} a transaction, while one of the application idles", HEADINGS)
    with opened("postgres", ROWS) as place:
        for session, statements in SESSIONS.items():
            rates = measured(place, statements, changes)
            folded, cleared = ends(rates.folded), ends(rates.cleared)
            ratio = folded[1] / folded[0]
            table.add(
                "PostgreSQL", session, changes, *folded, ratio, RATE_BOUND, *cleared, cleared[1] / cleared[0],
                holds=ratio > RATE_BOUND,
            )  # fmt: skip
    yield table


def ends(rates: list[float]) -> tuple[float, float]:
    """The median of the first share of the turns, and of the last."""
    count = max(1, int(SHARE * len(rates)))
    return statistics.median(rates[:count]), statistics.median(rates[-count:])


def measured(place: Place, statements: tuple[str, ...], changes: int) -> Rates:
    url, rates = place.renew(), Rates()
    with pinnacle(url) as db:
        db.add(Listener(model=word_count, key="body", select=place.query(), output="words"))
    with ExitStack() as stack:
        backend = stack.enter_context(closing(open_backend(url, Settings())))
        writer, idle = (stack.enter_context(connect(url)) for _ in range(2))
        writer.execute("CREATE TABLE aside (number integer)")
        idle.autocommit = True
        for statement in statements:
            idle.execute(statement)
        feed = feed_of(backend, place)
        for first in range(0, changes, A_TURN):
            turn(feed, writer, first, rates)
    return rates


def feed_of(backend: Backend, place: Place) -> Feed:
    """The changes of the listener, as a worker of it has them."""
    source = backend.resolve(place.query(), Fields.of("body"))
    spec = OutputSpec(
        name="words",
        type=word_count.resolved_output_type(),
        model=word_count.identifier,
        version=0,
        fields=source.fields,
    )
    return backend.feed(backend.bind(source, spec), (), Watch())


def turn(feed: Feed, writer: psycopg.Connection[Any], first: int, rates: Rates) -> None:
    """Change the next rows, over and over; then what a worker does with them, but for the model."""
    start = first % ROWS
    writer.execute(f"UPDATE {TABLE} SET body = 'changed at {first}' WHERE id > {start} AND id <= {start + A_TURN}")
    began = time.perf_counter()
    if first % (VERIFIED_EVERY * A_TURN) == 0:
        feed.verify()
    require(feed.fold() == A_TURN, "not all changes were folded")
    folded = time.perf_counter()
    claim = feed.claim("benchmark", A_TURN, LEASE_S)
    feed.finish(claim, range(A_TURN), ())
    cleared = time.perf_counter()
    require(len(claim.keys) == A_TURN, "not all rows were claimed")
    rates.folded.append(A_TURN / (folded - began))
    rates.cleared.append(A_TURN / (cleared - folded))
