"""A checkpoint into and out of each database, beside a file copy and the database's own way with large values."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from benchmarks.bulk import require
from benchmarks.ceilings.large_values import WAYS, Way
from benchmarks.places import TABLE, Place, opened
from benchmarks.table import Table
from benchmarks.waits import quantile, recycle_log

MB = 500
REPEATS = 3
GROWTH_BOUND_MB, WAIT_BOUND_MS = 64.0, 50.0
PIECE_BYTES = 1 << 20
PACE_S = 0.002
HEADINGS = (
    "database", "who", "in MB/s", "out MB/s", "in / copy", "out / copy", "in / own", "out / own", "in grows MB",
    "out grows MB", "at most", "holds",
)  # fmt: skip
WAIT_HEADINGS = ("beside", "commits", "p50 ms", "p99 ms", "longest", "p99 - usual", "at most", "holds")


class Moved(NamedTuple):
    """What it took to move the file, as `benchmarks.checkpointer` reports it."""

    seconds: float
    grown_mb: float = 0.0


def run(databases: tuple[str, ...], *, mb: int = MB, repeats: int = REPEATS) -> Iterator[Table]:
    """The best of several runs of each; memory is the most that any of them needed."""
    table = Table(f"T1. A checkpoint of {mb} MB into and out of the database", HEADINGS)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        original = random_file(folder / "original", mb)
        copied = mb / min(copy(original, folder / "copy") for _ in range(repeats))
        table.add("none", "a file copy, synced", copied, copied)
        for database in databases:
            compare(table, database, original, copied, repeats)
        table.notes += [
            "pinnacle hashes the file before it stores it, while it stores it, and as it unpacks it; the database's",
            f"own way is hashed once in each direction, and a copy is not: {mb / hashed(original)[0]:,.0f} MB/s here",
            "a file copy is synced to disk; the databases sync as they do by default",
        ]
        yield table
        if "sqlite" in databases:
            yield waits(original, repeats)


def random_file(path: Path, mb: int) -> Path:
    with path.open("wb") as file:
        for _ in range(mb):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    return path


def copy(original: Path, path: Path) -> float:
    """Seconds of a plain copy that is on disk in the end."""
    os.sync()
    began = time.perf_counter()
    shutil.copyfile(original, path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def compare(table: Table, database: str, original: Path, copied: float, repeats: int) -> None:
    """Two rows: ours, and the database's own way."""
    mb, (own_name, own_in, own_out) = original.stat().st_size / 2**20, WAYS[database]
    ours: list[tuple[Moved, Moved]] = []
    own: list[tuple[Moved, Moved]] = []
    with opened(database, 0) as place:
        if database == "postgres":
            recycle_log(place.renew())
        for _ in range(repeats):
            ours.append(there_and_back(place, original, by_process("put"), by_process("get")))
            own.append(there_and_back(place, original, by_hand(own_in), by_hand(own_out)))
    speed_in, speed_out, hand_in, hand_out = (
        mb / min(pair[way].seconds for pair in runs) for runs in (ours, own) for way in (0, 1)
    )
    grown = [max(pair[way].grown_mb for pair in ours) for way in (0, 1)]
    table.add(
        place.name, "pinnacle", speed_in, speed_out, speed_in / copied, speed_out / copied, speed_in / hand_in,
        speed_out / hand_out, *grown, GROWTH_BOUND_MB, holds=max(grown) < GROWTH_BOUND_MB,
    )  # fmt: skip
    table.add(place.name, own_name, hand_in, hand_out, hand_in / copied, hand_out / copied)


def there_and_back(
    place: Place, original: Path, put: Callable[[str, Path], Moved], get: Callable[[str, Path], Moved]
) -> tuple[Moved, Moved]:
    """Into a fresh database, and out of it into a new file, which must be the same."""
    url = place.renew()
    with tempfile.TemporaryDirectory(dir=original.parent) as name:
        os.sync()  # no run pays for what the one before it left to the disk
        moved_in = put(url, original)
        place.settle(url)
        os.sync()
        moved_out = get(url, Path(name) / "back")
        (back,) = (path for path in Path(name).rglob("*") if path.is_file() and path.stat().st_size > 1 << 10)
        require(hashed(back)[1] == hashed(original)[1], f"{place.name} gave back another file")
    return moved_in, moved_out


def by_process(verb: str) -> Callable[[str, Path], Moved]:
    def move(url: str, path: Path) -> Moved:
        command = [sys.executable, "-m", "benchmarks.checkpointer", verb, url, str(path)]
        return Moved(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))

    return move


def by_hand(way: Way) -> Callable[[str, Path], Moved]:
    def move(url: str, path: Path) -> Moved:
        began = time.perf_counter()
        way(url, path)
        return Moved(time.perf_counter() - began)

    return move


def hashed(path: Path) -> tuple[float, str]:
    """The seconds it takes to hash a file, and its hash."""
    began = time.perf_counter()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return time.perf_counter() - began, digest


def waits(original: Path, repeats: int) -> Table:
    """What another process's single-row commits take meanwhile, where the file has one writer."""
    table = Table("T1. SQLite: another's commits while a checkpoint goes in", WAIT_HEADINGS)
    cases: dict[str, Callable[[str, Path], object]] = {
        "nothing": lambda url, path: time.sleep(2.0),
        "pinnacle": by_process("put"),
        WAYS["sqlite"][0]: by_hand(WAYS["sqlite"][1]),
    }
    usual = 0.0
    with opened("sqlite", 0) as place:
        for beside, work in cases.items():
            runs = [commits_beside(place.renew(), lambda url, work=work: work(url, original)) for _ in range(repeats)]  # type: ignore[misc]
            times = min(runs, key=lambda times: quantile(times, 0.99))
            p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
            usual = usual or p50
            holds = p99 - usual <= WAIT_BOUND_MS if beside == "pinnacle" else None
            table.add(beside, len(times), p50, p99, max(times), p99 - usual, WAIT_BOUND_MS, holds=holds)
    table.notes.append(f"of {repeats} runs of each, the one with the lowest p99")
    return table


def commits_beside(url: str, work: Callable[[str], object]) -> list[float]:
    """Milliseconds of one commit after another for as long as ``work`` takes."""
    thread, times = threading.Thread(target=work, args=(url,)), []
    with closing(sqlite3.connect(sa.make_url(url).database or "", timeout=60, isolation_level=None)) as connection:
        thread.start()
        while thread.is_alive():
            time.sleep(PACE_S)
            began = time.perf_counter()
            connection.execute(f"INSERT INTO {TABLE} (body) VALUES ('written meanwhile')")
            times.append((time.perf_counter() - began) * 1000)
        thread.join()
    return times
