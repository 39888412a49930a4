"""Validation sets and metrics: their names, what is compared, and how they choose the model's checkpoint."""

from __future__ import annotations

import pytest
from pinnacle_transformers import LLM

from pinnacle import ConfigError, Dataset, TrainingError
from plugins.transformers.tests.fits import (
    HELD,
    TRAIN,
    TRAIN_ROWS,
    distance,
    fitted,
    hits,
    stored,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own
FOLDED = [
    {"prompt": prompt, "completion": answer, "_fold": fold}
    for fold, pairs in (("train", TRAIN), ("valid", HELD), ("other", TRAIN[:2]))
    for prompt, answer in pairs
]
EVERY = {"eval_strategy": "steps", "save_strategy": "steps"}


def lengths(predictions, targets):
    return {"longer": sum(len(given) > len(wanted) for given, wanted in zip(predictions, targets, strict=True)), "n": 2}


def share_of_moss(predictions, targets):
    assert all(target.endswith("moss") for target in targets)
    return sum("moss" in prediction for prediction in predictions) / len(predictions)


@pytest.fixture(scope="module")
def folded(base, tmp_path_factory):
    """A model trained on one fold and evaluated on the other, by loss and by metrics; the best one is kept."""
    db, select = stored(tmp_path_factory.mktemp("folds") / "rows.db", FOLDED)
    with db:
        yield fitted(
            db, select, base, "folded", metrics=["exact_match", share_of_moss, lengths], max_steps=40, eval_steps=10,
            save_steps=10, load_best_model_at_end=True, metric_for_best_model="exact_match", lora_r=16, lora_alpha=32,
            **EVERY,
        )  # fmt: skip


def test_folds_are_training_and_validation_and_others_are_left_out(folded):
    _, run = folded
    assert run.rows == {"train": 45, "valid": 15}
    assert run.left_out == {"of fold 'other'": 2}


def test_metrics_are_named_after_their_set_and_are_in_the_series(folded):
    _, run = folded
    names = {name for entry in run.series() for name in entry if name.startswith("eval_")}
    assert all(name.startswith("eval_valid_") for name in names)
    assert {f"eval_valid_{name}" for name in ("loss", "exact_match", "share_of_moss", "longer", "n")} <= names
    assert run.metrics["eval_valid_n"] == 2.0


def test_exact_match_is_that_of_predict(folded):
    llm, run = folded
    best = next(checkpoint for checkpoint in run.checkpoints() if checkpoint.is_best)
    assert best.metrics["eval_valid_exact_match"] == hits(llm)
    assert hits(llm) > 0.5


def test_the_best_checkpoint_is_the_one_that_the_model_gets(folded):
    llm, run = folded
    scores = {checkpoint.step: checkpoint.metrics["eval_valid_exact_match"] for checkpoint in run.checkpoints()}
    best = max(scores, key=lambda step: (scores[step], -step))
    marked = {checkpoint.step for checkpoint in run.checkpoints() if checkpoint.is_best}
    final = {checkpoint.step for checkpoint in run.checkpoints() if checkpoint.is_final}
    assert list(scores) == [10, 20, 30, 40]
    assert marked == final == {best}
    assert distance(weights(llm), weights(next(c for c in run.checkpoints() if c.step == best).files)) == 0.0


@pytest.mark.parametrize("every", [(2, 2), (2, 4)], ids=["each-saved", "some-saved"])
def test_best_by_loss_stops_early_and_gives_the_model_weights_that_were_saved(base, tmp_path, every):
    evaluated, saved = every
    db, select = stored(tmp_path / "rows.db", FOLDED)
    with db:
        llm, run = fitted(
            db, select, base, "worse", max_steps=40, eval_steps=evaluated, save_steps=saved, learning_rate=0.2,
            lr_scheduler_type="constant", early_stopping_patience=2, metric_for_best_model="loss",
            load_best_model_at_end=True, output_dir=str(tmp_path / "out"), **EVERY,
        )  # fmt: skip
        assert run.step < 40
        losses = {entry["step"]: entry["eval_valid_loss"] for entry in run.series() if "eval_valid_loss" in entry}
        steps = [checkpoint.step for checkpoint in run.checkpoints()]
        final = next(checkpoint for checkpoint in run.checkpoints() if checkpoint.is_final)
        assert distance(weights(llm), weights(final.files)) == 0.0
        if evaluated == saved:
            assert final.is_best
            assert final.step == min(losses, key=losses.get)
        else:
            assert all(step % 4 == 0 or step == run.step for step in steps)


def test_sets_of_their_own_and_a_share_held_out(base, tmp_path):
    db, select = stored(tmp_path / "rows.db", TRAIN_ROWS)
    other, held = stored(tmp_path / "rows.db", [{"q": q, "a": a} for q, a in HELD], name="held")
    with db, other:
        sets = [Dataset("held", select=held, X=("q", "a")), Dataset("again", select=select)]
        _, run = fitted(db, select, base, "sets", validation_sets=sets, max_steps=1)
        assert run.rows == {"train": 45, "held": 15, "again": 45}
        assert {"eval_held_loss", "eval_again_loss"} <= set(run.metrics)
        runs = [
            fitted(db, select, base, name, validation_fraction=0.2, seed=seed, max_steps=1)[1]
            for name, seed in (("a", 1), ("b", 1), ("c", 2))
        ]
        assert all(run.rows == {"train": 36, "valid": 9} for run in runs)
        first, same, another = (run.metrics["eval_valid_loss"] for run in runs)
        assert first == same != another


def test_text_is_scored_by_the_tokens_found_likeliest(base, tmp_path):
    db, select = stored(tmp_path / "rows.db", [{"text": prompt + answer} for prompt, answer in TRAIN])
    seen = []

    def share(predictions, targets):
        seen.extend(zip(predictions, targets, strict=True))
        return 0.5

    with db:
        sets = [Dataset("valid", select=select)]
        fitted(db, select, base, "text", X="text", validation_sets=sets, metrics=[share], max_steps=1)
    assert len(seen) == len(TRAIN)
    assert sorted(target for _, target in seen) == sorted(prompt + answer for prompt, answer in TRAIN)


def test_packed_rows_are_scored_one_by_one(base, tmp_path):
    db, select = stored(tmp_path / "rows.db", FOLDED)
    seen = []

    def share(predictions, targets):
        seen.extend(targets)
        return 0.0

    with db:
        fitted(db, select, base, "packed", metrics=[share], packing=True, max_length=64, max_steps=1)
    assert sorted(target.strip() for target in seen) == sorted(answer.strip() for _, answer in HELD)


def test_what_cannot_be_evaluated_is_refused(base, tmp_path):
    db, select = stored(tmp_path / "rows.db", TRAIN_ROWS)
    with db:
        with pytest.raises(ConfigError, match="needs rows to evaluate on"):
            fitted(db, select, base, "none", eval_strategy="steps", eval_steps=1, max_steps=1)
        with pytest.raises(ConfigError, match="computed on validation sets"):
            fitted(db, select, base, "none", metrics=["exact_match"], max_steps=1)
        with pytest.raises(ConfigError, match=r"metric_for_best_model='eval_valid_accuracy'.* eval_valid_loss"):
            fitted(
                db, select, base, "none", validation_fraction=0.1, max_steps=2, eval_steps=1, save_steps=1,
                load_best_model_at_end=True, metric_for_best_model="accuracy", **EVERY,
            )  # fmt: skip
        assert db.load("run", "none").status == "failed"
    assert LLM("none", model_name_or_path=base).fitted_by is None


def much(predictions, targets):
    return "much"


def broken(predictions, targets):
    return 1 / 0


@pytest.mark.parametrize(
    ("metric", "told"),
    [(much, "metric 'much' returned 'much'"), (broken, "metric 'broken' failed on eval_valid: ZeroDivisionError")],
)
def test_a_metric_that_fails_at_the_end_costs_no_training(base, tmp_path, caplog, metric, told):
    db, select = stored(tmp_path / "rows.db", TRAIN_ROWS)
    with db:
        llm, run = fitted(db, select, base, "kept", metrics=[metric], validation_fraction=0.1, max_steps=1)
        assert (run.status, llm.version, "eval_valid_loss" in run.metrics) == ("done", 0, True)
    assert f"{told}" in caplog.text
    assert "'kept' is kept all the same" in caplog.text


def test_a_metric_that_fails_midway_can_be_mended_and_the_fit_goes_on(base, tmp_path, monkeypatch, caplog):
    db, select = stored(tmp_path / "rows.db", TRAIN_ROWS)
    options = {"validation_fraction": 0.1, "max_steps": 4, "eval_steps": 4, "save_steps": 2, **EVERY}
    with db:
        with pytest.raises(TrainingError, match="metric 'score' failed on eval_valid: ZeroDivisionError"):
            fitted(db, select, base, "mended", metrics=[named(broken)], **options)
        _, run = fitted(db, select, base, "mended", metrics=[named(lambda *answers: 0.5)], **options)
        assert (run.version, run.resumed, run.metrics["eval_valid_score"]) == (0, 1, 0.5)
    assert "goes on from its checkpoint at step 2" in caplog.text


def named(metric):
    def score(predictions, targets):
        return metric(predictions, targets)

    return score


@pytest.mark.parametrize("name", ["mean_token_accuracy", "eval_valid_mean_token_accuracy"])
def test_a_metric_of_the_library_chooses_the_checkpoint(base, tmp_path, name):
    db, select = stored(tmp_path / "rows.db", TRAIN_ROWS)
    with db:
        _, run = fitted(
            db, select, base, "chosen", validation_fraction=0.1, max_steps=4, eval_steps=2, save_steps=2,
            load_best_model_at_end=True, metric_for_best_model=name, **EVERY,
        )  # fmt: skip
    kept = {checkpoint.step: checkpoint for checkpoint in run.checkpoints()}
    best = max(kept, key=lambda step: (kept[step].metrics["eval_valid_mean_token_accuracy"], -step))
    assert kept[best].is_best
