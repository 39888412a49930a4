"""Runs on every database: what a fit tells of itself, the checkpoints it keeps, and how all of it is removed."""

from __future__ import annotations

import hashlib
import json

import pytest

from pinnacle import Conflict, NotFound
from pinnacle.components.run import checkpoints_of
from tests.contract.documents import snapshot
from tests.contract.lines import (
    DONE,
    XY,
    artifacts,
    configure,
    create_points,
    fit,
    kept,
    matching,
    points,
    steps,
    used_artifacts,
    work_folders,
)
from tests.contract.trainable import AT_STEP, WEIGHTS, Line

pytestmark = [pytest.mark.usefixtures("cache_dir"), pytest.mark.same_standalone]

FOLDS = ("train", "train", "valid", "train", "train", "train", "valid", "train")


# -- lineage -----------------------------------------------------------------------------------------


def test_a_run_tells_what_was_trained_how_and_on_what(backend, db):
    create_points(backend, folds=FOLDS)
    run = fit(backend, db, Line("line", unit=2.0), select=matching(backend, n=6), configuration=configure(seed=3))
    loaded = db.load("run", "line")
    assert loaded == run
    assert (loaded.version, loaded.status, loaded.error, loaded.resumed) == (0, "done", None, 0)
    assert (loaded.rows, loaded.left_out, loaded.X) == ({"train": 5, "valid": 2}, {}, list(XY))
    assert (loaded.base["fields"]["unit"], loaded.base["fields"]["weights"]) == (2.0, None)
    assert (loaded.configuration, loaded.configuration.version) == (configure(seed=3), 0)
    assert (loaded.seeds, loaded.packages, loaded.device) == ({"seed": 3}, {"line": "1.0"}, "cpu")
    assert (loaded.step, loaded.max_steps, loaded.epoch) == (12, 12, 12 * 4 / 5)
    assert loaded.seconds > 0
    assert loaded.started_at.utcoffset().total_seconds() == 0
    assert not loaded.is_alive
    assert "points" in str(loaded.query["train"])
    assert db.load("model", "line").fitted_by == loaded


def test_a_query_in_the_lineage_gives_the_same_rows_again(backend, db):
    create_points(backend)
    told = db.load("run", fit(backend, db, select=matching(backend, x=0.0)).identifier).query["train"]
    assert fit(backend, db, select=told).rows == {"train": 5}


def test_a_fingerprint_changes_with_the_content_of_the_rows_and_with_nothing_else(backend, db):
    create_points(backend, folds=FOLDS)
    first = fit(backend, db).fingerprint
    backend.update("points", 1, {"sample": "not read", "n": 99})
    assert fit(backend, db).fingerprint == first
    backend.update("points", 3, {"y": 7.5})
    valid_changed = fit(backend, db).fingerprint
    assert (valid_changed["train"], valid_changed["valid"] == first["valid"]) == (first["train"], False)
    backend.update("points", 3, {"y": points()[2]["y"]})
    assert fit(backend, db).fingerprint == first
    backend.update("points", 8, {"y": 7.5})
    assert fit(backend, db).fingerprint["train"] != first["train"]


def test_a_fingerprint_can_be_worked_out_by_hand(backend, db):
    create_points(backend, points(2))
    lines = [json.dumps({"x": row["x"], "y": row["y"]}) + "\n" for row in points(2)]
    by_hand = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert fit(backend, db, configuration=configure(batch_size=2)).fingerprint == {"train": by_hand}


# -- metrics -----------------------------------------------------------------------------------------


def test_metrics_are_a_series_and_a_frame(backend, db):
    create_points(backend, folds=FOLDS)
    run = fit(backend, db)
    assert [entry["step"] for entry in run.series()] == [2, 4, 4, 6, 8, 8, 10, 12, 12]
    assert (steps(run), steps(run, "eval_valid_loss")) == ([2, 4, 6, 8, 10, 12], [4, 8, 12])
    assert run.series()[-1]["eval_valid_loss"] == run.metrics["eval_valid_loss"]
    frame = run.data()
    assert list(frame["step"]) == [2, 4, 6, 8, 10, 12]
    assert list(frame["eval_valid_loss"].notna()) == [False, True, False, True, False, True]
    losses = [entry["loss"] for entry in run.series() if "loss" in entry]
    assert list(frame["loss"]) == losses
    assert losses[-1] < losses[0]


def test_a_plot_is_a_picture_of_the_losses(backend, db, tmp_path):
    create_points(backend, folds=FOLDS)
    fit(backend, db)
    run = db.load("run", "line")
    figure = run.plot(str(tmp_path / "loss.png"))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    drawn = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert drawn == {"loss": [2, 4, 6, 8, 10, 12], "eval_valid_loss": [4, 8, 12]}


def test_without_a_logged_loss_a_plot_says_so(backend, db):
    create_points(backend)
    AT_STEP[1] = lambda job: 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(backend, db)
    with pytest.raises(NotFound, match="logged no loss yet"):
        db.load("run", "line").plot()
    assert db.load("run", "line").data().empty


# -- checkpoints -------------------------------------------------------------------------------------


def test_checkpoints_hold_what_was_learned_by_then(backend, db):
    create_points(backend, folds=FOLDS)
    line = Line("line")
    run = fit(backend, db, line)
    found = run.checkpoints()
    assert [(each.step, each.epoch, each.is_final) for each in found] == [
        (4, 4 * 4 / 6, False), (8, 8 * 4 / 6, False), (12, 12 * 4 / 6, True),
    ]  # fmt: skip
    logged = {(entry["step"], name): value for entry in run.series() for name, value in entry.items()}
    for each in found:
        assert (each.loss, each.metrics) == (
            logged[each.step, "loss"], {"eval_valid_loss": logged[each.step, "eval_valid_loss"]}
        )  # fmt: skip
        assert each.size == len(each.files[WEIGHTS].read())
    best = min(found, key=lambda each: each.metrics["eval_valid_loss"])
    assert [each for each in found if each.is_best] == [best]
    assert tuple(json.loads(found[-1].files[WEIGHTS].read())) == line.line()


def test_only_the_newest_checkpoints_are_kept(backend, db):
    create_points(backend)
    settings = {"max_steps": 20, "save_steps": 2}
    run = fit(backend, db, configuration=configure(save_total_limit=3, **settings))
    assert [each.step for each in run.checkpoints()] == [16, 18, 20]
    assert artifacts(backend) == used_artifacts(db)
    assert len(artifacts(backend)) == 3
    unlimited = fit(backend, db, configuration=configure(**settings))
    assert len(unlimited.checkpoints()) == 10
    assert artifacts(backend) == used_artifacts(db)
    assert len(artifacts(backend)) == 10


@pytest.mark.parametrize("limit", [1, 2])
def test_the_best_checkpoint_is_kept_beside_the_newest(backend, db, limit):
    create_points(backend, [*points(), {**points(1)[0], "y": -0.5}], folds=[*["train"] * 8, "valid"])
    settings = {"max_steps": 40, "save_steps": 2, "learning_rate": 0.05, "keep_best": True}
    line = Line("line")
    everything = fit(backend, db, Line("line"), configuration=configure(**settings)).checkpoints()
    best = min(everything, key=lambda each: each.metrics["eval_valid_loss"])
    assert best.step < 38
    run = fit(backend, db, line, configuration=configure(save_total_limit=limit, **settings))
    found = run.checkpoints()
    assert [(each.step, each.is_best, each.is_final) for each in found] == [(best.step, True, True), (40, False, False)]
    assert line.line() == tuple(json.loads(best.files[WEIGHTS].read()))
    assert artifacts(backend) == used_artifacts(db)


def test_artifacts_that_others_share_stay_when_checkpoints_are_pruned(backend, db):
    create_points(backend)
    same = {"max_steps": 8, "save_steps": 2, "learning_rate": 0.0}
    line = Line("line")
    run = fit(backend, db, line, configuration=configure(save_total_limit=1, **same))
    assert [each.step for each in run.checkpoints()] == [8]
    other = Line("other")
    fit(backend, db, other, configuration=configure(**same))
    assert len(artifacts(backend)) == 1
    db.remove("model", "other")
    assert db.load("model", "line").line() == (0.0, 0.0)
    assert artifacts(backend) == used_artifacts(db)


def test_what_training_goes_on_from_is_kept_until_it_is_done(backend, db):
    create_points(backend)
    seen = []
    AT_STEP.update({step: lambda job: seen.append(kept(db).get(("training_state", "line/0"))) for step in (3, 6, 11)})
    fit(backend, db, configuration=configure(save_total_limit=1))
    assert seen == [None, [4], [8]]
    assert kept(db) == {**DONE, ("checkpoint", "line/0"): [12]}
    assert artifacts(backend) == used_artifacts(db)


def test_a_fit_that_keeps_nothing_in_the_database_leaves_a_run_alone(backend, db):
    create_points(backend)
    run = fit(backend, db, configuration=configure(log_to_db=False))
    assert (run.status, run.series(), run.checkpoints()) == ("done", [], [])
    with pytest.raises(NotFound, match="log_to_db=False"):
        run.data()
    assert kept(db) == {pair: versions for pair, versions in DONE.items() if pair[0] != "checkpoint"}
    assert artifacts(backend) == set()


# -- how runs end ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [(ValueError("no"), "failed", "ValueError: no"), (KeyboardInterrupt(), "interrupted", "keyboard"),
     (SystemExit(3), "interrupted", "asked to end")],
)  # fmt: skip
def test_a_run_that_did_not_end_well_says_why_and_keeps_its_checkpoints(
    backend, db, cache_dir, raised, status, told, below
):
    create_points(backend)

    def stop(job):
        raise raised

    AT_STEP[9] = stop
    line = Line("line")
    with pytest.raises(type(raised)):
        fit(backend, db, line)
    run = db.load("run", "line")
    assert (run.status, told in run.error, run.step, run.is_alive) == (status, True, 8, False)
    assert steps(run) == [2, 4, 6, 8]
    assert (line.version, line.weights) == (None, None)
    assert kept(db) == {
        ("checkpoint", "line/0"): [4, 8], ("training_state", "line/0"): [8], ("run", "line"): [0],
        ("training_configuration", "training"): [0],
    }  # fmt: skip
    assert below.runs.leased() == {}
    assert work_folders(cache_dir) == []


def test_a_run_is_alive_while_it_is_trained(backend, db):
    create_points(backend)
    seen = []
    AT_STEP[6] = lambda job: seen.append(db.load("run", "line"))
    AT_STEP[7] = lambda job: seen.append(seen[0].is_alive)
    fit(backend, db)
    assert (seen[0].status, seen[0].step, seen[1], seen[0].is_alive) == ("running", 4, True, False)


# -- removal -----------------------------------------------------------------------------------------


def everything_of(run, backend):
    """Whether anything in the database names a run's own records."""
    return f"'{checkpoints_of(run)}'" in str(snapshot(backend)) or f'"{checkpoints_of(run)}"' in str(snapshot(backend))


def test_a_run_is_removed_with_its_checkpoints_its_states_and_its_metrics(backend, db):
    create_points(backend)
    AT_STEP[9] = lambda job: 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(backend, db)
    run = db.load("run", "line")
    assert everything_of(run, backend)
    db.remove("run", "line")
    assert kept(db) == {("training_configuration", "training"): [0]}
    assert artifacts(backend) == set()
    assert not everything_of(run, backend)
    db.remove("training_configuration", "training")
    assert kept(db) == {}


def test_one_run_of_several_is_removed_alone(backend, db):
    create_points(backend)
    AT_STEP[9] = lambda job: 1 / 0
    for seed in (1, 2):
        with pytest.raises(ZeroDivisionError):
            fit(backend, db, configuration=configure(seed=seed))
    second = db.load("run", "line")
    db.remove("run", "line", 0)
    assert kept(db) == {
        ("checkpoint", "line/1"): [4, 8], ("training_state", "line/1"): [8], ("run", "line"): [1],
        ("training_configuration", "training"): [0, 1],
    }  # fmt: skip
    assert steps(second) == [2, 4, 6, 8]
    assert artifacts(backend) == used_artifacts(db)


def test_a_run_that_a_model_came_of_is_not_removed(backend, db):
    create_points(backend)
    fit(backend, db)
    before = snapshot(backend)
    for kind, name in (("run", "line"), ("training_configuration", "training")):
        with pytest.raises(Conflict, match="is part of"):
            db.remove(kind, name)
    with pytest.raises(NotFound):
        db.remove("run", "lime")
    assert snapshot(backend) == before


def test_a_model_is_removed_with_its_runs(backend, db):
    create_points(backend)
    line = Line("line")
    for _ in range(2):
        fit(backend, db, line)
    db.remove("model", "line", 0)
    assert kept(db)["run", "line"] == [0, 1]
    db.remove("model", "line")
    assert kept(db) == {("training_configuration", "training"): [0]}
    assert artifacts(backend) == set()
    assert fit(backend, db).version == 0


def test_a_run_that_another_model_came_of_stays_when_its_model_is_removed(backend, db):
    create_points(backend)
    line = Line("line")
    fit(backend, db, line)
    db.add(Line("copy", weights=line.weights, fitted_by=line.fitted_by))
    db.remove("model", "line")
    assert db.load("model", "copy").fitted_by.checkpoints()[-1].step == 12


def test_nothing_is_removed_while_it_is_trained(backend, db):
    create_points(backend)
    line = Line("line")
    fit(backend, db, line)
    refused = []

    def remove(job):
        before = kept(db)
        for kind, version in (("run", None), ("run", 1), ("model", None)):
            with pytest.raises(Conflict) as raised:
                db.remove(kind, "line", version)
            refused.append(str(raised.value))
        assert kept(db) == before

    AT_STEP[9] = remove
    fit(backend, db, line)
    assert ["being trained" in message for message in refused] == [False, True, True]


@pytest.mark.unmigrated
def test_remove_all_takes_everything_of_training_away(backend, db):
    create_points(backend)
    before = snapshot(backend)
    for _ in range(2):
        AT_STEP[9] = lambda job: 1 / 0
        with pytest.raises(ZeroDivisionError):
            fit(backend, db)
        AT_STEP.clear()
        fit(backend, db, configuration=configure(seed=5))
        planned = " ".join(db.removal_plan())
        made = {name if isinstance(name, str) else name[1] for name in set(snapshot(backend)) - set(before)}
        assert {"pinnacle_component", "pinnacle_artifact_chunk", "pinnacle_metric"} <= made
        assert [name for name in made if name not in planned] == []
        db.remove_all()
        assert snapshot(backend) == before
