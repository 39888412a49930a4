"""Listeners under torture: writers change rows in every way while workers are killed, and nothing may be lost.

Meanwhile no row that pinnacle calls fresh is wrong, and none waits longer than a bound; kills are not taken out of
that time: it holds the death of a worker, the start of the next and the work itself. At the end every row is as a
recomputation gives it, nothing of rows that are gone is kept, and few calls were made twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import torture_models, torture_mongo, torture_sql
from benchmarks.table import Table
from benchmarks.torture_checker import Checked
from benchmarks.torture_checker import opened as sight_of
from benchmarks.torture_models import WINDOW
from benchmarks.torture_verdict import Calls, counted_calls
from benchmarks.torture_workers import ROOT, Workers
from benchmarks.torture_writer import FIRST_ROWS, WRITERS, Written
from pinnacle import pinnacle
from pinnacle.base.errors import NotDrained
from pinnacle.db import Database
from tests.servers import start_mongod, start_postgres

OUTPUTS = ("summary", "headline")
WORKERS = {"sqlite": 1, "postgres": 4, "mongodb": 4}
KILL_EVERY_S = {"sqlite": 6.0, "postgres": 2.5, "mongodb": 2.5}
BOUND_S = {"sqlite": 20.0, "postgres": 15.0, "mongodb": 15.0}
"""How long a row may be not fresh, the deaths and starts of workers included: on a machine with two cores, all of them
busy, a worker takes seconds to start, and on SQLite there is no other."""
LEAST_CHECKS, IN_SECONDS = 50_000, 60.0
DRAIN_TIMEOUT_S = 300.0
SWEEP_EVERY_S = 2.0
POLL_S = 0.1
HEADINGS = (
    "database", "writes", "failed", "p99 ms", "kills", "checks", "wrong", "oldest s", "at most", "rows", "wrong rows",
    "left", "calls", "again", "at most", "holds",
)  # fmt: skip


@dataclass
class Suffered:
    """What was seen during the torture of one database and after it."""

    kills: Counter[str] = field(default_factory=Counter)
    writes: list[Written] = field(default_factory=list)
    checks: list[Checked] = field(default_factory=list)
    rows: int = 0
    wrong_rows: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    calls: Calls = field(default_factory=lambda: Calls(0, 0, 0))
    trouble: list[str] = field(default_factory=list)

    def violations(self, bound_s: float, *, least_checks: int) -> list[str]:
        """Everything that must not be, in words."""
        checks, oldest_s = sum(c.checks for c in self.checks), max(c.oldest_s for c in self.checks)
        found = [f"a user's statement failed: {failure}" for w in self.writes for failure in w.failures]
        found += [wrong for checked in self.checks for wrong in checked.wrong]
        found += [*self.wrong_rows, *self.trouble, *(f"{count} left in {name}" for name, count in self.left.items())]
        if checks < least_checks:
            found.append(f"only {checks:,} checks were made, and {least_checks:,} are asked for")
        if oldest_s > bound_s:
            found.append(f"a row was not fresh for {oldest_s:.1f} s, and {bound_s:g} s are allowed")
        if self.calls.again > self.calls_allowed:
            found.append(f"{self.calls.again} calls were made again, and {self.calls_allowed} are allowed")
        if self.calls.uncommitted:
            found.append(f"{self.calls.uncommitted} calls were made for changes that were rolled back")
        return found

    @property
    def calls_allowed(self) -> int:
        return self.kills.total() * WINDOW


def run(databases: Sequence[str], *, seconds: float = 60.0, seed: int = 1) -> Iterator[Table]:
    """``seconds`` of torture on each database, then the reckoning."""
    table = Table(f"Torture: {WRITERS} writers and workers killed for {seconds:g} s (seed {seed})", HEADINGS)
    for name in databases:
        with server(name) as url:
            suffered = torture(name, url, seconds=seconds, seed=seed)
        least_checks = int(LEAST_CHECKS * min(1.0, seconds / IN_SECONDS))
        violations = suffered.violations(BOUND_S[name], least_checks=least_checks)
        waits = sorted(wait for written in suffered.writes for wait in written.waits_ms)
        table.add(
            name, len(waits), sum(len(w.failures) for w in suffered.writes), waits[int(0.99 * len(waits))],
            suffered.kills.total(), sum(c.checks for c in suffered.checks), sum(len(c.wrong) for c in suffered.checks),
            max(c.oldest_s for c in suffered.checks), BOUND_S[name], suffered.rows, len(suffered.wrong_rows),
            sum(suffered.left.values()), suffered.calls.made, suffered.calls.again, suffered.calls_allowed,
            holds=not violations,
        )  # fmt: skip
        changes = sum((Counter(w.changes) for w in suffered.writes), Counter[str]())
        undone = sum(written.rolled_back for written in suffered.writes)
        table.notes.append(f"{name}: changes {listed(changes)}, and {undone} transactions undone")
        table.notes.append(f"{name}: killed {listed(suffered.kills)}; the longest statement took {waits[-1]:.0f} ms")
        table.notes += [f"{name}: {violation}" for violation in violations]
    table.notes.append(
        "checks: rows called fresh that were recomputed. oldest: not fresh, kills included. "
        f"again at most: {WINDOW} a kill."
    )
    yield table


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


@contextmanager
def server(name: str) -> Iterator[str]:
    """The URL of a new database."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="torture-") as directory:
            yield f"sqlite:///{directory}/user.db"
    elif name == "postgres":
        with start_postgres() as url:
            yield url
    else:
        with start_mongod(replica_set=True) as url:
            base, _, options = url.partition("?")
            yield f"{base}torture?{options}"


def torture(name: str, url: str, *, seconds: float, seed: int, least_checks: int = 0) -> Suffered:
    """Run it on a new database until so many checks are made of each output, and look at what is left."""
    kind: ModuleType = torture_mongo if name == "mongodb" else torture_sql
    kind.create(url, [f"text {number} of the start" for number in range(FIRST_ROWS)])
    suffered = Suffered()
    with tempfile.TemporaryDirectory(prefix="torture-") as directory, pinnacle(url) as db:
        folder = Path(directory)
        for listener in torture_models.listeners(kind.everything(), kind.in_language(torture_models.LANGUAGE)):
            db.add(listener)
        kill_every_s = min(KILL_EVERY_S[name], seconds / 4)
        with Workers(url, WORKERS[name], folder, seed=seed, kill_every_s=kill_every_s) as workers:
            checkers = [started("torture_checker", url, output, least_checks) for output in OUTPUTS]
            writers = [started("torture_writer", url, number, seed, seconds) for number in range(WRITERS)]
            sweep_until_written(db, writers, seconds / 3)
            suffered.writes = [Written(**json.loads(answer(process))) for process in writers]
            for process in checkers:
                process.terminate()
            suffered.checks = [Checked(**json.loads(answer(process))) for process in checkers]
            workers.calm()
            reckon(db, kind, url, suffered, folder)
        suffered.kills, suffered.trouble = workers.kills, suffered.trouble + workers.failures
        suffered.left |= {name: count for name, count in kind.leftovers(db).items() if count}
    return suffered


def started(module: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def answer(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return output


def sweep_until_written(db: Database, writers: Sequence[subprocess.Popen[str]], seconds: float) -> None:
    """Ask for sweeps, but only at first: later they would heal what capture has lost."""
    until = time.monotonic() + seconds
    swept_at = time.monotonic()
    while any(process.poll() is None for process in writers):
        if swept_at + SWEEP_EVERY_S < time.monotonic() < until:
            swept_at = time.monotonic()
            for listener in db.listeners():
                db.sweep(listener.identifier)
        time.sleep(POLL_S)


def reckon(db: Database, kind: ModuleType, url: str, suffered: Suffered, folder: Path) -> None:
    """Drain, then compare everything with what it should be; a last sweep must find nothing to do."""
    if not drained(db, suffered):
        return
    rows: dict[Any, Any] = kind.final_rows(db)
    suffered.rows = len(rows)
    suffered.wrong_rows = [f"row {key} at the end: {row}" for key, row in rows.items() if not row.is_done()]
    for status in db.listeners():
        freshness = db.fresh(status.identifier)
        suffered.left |= {
            f"{status.identifier} {what}": count
            for what, count in {
                "pending": status.pending, "in flight": status.in_flight, "failed": status.failed,
                "sweeping": int(status.is_sweeping), "stale": freshness.stale, "missing": freshness.missing,
                "set aside": freshness.failed,
            }.items()
            if count
        }  # fmt: skip
    for output in OUTPUTS:
        sight = sight_of(url, output)
        suffered.trouble += [f"something is kept of {output} of row {key}, which is gone" for key in sight.orphans()]
        sight.close()
    suffered.calls = counted_calls(
        folder, [body for w in suffered.writes for body in w.excused], [t for w in suffered.writes for t in w.undone]
    )
    for status in db.listeners():
        db.sweep(status.identifier)
    if drained(db, suffered):
        more = counted_calls(folder, [], []).made - suffered.calls.made
        suffered.trouble += [f"a sweep when all was done made {more} calls"] if more else []


def drained(db: Database, suffered: Suffered) -> bool:
    try:
        db.drain(timeout_s=DRAIN_TIMEOUT_S)
    except NotDrained as error:
        suffered.trouble.append(str(error))
        return False
    return True
