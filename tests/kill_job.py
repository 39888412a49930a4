"""A predict in a process of its own, killed with SIGKILL at random moments and started again.

The job says "ready", then predicts ``docs.reversed``.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pinnacle import pinnacle
from pinnacle.backends.mongodb import Collection
from tests.forks import Fork
from tests.kill_models import CALLS_LOG, MODELS

OUTPUT = "reversed"
READY = "ready\n"
JOB = "import sys; from tests.kill_job import main; main(*sys.argv[1:])"
POLL_S = 0.0005
LONGEST_PAUSE_S = 0.03
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Survived:
    """A predict that was killed ``kills`` times and then finished, after ``calls`` model calls in all."""

    kills: int
    calls: int
    calls_when_finished: int
    """Model calls of one more predict after all was done."""


def kill_and_finish(url: str, identifier: str, calls_log: Path, *, rows: int, kills: int, seed: int) -> Survived:
    """Kill the job ``kills`` times, each after a random number of calls and a random pause, then let it finish.

    The first kill comes before or soon after the first call, while tables and columns are made.
    """
    chance = random.Random(seed)
    calls_log.touch()
    killed = 0
    while killed < kills:
        left = max(0, rows - size(calls_log))
        most = min(2 * left // (kills - killed + 1), left // 2) if killed else 0
        with started(url, identifier, calls_log) as job:
            wait_for_calls(job, calls_log, size(calls_log) + chance.randint(0, most))
            time.sleep(chance.uniform(0, LONGEST_PAUSE_S))
            job.kill()
        if job.returncode == 0:
            raise RuntimeError(f"the job was done before kill {killed + 1} of {kills}; give it more rows")
        killed += 1
    finish(url, identifier, calls_log)
    calls = size(calls_log)
    finish(url, identifier, calls_log)
    return Survived(killed, calls, size(calls_log) - calls)


@contextmanager
def started(url: str, identifier: str, calls_log: Path) -> Iterator[Fork]:
    """The job, about to predict; waited for at the end."""
    with Fork(JOB, url, identifier, environment={CALLS_LOG: str(calls_log)}, stdout=subprocess.PIPE) as job:
        if job.stdout is None or job.stdout.readline() != READY:
            raise RuntimeError(f"the job did not start: exit status {job.wait()}")
        yield job


def wait_for_calls(job: Fork, calls_log: Path, calls: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while size(calls_log) < calls and job.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{size(calls_log)} of {calls} calls after {TIMEOUT_S} s")
        time.sleep(POLL_S)


def finish(url: str, identifier: str, calls_log: Path) -> None:
    with started(url, identifier, calls_log) as job:
        if job.wait(TIMEOUT_S):
            raise RuntimeError(f"the job failed with {job.returncode}")


def size(path: Path) -> int:
    return path.stat().st_size


def main(url: str, identifier: str) -> None:
    select: Any = Collection("docs").find()
    if not url.startswith("mongodb"):
        select = sa.select(sa.table("docs", sa.column("id"), sa.column("body")))
    with pinnacle(url) as db:
        print(READY, end="", flush=True)
        MODELS[identifier].predict(X="body", db=db, select=select, output=OUTPUT, progress=False)
