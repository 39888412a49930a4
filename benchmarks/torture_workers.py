"""The workers under torture: killed at failpoints and at random moments, and started again at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.torture_models import CALLS_VARIABLE
from pinnacle.base.failpoints import POINTS, POINTS_VARIABLE, SEED_VARIABLE

COMMAND = (sys.executable, "-m", "benchmarks.torture_worker")
ROOT = Path(__file__).parents[1]
POLL_S = 0.01
STOP_TIMEOUT_S = 30.0
OFTEN = 0.002
SELDOM = {"in-sweep": 0.05, "in-forget": 0.02}


class Workers:
    """``count`` workers of one database. A supervisor's thread ends and replaces them; others only ask it to."""

    def __init__(self, url: str, count: int, folder: Path, *, seed: int, kill_every_s: float) -> None:
        self._url, self._folder, self._seed, self._every_s = url, folder, seed, kill_every_s
        self._chance = random.Random(f"{seed} workers")
        self._is_armed, self._stop, self._lock = True, threading.Event(), threading.Lock()
        self.kills: Counter[str] = Counter()
        self.failures: list[str] = []
        self._started = 0
        self._logs: dict[int, Path] = {}
        self._processes = [self._start() for _ in range(count)]
        self._thread = threading.Thread(target=self._supervise, name="supervisor")

    def __enter__(self) -> Workers:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop all, as an operator would; none may fail."""
        self._stop.set()
        self._thread.join()
        for process in self._processes:
            self._wait_for(process)
            process.terminate()
        for process in self._processes:
            try:
                status = process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            if status:
                self.failures.append(f"a worker ended with {status} on SIGTERM")
        self._read_logs()

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """A signal that comes while a worker still starts ends it as it ends any program."""
        until = time.monotonic() + STOP_TIMEOUT_S
        while process.poll() is None and b"Working on" not in self._logs[process.pid].read_bytes():
            if time.monotonic() > until:
                break
            time.sleep(POLL_S)

    def calm(self) -> None:
        """From now on nobody is killed: the last kills take what failpoints there are away."""
        with self._lock:
            self._is_armed = False
            for position, process in enumerate(self._processes):
                process.kill()
                self._bury(process, "at the end")
                self._processes[position] = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        number, self._started = self._started, self._started + 1
        points = ";".join(f"{name}:{SELDOM.get(name, OFTEN)}" for name in POINTS) if self._is_armed else ""
        environment: dict[str, Any] = {
            **os.environ, CALLS_VARIABLE: str(self._folder), POINTS_VARIABLE: points,
            SEED_VARIABLE: f"{self._seed} {number}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        log = self._folder / f"{number}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*COMMAND, self._url, *(["small"] if number % 2 else [])], env=environment, stderr=stderr, cwd=ROOT
            )
        self._logs[process.pid] = log
        return process

    def _supervise(self) -> None:
        kill_at = time.monotonic() + self._every_s
        while not self._stop.wait(POLL_S):
            with self._lock:
                if self._is_armed and time.monotonic() >= kill_at:
                    kill_at = time.monotonic() + self._chance.uniform(0.2, 1.8) * self._every_s
                    victim = self._chance.choice(self._processes)
                    victim.kill()
                    victim.wait()
                    self.kills["at random"] += 1
                for position, process in enumerate(self._processes):
                    if process.poll() is not None:
                        self._bury(process, "")
                        self._processes[position] = self._start()

    def _bury(self, process: subprocess.Popen[bytes], kind: str) -> None:
        status = process.wait()
        if status != -signal.SIGKILL:
            self.failures.append(f"a worker ended by itself with {status}")
        elif kind:
            self.kills[kind] += 1

    def _read_logs(self) -> None:
        """Which failpoints have killed, and what went wrong that nobody expects."""
        for log in self._folder.glob("*.log"):
            lines = log.read_text(errors="replace").splitlines()
            self.kills.update(line.partition(" ")[2] for line in lines if line.startswith("failpoint "))
            if any(line.startswith("Traceback") for line in lines):
                self.failures.append(f"a worker met {next((x for x in reversed(lines) if x.strip()), '')!r}")
