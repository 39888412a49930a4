"""Training runs in the database: one trains a model at a time, and what a run logs is kept, on every backend."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import threading

import pytest
import sqlalchemy as sa
from alembic import command

from pinnacle.backends.mongodb import migrations
from pinnacle.backends.mongodb.stores import runs as mongodb
from pinnacle.backends.protocol import Capability
from pinnacle.backends.sql import migrate, schema
from pinnacle.backends.sql import runs as sql
from pinnacle.base.processes import this_process
from tests.contract.documents import create_docs, has, snapshot, wait_until
from tests.forks import Fork

pytestmark = pytest.mark.same_standalone

TTL_S = 60.0
HERE = f"{socket.gethostname()}:{os.getpid()}"


@pytest.fixture
def runs(below):
    """What the training runs of a handle are kept by."""
    return below.runs


OPENED = """
import sys, time
from pinnacle import Settings
from pinnacle.backends.open import open_backend
runs = open_backend(sys.argv[1], Settings()).runs
"""


def start(address, script, *arguments):
    """A process that runs ``script``, whose ``runs`` are those of this database, and answers by lines."""
    return Fork(f"{OPENED}{script}", address, *arguments, stdout=subprocess.PIPE, stdin=subprocess.PIPE)


# -- who may train ----------------------------------------------------------------------------------


@pytest.mark.unmigrated
def test_before_anything_is_written_there_is_nothing_and_nothing_is_made(backend, runs):
    create_docs(backend, "a")
    before = snapshot(backend)
    runs.release("llm", "one")
    runs.cut("run", 0)
    runs.forget("run")
    runs.log("run", 0, [])
    assert (runs.leased(), runs.series("run")) == ({}, [])
    assert snapshot(backend) == before


def test_a_lease_keeps_others_out_until_it_is_released(backend, runs):
    assert runs.lease("llm", "one", TTL_S) is None
    with contextlib.closing(backend.below()) as other:
        theirs = other.runs
        assert theirs.lease("llm", "two", TTL_S) == HERE
        assert theirs.leased() == {"llm": "one"}
        theirs.release("llm", "two")
        assert theirs.lease("llm", "two", TTL_S) == HERE
        runs.release("llm", "one")
        assert theirs.lease("llm", "two", TTL_S) is None
    assert runs.leased() == {"llm": "two"}


def test_models_are_leased_each_by_itself(runs):
    names = ["llm", "a.b $c", "größer/'\"%", "x" * 300]
    for name in names:
        assert runs.lease(name, f"for {name}", TTL_S) is None
    assert runs.leased() == {name: f"for {name}" for name in names}


def test_a_lease_is_renewed_by_its_token(runs):
    assert runs.lease("llm", "one", 0.0) is None
    assert runs.leased() == {}
    assert runs.lease("llm", "one", TTL_S) is None
    assert runs.leased() == {"llm": "one"}
    assert runs.lease("llm", "two", TTL_S) == HERE


def test_an_expired_lease_is_void_and_cannot_be_renewed_once_another_has_it(runs):
    assert runs.lease("llm", "one", 0.05) is None
    wait_until(lambda: runs.lease("llm", "two", TTL_S) is None)
    assert runs.lease("llm", "one", TTL_S) == HERE
    assert runs.leased() == {"llm": "two"}


def test_a_renewal_is_good_until_another_had_the_lease(runs):
    assert runs.lease("other", "one", TTL_S) is None
    assert not runs.renew("llm", "one", TTL_S)
    assert runs.lease("llm", "one", 0.0) is None
    assert runs.renew("llm", "one", TTL_S)
    assert (runs.lease("llm", "two", TTL_S), runs.renew("llm", "two", TTL_S)) == (HERE, False)
    assert runs.renew("llm", "one", 0.0)
    wait_until(lambda: runs.lease("llm", "two", TTL_S) is None)
    assert not runs.renew("llm", "one", TTL_S)
    runs.release("llm", "two")
    assert not runs.renew("llm", "one", TTL_S)
    assert runs.leased() == {"other": "one"}


@pytest.mark.unmigrated
def test_of_threads_that_ask_at_once_exactly_one_gets_the_lease(backend, runs):
    handles = [backend.below() for _ in range(6)]
    for round_number in range(5):
        model, start_together, answers = f"llm {round_number}", threading.Barrier(len(handles)), {}

        def ask(number, handle, model=model, start_together=start_together, answers=answers):
            start_together.wait(timeout=600)
            answers[f"token {number}"] = handle.runs.lease(model, f"token {number}", TTL_S)

        threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(handles)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=600)
        winners = [token for token, answer in answers.items() if answer is None]
        assert len(answers) == len(handles)
        assert [runs.leased()[model]] == winners
        assert {answer for answer in answers.values() if answer} == {HERE}
    for handle in handles:
        handle.close()


ASK = """
sys.stdin.readline()
print(runs.lease("llm", sys.argv[2], 60))
sys.stdin.readline()
"""


@pytest.mark.unmigrated
@pytest.mark.requires(Capability.TRANSACTIONS)
def test_of_processes_that_ask_at_once_in_a_new_database_exactly_one_gets_the_lease(backend, runs):
    processes = [start(backend.address, ASK, f"token {number}") for number in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in processes]
    (winner,) = [number for number, answer in enumerate(answers) if answer == "None"]
    assert set(answers) == {"None", f"{socket.gethostname()}:{processes[winner].pid}"}
    assert runs.leased() == {"llm": f"token {winner}"}
    for process in processes:
        process.communicate("\n", timeout=600)


HOLD = """
assert runs.lease("llm", "killed", 600) is None
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.requires(Capability.TRANSACTIONS)
def test_the_lease_of_a_killed_process_is_void_at_once_and_goes_to_one(backend, runs):
    holder = start(backend.address, HOLD)
    assert holder.stdout.readline() == "held\n"
    assert runs.lease("llm", "one", TTL_S) == f"{socket.gethostname()}:{holder.pid}"
    assert runs.leased() == {"llm": "killed"}
    holder.kill()
    holder.communicate(timeout=600)
    assert runs.leased() == {}
    answers = []
    threads = [
        threading.Thread(target=lambda token: answers.append(runs.lease("llm", token, TTL_S)), args=(token,))
        for token in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert sorted(map(str, answers)) == sorted(["None", HERE, HERE, HERE])


@pytest.mark.parametrize("machine", ["this", "another"])
def test_only_a_process_of_this_machine_is_known_to_be_gone(runs, monkeypatch, machine):
    ended = Fork("")
    ended.wait(600)
    here = this_process().rpartition(":")[0] if machine == "this" else "elsewhere"
    with monkeypatch.context() as patched:
        for room in (sql, mongodb):
            patched.setattr(room, "this_process", lambda: f"{here}:{ended.pid}")
        assert runs.lease("llm", "one", TTL_S) is None
    if machine == "another":
        assert runs.lease("llm", "two", TTL_S) == f"elsewhere:{ended.pid}"
        assert runs.leased() == {"llm": "one"}
    else:
        assert runs.leased() == {}
        assert runs.lease("llm", "two", TTL_S) is None


# -- metrics ----------------------------------------------------------------------------------------


def test_metrics_come_back_in_order_as_they_were_logged(backend, runs):
    odd = {
        "loss": 0.1,
        "step": 2**60,
        "text": "Grüße \x00 \ud83d %s :name ' \"",
        "none": None,
        "a.b": {"$c": [1, True]},
    }
    runs.log("run", 0, [odd, {}])
    runs.log("run", 2, [{"step": step, "lr": 1e-5 * step} for step in range(2, 12)])
    with contextlib.closing(backend.below()) as other:
        found = other.runs.series("run")
    assert json.dumps(found) == json.dumps([odd, {}, *({"step": step, "lr": 1e-5 * step} for step in range(2, 12))])


def test_nan_infinities_and_the_smallest_numbers_survive(runs):
    logged = {"nan": math.nan, "up": math.inf, "down": -math.inf, "small": 5e-324, "zero": -0.0, "third": 1 / 3}
    runs.log("run", 0, [logged])
    assert repr(runs.series("run")) == repr([logged])


def test_entries_that_are_logged_again_are_replaced_and_later_ones_kept(runs):
    runs.log("run", 0, [{"at": step} for step in range(5)])
    runs.log("run", 1, [{"again": 1}, {"again": 2}])
    assert runs.series("run") == [{"at": 0}, {"again": 1}, {"again": 2}, {"at": 3}, {"at": 4}]


def test_a_cut_run_goes_on_from_there(runs):
    for run in ("run", "other"):
        runs.log(run, 0, [{"at": step} for step in range(5)])
    runs.cut("run", 3)
    runs.cut("run", 100)
    assert runs.series("run") == [{"at": step} for step in range(3)]
    runs.log("run", 3, [{"new": 3}])
    assert runs.series("run") == [*({"at": step} for step in range(3)), {"new": 3}]
    assert len(runs.series("other")) == 5


def test_a_forgotten_run_is_erased_and_others_stay(backend, runs):
    runs.log("run", 0, [{"secret": "erased"}])
    runs.log("run 2", 0, [{"at": 0}])
    runs.forget("run")
    assert (runs.series("run"), runs.series("run 2")) == ([], [{"at": 0}])
    assert "erased" not in str(snapshot(backend))


def test_long_series_are_logged_at_once_and_in_numeric_order(backend, runs):
    count = 2_500 if has(backend, Capability.TRANSACTIONS) else 120
    runs.log("run", 0, [{"at": step} for step in range(count)])
    assert [entry["at"] for entry in runs.series("run")] == list(range(count))


def test_threads_that_log_at_once_lose_nothing(backend, runs):
    handles = [backend.below() for _ in range(4)]

    def log(number, handle):
        for step in range(10):
            handle.runs.log(f"run {number % 2}", 20 * (number // 2) + step, [{"at": step}])

    threads = [threading.Thread(target=log, args=pair) for pair in enumerate(handles)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    for handle in handles:
        handle.close()
    for run in ("run 0", "run 1"):
        assert [entry["at"] for entry in runs.series(run)] == [*range(10), *range(10)]


LOG = """
for step in range(1_000_000):
    runs.log("run", step, [{"at": step}])
    print(step, flush=True)
"""


@pytest.mark.requires(Capability.TRANSACTIONS)
def test_what_was_logged_before_a_kill_is_there(backend, runs):
    logging = start(backend.address, LOG)
    for _ in range(20):
        acknowledged = int(logging.stdout.readline())
    logging.kill()
    rest, _ = logging.communicate(timeout=600)
    acknowledged = max([acknowledged, *map(int, rest.split()[:-1])])
    found = [entry["at"] for entry in runs.series("run")]
    assert found == list(range(len(found)))
    assert len(found) > acknowledged


# -- both -------------------------------------------------------------------------------------------


@pytest.mark.unmigrated
def test_remove_all_takes_runs_away_and_all_works_again_afterwards(backend, db, runs):
    create_docs(backend, "a")
    before = snapshot(backend)
    for _ in range(2):
        runs.log("run", 0, [{"at": 0}])
        assert runs.lease("llm", "one", TTL_S) is None
        planned = " ".join(db.removal_plan())
        assert "pinnacle_training" in planned
        assert "pinnacle_metric" in planned
        db.remove_all()
        assert snapshot(backend) == before
        assert (runs.leased(), runs.series("run")) == ({}, [])


def make_older(backend, monkeypatch):
    """Bring pinnacle's own tables to where they were before there were runs."""
    if has(backend, Capability.DOCUMENTS):
        with monkeypatch.context() as patched, backend.open() as db:
            patched.setattr(migrations, "ALL", migrations.ALL[:3])
            db.migrate()
        return
    own = schema.SCHEMA if has(backend, Capability.NATIVE_VECTORS) else None
    with backend.engine.begin() as connection:
        if own:
            connection.execute(sa.schema.CreateSchema(own))
        command.upgrade(migrate._config(own, connection=connection), "0003")


@pytest.mark.unmigrated
@pytest.mark.parametrize("written", ["lease", "metrics"])
def test_an_older_database_is_brought_along_by_whatever_is_written_first(backend, monkeypatch, written):
    make_older(backend, monkeypatch)
    with contextlib.closing(backend.open()) as db, contextlib.closing(backend.below()) as below:
        planned = " ".join(db.migration_plan())
        assert "pinnacle_metric" in planned
        assert "pinnacle_usage" not in planned
        runs = below.runs
        if written == "lease":
            assert runs.lease("llm", "one", TTL_S) is None
        else:
            runs.log("run", 0, [{"at": 0}])
        assert db.migration_plan() == []
        assert (len(runs.leased()), len(runs.series("run"))) == ((1, 0) if written == "lease" else (0, 1))
