"""Fits that cannot go on: the error says what to do, the run how it ended, and the checkpoints stay."""

from __future__ import annotations

import re
import resource
import sys
import warnings
from contextlib import contextmanager

import pytest
import torch
from pinnacle_transformers.trainers import WatchedSFT

from pinnacle import BackendError, TrainingError, pinnacle
from pinnacle.backends.mongodb import Collection
from pinnacle.base.document import Document
from pinnacle.runtime.recorder import RunRecorder
from plugins.transformers.tests.fits import TRAIN_ROWS, fitted, stored, weights

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own
EVERY = {"save_strategy": "steps", "save_steps": 2}


@pytest.fixture
def rows(tmp_path):
    db, select = stored(tmp_path / "rows.db", TRAIN_ROWS)
    with db:
        yield db, select


def failing_at(step, monkeypatch, fail):
    """In the place of a step, ``fail(loss)``."""
    method = WatchedSFT.compute_loss

    def computed(trainer, *args, **kwargs):
        loss = method(trainer, *args, **kwargs)
        return fail(loss) if trainer.state.global_step == step - 1 else loss

    monkeypatch.setattr(WatchedSFT, "compute_loss", computed)


def raising(error):
    def fail(loss):
        raise error

    return fail


def test_a_loss_that_is_no_number_ends_the_fit_and_keeps_finite_checkpoints(rows, base, monkeypatch):
    db, select = rows
    failing_at(5, monkeypatch, lambda loss: loss * float("nan"))
    with pytest.raises(TrainingError, match=r"the loss is no finite number at step 5: .*Lower learning_rate="):
        fitted(db, select, base, "nan", max_steps=8, **EVERY)
    run = db.load("run", "nan")
    assert (run.status, run.step) == ("failed", 4)
    assert "step 5" in run.error
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 4]
    for checkpoint in run.checkpoints():
        assert all(torch.isfinite(value).all() for value in weights(checkpoint.files).values())
    monkeypatch.undo()
    _, run = fitted(db, select, base, "nan", max_steps=8, **EVERY)
    assert (run.status, run.resumed, run.version) == ("done", 1, 0)


def test_a_learning_rate_that_is_far_too_high_is_told(rows, base):
    db, select = rows
    with pytest.raises(TrainingError, match=r"no finite number at step \d+"):
        fitted(db, select, base, "wild", max_steps=20, learning_rate=1e30, max_grad_norm=0.0, **EVERY)
    assert db.load("run", "wild").status == "failed"


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried")])
def test_a_full_memory_is_told_with_what_to_lower(rows, base, monkeypatch, error):
    db, select = rows
    failing_at(3, monkeypatch, raising(error))
    with pytest.raises(TrainingError, match="lower per_device_train_batch_size=16") as told:
        fitted(db, select, base, "memory", max_steps=4, **EVERY)
    assert told.value.__cause__ is error
    run = db.load("run", "memory")
    assert (run.status, [checkpoint.step for checkpoint in run.checkpoints()]) == ("failed", [2])


@contextmanager
def no_file_over(size):
    """Files of this process cannot grow beyond a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [1_000, 60_000, 150_000], ids=["rows", "weights", "optimizer"])
def test_a_full_disk_is_told(base, tmp_path, size):
    with pinnacle(f"mongomock://full{size}") as db:  # in memory, where the end of the run can be stored
        db.execute(Collection("pairs").insert_many([Document(row) for row in TRAIN_ROWS]))
        with no_file_over(size), pytest.raises(TrainingError, match=r"is full .*make room"):
            fitted(
                db, Collection("pairs").find(), base, "full", max_steps=4, output_dir=str(tmp_path / "out"), **EVERY
            )  # fmt: skip
        if size > 1_000:
            assert db.load("run", "full").status == "failed"
        llm, run = fitted(
            db, Collection("pairs").find(), base, "full", max_steps=4, output_dir=str(tmp_path / "out"), **EVERY
        )  # fmt: skip
        assert (run.status, llm.version) == ("done", 0)


def test_a_database_that_is_full_is_told(rows, base, monkeypatch):
    db, select = rows
    method = RunRecorder.save

    def save(recording, saved):
        if saved.step == 4:
            raise BackendError("the database refused: database or disk is full")
        method(recording, saved)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "save", save)
        with pytest.raises(TrainingError, match=r"the disk of the database is full .* make room"):
            fitted(db, select, base, "full", max_steps=6, **EVERY)
    run = db.load("run", "full")
    assert (run.status, [checkpoint.step for checkpoint in run.checkpoints()]) == ("failed", [2])
    assert fitted(db, select, base, "full", max_steps=6, **EVERY)[1].resumed == 1


def test_half_precision_on_a_cpu_is_turned_off_with_one_warning(rows, base):
    db, select = rows
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        fitted(db, select, base, "half", max_steps=1, fp16=True)
    told = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    assert len(told) == 1
    assert "fp16=True is turned off: it trains on the CPU" in told[0]


@pytest.mark.parametrize("progress", [None, False])
def test_a_terminal_shows_step_loss_and_time_left(rows, base, monkeypatch, capsys, progress):
    db, select = rows
    monkeypatch.setattr(sys.stderr, "isatty", lambda: progress is None)
    fitted(db, select, base, "shown", max_steps=3, logging_steps=1, progress=progress)
    shown = capsys.readouterr().err
    assert bool(re.search(r"shown: step 3/3, loss \d+\.\d{4}, 0:00 left", shown)) is (progress is not False)
    assert shown.endswith("\n") is (progress is not False)
