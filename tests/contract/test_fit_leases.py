"""One process trains a model at a time, on every database: others are told whom to wait for."""

from __future__ import annotations

import os
import socket
import subprocess
import time

import pytest

from pinnacle import BackendError, Conflict, Settings, pinnacle
from pinnacle.backends.protocol import Capability
from pinnacle.runtime.leases import TrainingLease
from tests.contract.documents import snapshot, wait_until
from tests.contract.lines import DONE, create_points, expected, fit, kept, points, steps
from tests.contract.trainable import AT_STEP, Line
from tests.forks import Fork

TTL_S, LONGER_TTL_S = 0.1, 3.0

pytestmark = [pytest.mark.usefixtures("cache_dir"), pytest.mark.same_standalone]

FIT = """
import sys
import sqlalchemy as sa
from pinnacle import pinnacle
from pinnacle.backends.mongodb import Collection
from tests.contract.trainable import AT_STEP, Line, LineConfiguration

url = sys.argv[1]
rows = Collection("points").find() if url.startswith("mongodb") else sa.select(sa.table("points", sa.column("id")))

def wait(job):
    print("training", flush=True)
    sys.stdin.readline()

AT_STEP[6] = wait
with pinnacle(url) as db:
    Line("line").fit(X=("x", "y"), select=rows, configuration=LineConfiguration("training"), db=db)
"""


@pytest.fixture
def short(backend, cache_dir):
    """A handle whose leases are short."""
    with with_leases_of(TTL_S, backend, cache_dir) as handle:
        yield handle


def with_leases_of(ttl_s, backend, cache_dir):
    return pinnacle(backend.address, settings=Settings(lease_ttl_s=ttl_s, cache_dir=cache_dir))


@pytest.mark.unmigrated
@pytest.mark.requires(Capability.TRANSACTIONS)
def test_a_second_process_is_told_who_trains_the_model_and_the_first_finishes(backend, db):
    create_points(backend)
    first = Fork(FIT, backend.address, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == "training\n"
    before = kept(db)
    line = Line("line")
    with pytest.raises(Conflict, match=f"'line' is being trained by process {socket.gethostname()}:{first.pid};"):
        fit(backend, db, line)
    assert (kept(db), line.weights, db.load("run", "line").is_alive) == (before, None, True)
    first.communicate("go on\n", timeout=600)
    assert first.returncode == 0
    assert kept(db) == DONE
    assert db.load("model", "line").line() == expected(points())
    fit(backend, db, line)


def test_a_second_fit_in_this_process_is_refused_and_other_models_are_trained(backend, db):
    create_points(backend)

    def others(job):
        AT_STEP.clear()
        with backend.open() as handle:
            with pytest.raises(Conflict, match=f"by process {socket.gethostname()}:{os.getpid()};"):
                fit(backend, handle)
            fit(backend, handle, Line("other"))

    AT_STEP[6] = others
    fit(backend, db)
    assert db.load("model", "line").line() == db.load("model", "other").line() == expected(points())
    assert kept(db) == {**DONE, ("checkpoint", "other/0"): [4, 8, 12], ("model", "other"): [0], ("run", "other"): [0]}


def test_a_lease_is_renewed_for_as_long_as_it_takes(backend, db, cache_dir, below):
    """The lease is long enough for a busy machine, and who asks for it leaves a database of one writer some time."""
    create_points(backend)
    answers = []

    def ask(job):
        until = time.monotonic() + 2.5 * LONGER_TTL_S
        while time.monotonic() < until:
            answers.append(below.runs.lease("line", "thief", 60))
            time.sleep(0.02)

    AT_STEP[6] = ask
    with with_leases_of(LONGER_TTL_S, backend, cache_dir) as handle:
        fit(backend, handle)
    assert set(answers) == {f"{socket.gethostname()}:{os.getpid()}"}
    assert kept(db) == DONE


@pytest.mark.parametrize("thief", ["trains", "has trained"])
def test_a_fit_whose_lease_was_taken_over_stops_before_it_writes_anything_more(
    backend, db, short, monkeypatch, caplog, thief, below
):
    create_points(backend)
    monkeypatch.setattr(TrainingLease, "_keep", lambda self: None)
    seen = []

    def steal(job):
        runs = below.runs
        wait_until(lambda: runs.lease("line", "thief", 60) is None)
        if thief == "has trained":
            runs.release("line", "thief")
        seen.append(snapshot(backend))

    AT_STEP[7] = steal
    line = Line("line")
    with pytest.raises(Conflict, match="the right to train model 'line' was taken over by another process"):
        fit(backend, short, line)
    assert snapshot(backend) == seen[0]
    assert line.weights is None
    assert "could not be stored" in caplog.text


def test_whoever_takes_over_goes_on_and_the_first_leaves_it_alone(backend, db, short, monkeypatch, below):
    create_points(backend)
    monkeypatch.setattr(TrainingLease, "_keep", lambda self: None)
    taken_over = []

    def take_over(job):
        AT_STEP.clear()
        wait_until(lambda: not below.runs.leased())
        taken_over.append(fit(backend, db))

    AT_STEP[7] = take_over
    with pytest.raises(Conflict, match="taken over"):
        fit(backend, short)
    run = db.load("run", "line")
    assert (run, run.resumed, run.status, steps(run)) == (taken_over[0], 1, "done", [2, 4, 6, 8, 10, 12])
    assert db.load("model", "line").line() == expected(points())
    assert kept(db) == DONE


def test_a_lease_that_could_not_be_given_up_is_no_hindrance_to_the_same_process(
    backend, db, monkeypatch, caplog, below
):
    create_points(backend)

    def full(*args):
        raise BackendError("the database is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(below.runs), "release", full)
        fit(backend, db)
    assert "the lease of model 'line' could not be given up yet: the database is full" in caplog.text
    assert below.runs.leased() != {}
    assert fit(backend, db).version == 1
    assert below.runs.leased() == {}


def test_a_lease_that_nobody_wanted_meanwhile_is_good_again(backend, db, short, monkeypatch, below):
    create_points(backend)
    monkeypatch.setattr(TrainingLease, "_keep", lambda self: None)
    AT_STEP[7] = lambda job: wait_until(lambda: not below.runs.leased())
    fit(backend, short)
    assert kept(db) == DONE
