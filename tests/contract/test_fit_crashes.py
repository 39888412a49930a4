"""Fits that are cut short, on every database: the same call goes on, and ends as if nothing had been."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from pinnacle.backends.protocol import Capability
from tests.contract.lines import (
    DONE,
    artifacts,
    configure,
    create_points,
    expected,
    fit,
    kept,
    points,
    steps,
    used_artifacts,
    work_folders,
)
from tests.contract.trainable import AT_STEP, WEIGHTS, Line
from tests.forks import Fork

GOES_ON, BEGINS_AGAIN = "goes on from its checkpoint at step", "left nothing to go on from; it begins again"

pytestmark = pytest.mark.usefixtures("cache_dir")

FIT = """
import os, signal, sys
import sqlalchemy as sa
from pinnacle import pinnacle
from pinnacle.backends.mongodb import Collection
from tests.contract.trainable import AT_STEP, Line, LineConfiguration

url, step = sys.argv[1], int(sys.argv[2])
rows = Collection("points").find() if url.startswith("mongodb") else sa.select(sa.table("points", sa.column("id")))
AT_STEP[step] = lambda job: os.kill(os.getpid(), signal.SIGKILL)
with pinnacle(url) as db:
    Line("line").fit(X=("x", "y"), select=rows, configuration=LineConfiguration("training"), db=db)
"""
KILLS = {
    "before the first checkpoint": ([3], BEGINS_AGAIN),
    "while the first is stored": (["in-save"], BEGINS_AGAIN),
    "when the first was stored": (["after-save"], f"{GOES_ON} 4"),
    "between checkpoints": ([6], f"{GOES_ON} 4"),
    "while the second is stored": ([6, "in-save"], f"{GOES_ON} 4"),
    "before the new version": (["before-register"], f"{GOES_ON} 12"),
    "after the new version": (["after-register"], f"{GOES_ON} 12"),
    "again and again": ([3, 6, "in-save", "after-save", 11, "before-register"], f"{GOES_ON} 12"),
}
"""Where processes that fit one after another are killed, and what the next one says that it does."""


def fit_until_killed(backend, at):
    """Fit in a process that kills itself at a step, or at a failpoint."""
    step, point = (at, "") if isinstance(at, int) else (0, f"{at}:1")
    fork = Fork(FIT, backend.address, step, environment={"PINNACLE_FAILPOINTS": point}, stderr=subprocess.PIPE)
    _, said = fork.communicate(timeout=600)
    assert fork.returncode == -signal.SIGKILL, said


def check_undisturbed(backend, db, below, cache_dir, line):
    """Assert that all is as after a fit that nothing happened to."""
    run = db.load("run", "line")
    assert line.line() == db.load("model", "line").line() == expected(points())
    assert kept(db) == DONE
    assert artifacts(backend) == used_artifacts(db)
    assert (run.status, run.error, run.rows) == ("done", None, {"train": 8})
    assert steps(run) == [2, 4, 6, 8, 10, 12]
    assert [(each.step, each.is_final) for each in run.checkpoints()] == [(4, False), (8, False), (12, True)]
    assert tuple(json.loads(run.checkpoints()[-1].files[WEIGHTS].read())) == line.line()
    assert run.metrics == {"loss": run.series()[-1]["loss"]}
    assert below.runs.leased() == {}
    assert work_folders(cache_dir) == []


@pytest.mark.requires(Capability.TRANSACTIONS)
@pytest.mark.parametrize(("kills", "said"), KILLS.values(), ids=KILLS)
def test_a_fit_that_was_killed_ends_as_if_it_had_not_been(backend, db, below, cache_dir, caplog, kills, said):
    create_points(backend)
    for at in kills:
        fit_until_killed(backend, at)
    assert len(work_folders(cache_dir)) == 1
    assert (db.load("run", "line").status, db.load("run", "line").is_alive) == ("running", False)
    line = Line("line")
    run = fit(backend, db, line)
    assert said in caplog.text
    assert run.resumed == len(kills)
    check_undisturbed(backend, db, below, cache_dir, line)


@pytest.mark.requires(Capability.MANY_PROCESSES)
def test_without_transactions_too_a_fit_that_was_killed_ends_as_if_it_had_not_been(backend, db, below, cache_dir):
    create_points(backend)
    for at in (6, "in-save", "before-register"):
        fit_until_killed(backend, at)
    line = Line("line")
    fit(backend, db, line)
    check_undisturbed(backend, db, below, cache_dir, line)


@pytest.mark.requires(Capability.TRANSACTIONS)
@pytest.mark.parametrize("changed", ["rows", "configuration", "model"])
def test_after_a_kill_another_fit_begins_anew_and_does_not_say_that_it_goes_on(backend, db, cache_dir, caplog, changed):
    create_points(backend)
    fit_until_killed(backend, 6)
    if changed == "rows":
        backend.update("points", 8, {"y": -4.0})
    line = Line("line", unit=2.0) if changed == "model" else Line("line")
    settings = {"learning_rate": 0.05} if changed == "configuration" else {}
    run = fit(backend, db, line, configuration=configure(**settings))
    assert (GOES_ON in caplog.text, BEGINS_AGAIN in caplog.text) == (False, False)
    assert (run.version, run.resumed, steps(run)) == (1, 0, [2, 4, 6, 8, 10, 12])
    assert kept(db) == {
        ("checkpoint", "line/0"): [4], ("checkpoint", "line/1"): [4, 8, 12], ("model", "line"): [0],
        ("run", "line"): [0, 1], ("training_configuration", "training"): [0, 1] if settings else [0],
    }  # fmt: skip
    assert [db.load("run", "line", version).status for version in (0, 1)] == ["interrupted", "done"]
    assert artifacts(backend) == used_artifacts(db)
    assert work_folders(cache_dir) == []


# -- in one process ----------------------------------------------------------------------------------


def fail(job):
    raise ValueError("no")


def test_a_fit_that_failed_goes_on_when_it_is_asked_for_again(backend, db, below, cache_dir, caplog):
    create_points(backend)
    AT_STEP[11] = fail
    with pytest.raises(ValueError, match="no"):
        fit(backend, db)
    AT_STEP.clear()
    made = []
    AT_STEP.update({step: lambda job, step=step: made.append(step) for step in range(1, 13)})
    line = Line("line")
    run = fit(backend, db, line)
    assert "the fit of model 'line' that failed goes on from its checkpoint at step 8" in caplog.text
    assert (made, run.resumed) == ([9, 10, 11, 12], 1)
    check_undisturbed(backend, db, below, cache_dir, line)


def test_a_fit_that_is_done_is_not_gone_on_with(backend, db, caplog):
    create_points(backend)
    assert [fit(backend, db).version for _ in range(2)] == [0, 1]
    assert caplog.text == ""


def test_a_fit_that_keeps_nothing_in_the_database_does_not_say_that_it_begins_again(backend, db, caplog):
    create_points(backend)
    AT_STEP[11] = fail
    configuration = configure(log_to_db=False)
    with pytest.raises(ValueError, match="no"):
        fit(backend, db, configuration=configuration)
    AT_STEP.clear()
    assert fit(backend, db, configuration=configuration).resumed == 1
    assert "that failed is taken up again, from what it left on the disk" in caplog.text
    assert BEGINS_AGAIN not in caplog.text


def test_what_is_logged_while_it_goes_on_is_told_by_the_run(backend, db):
    create_points(backend)
    AT_STEP[11] = fail
    with pytest.raises(ValueError, match="no"):
        fit(backend, db)
    before = db.load("run", "line")
    seen = []
    AT_STEP[9] = lambda job: seen.append((db.load("run", "line"), db.load("run", "line").series()))
    AT_STEP.pop(11)
    fit(backend, db)
    [(run, series)] = seen
    assert (before.status, before.step, before.error) == ("failed", 10, "ValueError: no")
    assert (run.status, run.step, run.error) == ("running", 8, None)
    assert [entry["step"] for entry in series] == [2, 4, 6, 8]
    assert run.metrics == {"loss": series[-1]["loss"]}
    assert db.load("run", "line").seconds >= run.seconds >= before.seconds > 0


def test_the_best_checkpoint_is_at_hand_when_a_fit_goes_on(backend, db, cache_dir):
    create_points(backend, [*points(), {**points(1)[0], "y": -0.5}], folds=[*["train"] * 8, "valid"])
    settings = {"max_steps": 40, "save_steps": 2, "learning_rate": 0.05, "save_total_limit": 1, "keep_best": True}
    undisturbed = Line("other")
    fit(backend, db, undisturbed, configuration=configure(**settings))
    AT_STEP[39] = fail
    with pytest.raises(ValueError, match="no"):
        fit(backend, db, configuration=configure(**settings))
    best, newest = db.load("run", "line").checkpoints()
    assert (best.is_best, newest.step) == (True, 38)
    seen = []
    AT_STEP[39] = lambda job: seen.extend(sorted(path.name for path in job.work_dir.glob("checkpoint-*")))
    line = Line("line")
    fit(backend, db, line, configuration=configure(**settings))
    assert seen == sorted([f"checkpoint-{best.step}", "checkpoint-38"])
    assert line.line() == undisturbed.line()
