"""One row that cannot be computed among a thousand, and a provider that does not answer for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.listened import lengthen_all, listen
from benchmarks.models import trouble, troubled, troubled_batch
from benchmarks.places import Place, opened
from benchmarks.table import Table
from pinnacle import Database, Model, pinnacle

ROWS, OUTAGE_S, PATIENCE_S = 1_000, 20.0, 60.0
MOST_EXTRA_CALLS = 12
ONE_HEADINGS = ("database", "model", "fresh", "set aside", "calls", "without it", "extra", "at most", "holds")
OUTAGE_HEADINGS = (
    "database", "model", "rows", "fresh", "set aside", "calls in it", "all done after s", "set aside at most", "holds",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of all rows: how many are fresh and failed, the calls it took, and the seconds."""

    fresh: int
    failed: int
    calls: int
    seconds: float


def run(databases: tuple[str, ...], *, rows: int = ROWS, outage_s: float = OUTAGE_S) -> Iterator[Table]:
    """Worked on in this process, so that calls can be counted. All rows have an output, and then all change."""
    one = Table(f"L6. One poison row in {rows:,} changed rows", ONE_HEADINGS)
    outage = Table(f"L6. No provider answers for {outage_s:g} s after {rows:,} rows have changed", OUTAGE_HEADINGS)
    for name in databases:
        with opened(name, rows) as place:
            for model in (troubled, troubled_batch):
                clean, poisoned = (worked(name, place, model, poison=poison) for poison in ("", f" {rows // 2}"))
                extra = poisoned.calls - clean.calls
                holds = (poisoned.fresh, poisoned.failed) == (rows - 1, 1) and extra <= MOST_EXTRA_CALLS
                one.add(
                    place.name, model.identifier, poisoned.fresh, poisoned.failed, poisoned.calls, clean.calls, extra,
                    MOST_EXTRA_CALLS, holds=holds,
                )  # fmt: skip
                survived, calls_in_it = outlived(name, place, model, outage_s)
                outage.add(
                    place.name, model.identifier, rows, survived.fresh, survived.failed, calls_in_it,
                    survived.seconds - outage_s, 0, holds=(survived.fresh, survived.failed) == (rows, 0),
                )  # fmt: skip
    yield one
    yield outage


def worked(name: str, place: Place, model: Model, *, poison: str) -> Outcome:
    """All rows change, and the body that ends with ``poison`` can no longer be computed."""
    url = place.renew()
    listen(place, url, model, "words")
    with pinnacle(url) as db:
        settled(db)
        trouble.calls, trouble.poison = 0, poison
        try:
            return changed(name, url, db)
        finally:
            trouble.poison = ""


def changed(name: str, url: str, db: Database) -> Outcome:
    began = time.monotonic()
    lengthen_all(name, url)
    db.drain(PATIENCE_S)
    seconds = time.monotonic() - began
    counts = db.fresh("docs.words")
    return Outcome(counts.fresh, counts.failed, trouble.calls, seconds)


def outlived(name: str, place: Place, model: Model, outage_s: float) -> tuple[Outcome, int]:
    """All rows change at the beginning of an outage; also the calls made while it lasted."""
    url = place.renew()
    listen(place, url, model, "words")
    with pinnacle(url) as db:
        settled(db)
        trouble.calls, calls_in_it = 0, list[int]()
        trouble.outage_until = time.monotonic() + outage_s
        over = threading.Timer(outage_s, lambda: calls_in_it.append(trouble.calls))
        over.start()
        outcome = changed(name, url, db)
        over.join()
    return outcome, calls_in_it[0]


def settled(db: Database) -> None:
    """A worker in a thread, with nothing left to do."""
    db.listen()
    db.drain(PATIENCE_S)
