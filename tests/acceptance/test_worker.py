"""``pinnacle worker`` and ``pinnacle status``, as an operator runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pinnacle import Listener, model
from pinnacle.backends.protocol import Capability
from pinnacle.cli import main
from tests.contract.documents import create_docs, wait_until
from tests.contract.listening import add, values
from tests.databases import SqlDatabase
from tests.forks import Fork
from tests.models import Suffixed, picky
from tests.worker_models import GATE, KILL, LOG, WINDOW, fatal, gated

ROOT = Path(__file__).parents[2]
COMMAND = "from pinnacle.cli import main; main()"


@dataclass
class Workers:
    """Worker processes of one test; ``calls`` are those of all of them."""

    url: Any
    directory: Path
    running: list[Fork] = field(default_factory=list)

    def start(self, *, kill_at: str = "") -> Fork:
        """One more, ready to work."""
        environment = {LOG: str(self.directory / "calls"), GATE: str(self.gate), KILL: kill_at}
        worker = Fork(COMMAND, "worker", self.url, environment=environment, stderr=subprocess.PIPE)
        self.running.append(worker)
        assert worker.stderr is not None
        assert worker.stderr.readline().startswith("Working on 1 listeners")
        return worker

    @property
    def gate(self) -> Path:
        return self.directory / "gate"

    @property
    def calls(self) -> list[str]:
        log = self.directory / "calls"
        return log.read_text().splitlines() if log.exists() else []

    def stop(self) -> None:
        self.gate.touch()
        for worker in self.running:
            worker.terminate()
        for worker in self.running:
            worker.communicate(timeout=600)


@contextmanager
def workers_of(url: Any, directory: Path) -> Iterator[Workers]:
    workers = Workers(url, directory)
    try:
        yield workers
    finally:
        workers.stop()


@pytest.fixture
def workers(backend, tmp_path):
    with workers_of(backend.address, tmp_path) as found:
        yield found


def status(url: Any) -> str:
    answer = CliRunner().invoke(main, ["status", str(url)])
    assert answer.exit_code == 0, f"{answer.output}\n{answer.exception!r}"
    return answer.output


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


on_servers_and_files = pytest.mark.requires(Capability.TRANSACTIONS)


@on_servers_and_files
def test_a_worker_process_fills_and_follows(backend, db, workers):
    create_docs(backend, *"ab")
    add(backend, db, fatal)
    workers.start()
    db.drain()
    assert values(backend) == {1: "A", 2: "B"}
    backend.update("docs", 1, {"body": "z"})
    db.drain()
    assert (values(backend), workers.calls) == ({1: "Z", 2: "B"}, ["a", "b", "z"])


@on_servers_and_files
def test_a_worker_process_follows_each_newer_version_that_it_has_the_code_of(backend, db, workers):
    create_docs(backend, "a")
    listener = add(backend, db, fatal, follow="latest")
    workers.start()
    db.drain()
    db.add(model(lambda body: body * 2, identifier="fatal", output_type=str))
    wait_until(lambda: "version 1: " in (db.listeners()[0].last_error or ""))
    assert (values(backend), db.fresh(listener).stale) == ({1: "A"}, 1)
    db.replace(Suffixed("fatal", suffix="?"))
    db.drain()
    assert (values(backend), db.fresh(listener).fresh, db.listeners()[0].last_error) == ({1: "a?"}, 1, None)


@on_servers_and_files
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_finishes_what_is_in_hand(backend, db, workers, number):
    create_docs(backend, "a")
    add(backend, db, gated)
    worker = workers.start()
    wait_until(lambda: workers.calls == ["a"])
    worker.send_signal(number)
    with pytest.raises(TimeoutError):
        worker.wait(timeout=0.2)
    workers.gate.touch()
    assert worker.wait(timeout=600) == 0
    assert values(backend) == {1: "A"}
    workers.start()
    db.drain()
    assert workers.calls == ["a"]


@on_servers_and_files
def test_what_a_killed_worker_had_not_done_is_done_by_the_next(backend, db, workers):
    bodies = texts(300)
    create_docs(backend, *bodies)
    add(backend, db, fatal)
    killed = workers.start(kill_at=bodies[150])
    assert killed.wait(timeout=600) == -signal.SIGKILL
    workers.start()
    db.drain()
    assert list(values(backend).values()) == [body.upper() for body in bodies]
    repeated = Counter(workers.calls).total() - len(bodies)
    assert 1 <= repeated <= 3 * WINDOW


@pytest.mark.requires(Capability.TRANSACTIONS, Capability.MANY_PROCESSES)
def test_two_workers_share_the_work_and_call_nothing_twice(backend, db, workers):
    create_docs(backend, *texts(400))
    add(backend, db, fatal)
    for _ in range(2):
        workers.start()
    db.drain()
    assert list(values(backend).values()) == [body.upper() for body in texts(400)]
    assert max(Counter(workers.calls).values()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_second_worker_of_a_sqlite_file_stands_by_and_takes_over(sqlite_user, tmp_path, number):
    backend, db = sqlite_user
    create_docs(backend, "a")
    add(backend, db, fatal)
    with workers_of(backend.address, tmp_path) as workers:
        first = workers.start()
        db.drain()
        workers.start()
        first.send_signal(number)
        first.wait(timeout=600)
        backend.update("docs", 1, {"body": "z"})
        db.drain()
        assert (values(backend), workers.calls) == ({1: "Z"}, ["a", "z"])


@pytest.fixture
def sqlite_user(sqlite_url):
    """A user's file and pinnacle's handle on it."""
    backend = SqlDatabase("sqlite", sqlite_url)
    with backend.open() as db:
        yield backend, db
    backend.close()


# -- status -------------------------------------------------------------------------------------------------


def line_of(shown: str) -> list[str]:
    """The line of the one listener in the table of listeners."""
    _, _, table = shown.partition("Listeners (1)\n")
    return table.splitlines()[1].split()


def test_the_status_shows_what_waits(sqlite_user):
    backend, db = sqlite_user
    create_docs(backend, *"abc")
    add(backend, db)
    db.listen()
    db.drain()
    db.stop()
    backend.update("docs", 1, {"body": "z"})
    shown = status(backend.address)
    assert shown.startswith("Workers: none lives\n")
    assert line_of(shown)[:6] == ["docs.loud", "no", "worker", "1", "0", "0"]
    assert line_of(shown)[-2:] == ["shout", "0"]


def test_the_status_shows_which_model_a_listener_follows(sqlite_user):
    backend, db = sqlite_user
    create_docs(backend, "a")
    add(backend, db, follow="latest")
    db.listen()
    db.drain()
    assert line_of(status(backend.address))[-3:] == ["shout", "0", "(latest)"]


def test_the_status_shows_failed_rows_and_why_a_listener_is_paused(sqlite_user):
    backend, db = sqlite_user
    create_docs(backend, "a", "bad one")
    listener = add(backend, db, picky)
    db.listen()
    db.drain()
    db.pause(listener, "the key is being changed")
    shown = status(backend.address)
    assert line_of(shown)[:5] == ["docs.loud", "paused", "0", "0", "1"]
    assert "docs.loud is paused: the key is being changed" in shown


def test_the_status_shows_a_listener_whose_table_is_gone(sqlite_user):
    backend, db = sqlite_user
    create_docs(backend, "a")
    add(backend, db)
    db.listen()
    db.drain()
    with backend.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE docs")
    wait_until(lambda: db.listeners()[0].paused is not None)
    assert "docs.loud is paused: table docs is gone" in status(backend.address)


def test_a_listener_whose_model_is_not_here_says_so_and_the_others_go_on(sqlite_user, tmp_path):
    backend, db = sqlite_user
    create_docs(backend, "a")
    add(backend, db)
    module = tmp_path / "elsewhere_models.py"
    module.write_text("from pinnacle import model\n\n\n@model\ndef elsewhere(body: str) -> str:\n    return body * 2\n")
    sys.path.insert(0, str(tmp_path))
    try:
        from elsewhere_models import elsewhere  # type: ignore[import-not-found]

        db.add(Listener(model=elsewhere, key="body", select=backend.query("docs"), output="other"))
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("elsewhere_models", None)
    command = [sys.executable, "-c", COMMAND, "worker", backend.address]
    worker = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: values(backend) == {1: "A"})
        wait_until(lambda: "elsewhere_models:elsewhere needs module" in status(backend.address))
    finally:
        worker.terminate()
        worker.wait(timeout=600)
    assert values(backend, "other") == {1: None}


def test_the_worker_needs_a_database_that_is_there(tmp_path):
    answer = CliRunner().invoke(main, ["worker", f"sqlite:///{tmp_path / 'no.db'}"])
    assert answer.exit_code == 1
    assert "there is no database file" in answer.output
