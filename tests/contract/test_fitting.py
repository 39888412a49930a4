"""Fits on every database: a model is trained on rows, is a new version each time, and is found again anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pinnacle import Listener
from pinnacle.backends.protocol import Capability
from pinnacle.runtime import worker
from tests.contract.documents import outputs
from tests.contract.lines import DONE, OFFSET, SLOPE, artifacts, configure, create_points, fit, kept, used_artifacts
from tests.contract.trainable import Line

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.usefixtures("cache_dir"), pytest.mark.same_standalone]


def fitted(backend, db, **settings):
    """A line that was fitted to the points."""
    create_points(backend)
    line = Line("line")
    fit(backend, db, line, configuration=configure(**settings))
    return line


def test_a_fit_learns_what_the_rows_say(backend, db):
    line = fitted(backend, db, max_steps=200, save_steps=1000, logging_steps=50)
    assert line.line() == pytest.approx((SLOPE, OFFSET), abs=1e-3)
    assert line.predict(10.0) == pytest.approx(SLOPE * 10 + OFFSET, abs=0.02)


def test_a_fit_leaves_its_model_its_run_and_its_checkpoints(backend, db, below):
    line = fitted(backend, db)
    assert line.version == 0
    assert kept(db) == DONE
    assert artifacts(backend) == used_artifacts(db)
    assert below.runs.leased() == {}


def test_each_fit_is_a_new_version_that_goes_on_from_the_one_before(backend, db):
    line = fitted(backend, db)
    first = line.line()
    again = fit(backend, db, line)
    assert line.version == 1
    assert again.base["fields"]["weights"] is not None
    fit(backend, db, Line("line"))
    loaded = [db.load("model", "line", version) for version in range(3)]
    assert [each.version for each in loaded] == [0, 1, 2]
    assert [each.line() for each in loaded] == [first, line.line(), first]
    assert line.line() != first
    assert kept(db) == {
        **DONE, **{("checkpoint", f"line/{run}"): [4, 8, 12] for run in range(3)},
        ("model", "line"): [0, 1, 2], ("run", "line"): [0, 1, 2],
    }  # fmt: skip


def test_predict_over_rows_uses_what_was_learned(backend, db):
    line = fitted(backend, db)
    line.predict(X="x", db=db, select=backend.query("points"))
    slope, offset = line.line()
    rows = backend.read_all("points")
    assert outputs(backend, db, "x", "line", "points") == {key: slope * row["x"] + offset for key, row in rows.items()}
    assert kept(db) == DONE


def test_predict_over_rows_after_another_fit_computes_them_again(backend, db):
    line = fitted(backend, db)
    line.predict(X="x", db=db, select=backend.query("points"))
    fit(backend, db, line)
    assert line.predict(X="x", db=db, select=backend.query("points")).written == 8
    slope, offset = line.line()
    assert outputs(backend, db, "x", "line", "points")[1] == -slope + offset


def test_a_loaded_model_predicts_the_same(backend, db):
    line = fitted(backend, db)
    with backend.open() as other:
        loaded = other.load("model", "line")
        assert (loaded.version, loaded.line(), loaded.predict([0.5])) == (0, line.line(), line.predict([0.5]))
        assert loaded.fitted_by.status == "done"


LOAD = """
import sys
from pinnacle import pinnacle
with pinnacle(sys.argv[1]) as db:
    line = db.load("model", "line")
    print(line.version, line.predict(0.3).hex())
"""


@pytest.mark.requires(Capability.TRANSACTIONS)
def test_another_process_predicts_the_same(backend, db):
    line = fitted(backend, db)
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, backend.address], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.stdout.split() == ["0", line.predict(0.3).hex()], ended.stderr


# -- a new object of the same model ------------------------------------------------------------------


def test_a_new_object_takes_over_what_was_learned_when_it_is_added(backend, db):
    line, new = fitted(backend, db), Line("line")
    db.add(new)
    assert (new.version, new.line()) == (0, line.line())
    assert kept(db) == DONE


def test_a_new_object_takes_over_what_was_learned_when_it_predicts_on_rows(backend, db):
    line, new = fitted(backend, db), Line("line")
    assert new.predict(X="x", db=db, select=backend.query("points")).written == 8
    assert (new.version, new.line()) == (0, line.line())
    again = Line("line").predict(X="x", db=db, select=backend.query("points"))
    assert (again.written, again.calls) == (0, 0)
    assert kept(db) == DONE


def test_a_new_object_takes_over_what_was_learned_when_a_run_is_only_asked_about(backend, db):
    line = fitted(backend, db)
    fit(backend, db, line)
    line.predict(X="x", db=db, select=backend.query("points"))
    tried = Line("line").predict(X="x", db=db, select=backend.query("points"), dry_run=True)
    assert tried.skipped == 8
    assert db.plan(Line("line"), "x", backend.query("points")).statements == ()


def test_a_new_object_in_a_listener_takes_over_what_was_learned(backend, db):
    line = fitted(backend, db)
    db.add(Listener(model=Line("line"), key="x", select=backend.query("points"), output="guess"))
    db.listen()
    db.drain()
    slope, offset = line.line()
    assert backend.read("points", 1)["guess"] == -slope + offset
    assert kept(db) == {**DONE, ("listener", "points.guess"): [0]}


def test_a_fit_of_an_older_version_goes_on_from_that(backend, db):
    line = fitted(backend, db)
    fit(backend, db, line)
    older = db.load("model", "line", 0)
    run = fit(backend, db, older)
    assert kept(db)["run", "line"] == [0, 1, 2]
    assert run.base["fields"]["weights"] == db.load("run", "line", 1).base["fields"]["weights"]
    assert older.line() == line.line()


def test_a_listener_that_follows_computes_with_what_a_fit_learned(backend, db, monkeypatch):
    monkeypatch.setattr(worker, "FOLLOW_S", 0.1)
    line = fitted(backend, db)
    listener = Listener(model=line, key="x", select=backend.query("points"), output="guess", follow="latest")
    db.add(listener)
    db.listen()
    db.drain()
    before = line.line()
    fit(backend, db, line)
    db.drain()
    slope, offset = line.line()
    assert (slope, offset) != before
    assert [backend.read("points", key)["guess"] for key in (1, 2)] == [-slope + offset, -0.75 * slope + offset]
    assert db.fresh(listener).fresh == 8


def test_a_new_object_with_other_settings_has_learned_nothing(backend, db):
    line = fitted(backend, db)
    other = Line("line", unit=2.0)
    db.add(other)
    assert (other.version, other.line()) == (1, (0.0, 0.0))
    assert db.load("model", "line", 0).line() == line.line()


def test_a_new_object_that_only_runs_otherwise_takes_over_what_was_learned(backend, db):
    line = fitted(backend, db)
    other = db.add(Line("line", batch_size=3, description="a line"))
    assert (other.version, other.line(), other.batch_size) == (0, line.line(), 3)
    assert (db.load("model", "line").batch_size, db.load("model", "line").line()) == (3, line.line())


# -- older versions ----------------------------------------------------------------------------------


def test_an_older_version_has_its_own_weights_and_is_the_newest_again_once_added(backend, db):
    line = fitted(backend, db)
    first = line.line()
    fit(backend, db, line)
    older = db.load("model", "line", version=0)
    assert older.line() == first != db.load("model", "line").line()
    assert db.add(older).version == 2
    assert db.load("model", "line").line() == first
    assert db.add(Line("line")).line() == first
    assert kept(db)["model", "line"] == [0, 1, 2]
