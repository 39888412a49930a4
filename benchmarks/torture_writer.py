"""A user's program that changes rows in every way: ``python -m benchmarks.torture_writer URL NUMBER SEED SECONDS``.

It knows nothing of pinnacle. Every text it writes is unlike all others, so that a model call tells which write it is
for. Prints, as JSON, a `Written`.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Protocol

FIRST_ROWS = 400
PACE_S = 0.03
WRITERS = 3
MANY = 10
WEIGHTS = {
    "insert": 10, "update": 20, "many": 2, "noop": 6, "unrelated": 8, "null": 3, "delete": 8, "move": 5, "upsert": 14,
    "replace": 6, "language": 6, "overwrite summary": 5, "blank summary": 3, "overwrite headline": 4, "save old": 4,
}  # fmt: skip
ROLLED_BACK_SHARE, SEVERAL_SHARE = 0.12, 0.25
LONG_SHARE, LONG_S = 0.015, 0.6
"""How many transactions stay open for how long: later ones commit before them."""


@dataclass(frozen=True)
class Change:
    """One statement: ``to`` is a key that nobody has, for inserts and moves."""

    kind: str
    key: int
    to: int
    text: str
    language: str


@dataclass
class Written:
    """What a writer did. ``excused`` holds, with repetition, bodies whose outputs a committed
    change has taken away, so that they may be computed once more."""

    changes: dict[str, int] = field(default_factory=dict)
    rolled_back: int = 0
    waits_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)


class Writes(Protocol):
    """The user's way to one database."""

    def run(self, changes: Sequence[Change], *, commits: bool, pause_s: float) -> list[str]:
        """Make changes in one transaction, open for ``pause_s`` more; the bodies whose outputs they took away."""

    def empty(self) -> None:
        """Delete all rows, in the fastest way."""


def write(writes: Writes, number: int, seed: int, seconds: float) -> Written:
    """Write at a steady pace. Several changes of a transaction go in key order: users of their own do not deadlock."""
    chance, written, counts = random.Random(f"{seed} writer {number}"), Written(), Counter[str]()
    own: list[int] = []
    made = 0
    began = time.monotonic()
    empties_at = began + seconds / 3 if number == 0 else float("inf")
    while (now := time.monotonic()) < began + seconds:
        if now >= empties_at:
            empties_at = float("inf")
            attempt(written, writes.empty)
            counts["empty"] += 1
        size = chance.randint(2, 4) if chance.random() < SEVERAL_SHARE else 1
        changes = []
        for _ in range(size):
            made += 1
            to = FIRST_ROWS + MANY + made * WRITERS + number
            changes.append(change(chance, own, to, f"text {made} of writer {number}"))
        changes.sort(key=lambda change: change.key)
        commits = chance.random() >= ROLLED_BACK_SHARE
        pause_s = chance.uniform(0, LONG_S) if chance.random() < LONG_SHARE else 0.0
        excused = attempt(written, partial(writes.run, changes, commits=commits, pause_s=pause_s), pause_s)
        if commits:
            counts.update(change.kind for change in changes)
            written.excused += excused or []
            own += [change.to for change in changes if change.kind in ("insert", "move")]
        else:
            written.rolled_back += 1
            written.undone += [change.text for change in changes]
        time.sleep(chance.uniform(0, 2 * PACE_S))
    written.changes = dict(sorted(counts.items()))
    return written


def change(chance: random.Random, own: list[int], to: int, text: str) -> Change:
    """A random change of a row that all writers change, or one that only this writer knows."""
    kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    key = chance.choice(own) if own and chance.random() < 0.3 else chance.randint(1, FIRST_ROWS)
    return Change(kind, to if kind == "insert" else key, to, text, chance.choice(["en", "en", "de"]))


def attempt(written: Written, statement: Callable[[], list[str] | None], pause_s: float = 0.0) -> list[str] | None:
    """Run statements, timed without their own pause; whatever they raise is a finding."""
    began = time.perf_counter()
    try:
        result = statement()
    except Exception as error:  # the program's whole purpose: no statement of a user may fail because of us
        written.failures.append(f"{type(error).__name__}: {error}"[:300])
        result = None
    written.waits_ms.append(1000 * (time.perf_counter() - began - pause_s))
    return result


def opened(url: str) -> Writes:
    if url.startswith("mongodb"):
        from benchmarks.torture_mongo import MongoWrites

        return MongoWrites(url)
    from benchmarks.torture_sql import SqlWrites

    return SqlWrites(url)


if __name__ == "__main__":
    address, number_text, seed_text, seconds_text = sys.argv[1:]
    print(json.dumps(asdict(write(opened(address), int(number_text), int(seed_text), float(seconds_text)))))
