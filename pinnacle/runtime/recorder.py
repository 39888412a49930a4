"""Writes down what a training does: its run, its metrics, its checkpoints; finds where it goes on after a crash."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pinnacle.base.errors import ConfigError, PinnacleError, TrainingError
from pinnacle.base.redaction import redacted
from pinnacle.base.told import logger
from pinnacle.catalog.history import History
from pinnacle.components.artifact import Artifact, write_files
from pinnacle.components.run import DONE, FAILED, INTERRUPTED, Checkpoint, Run, checkpoints_of
from pinnacle.runtime.progress import ProgressLine
from pinnacle.runtime.training import TRAIN, DataFacts, RowStream, SavedWeights, Start

FLUSH_S, PROGRESS_S = 1.0, 5.0

log = logger(__name__)


class RunRecorder:
    """The `Recorder` of the process that tells the database.

    ``check`` raises where the right to train was lost: nothing more is written then.
    """

    def __init__(
        self, history: History, run: Run, sets: Mapping[str, RowStream], work_dir: Path, check: Callable[[], None], *,
        progress: bool | None,
    ) -> None:  # fmt: skip
        self.run, self._history, self._sets, self._work_dir, self.check = run, history, sets, work_dir, check
        self._limit: int | None = run.configuration.checkpoints_kept if run.configuration else None
        self._is_stored = run.configuration is None or run.configuration.log_to_db
        self._pending: list[dict[str, Any]] = []
        self._logged, self._flushed_at, self._since = 0, 0.0, time.monotonic()
        self._seconds_before = 0.0
        self._final: int | None = None
        self._line = ProgressLine(run.identifier, sys.stderr.isatty() if progress is None else progress)

    # -- what a training calls ---------------------------------------------------------------------

    def begin(self, facts: DataFacts) -> Start:
        """Start a run, or go on with the last one where it was the same fit of the same rows and did not end well."""
        left_out = {**facts.left_out, **self._unread()}
        if not facts.rows.get(TRAIN):
            others = {f"of fold {fold!r}": n for fold, n in self._sets[TRAIN].folds.items() if fold != TRAIN}
            found = {**left_out, **others}
            reasons = ", ".join(f"{count} {reason}" for reason, count in found.items() if count)
            hint = "; rows whose _fold is 'train' are trained on" if "fold" in reasons else ""
            raise TrainingError(f"no row of the query can be trained on ({reasons or 'it has none'}){hint}")
        self.run = dataclasses.replace(
            self.run, rows=dict(facts.rows), left_out=left_out, cut=dict(facts.cut),
            seeds=dict(facts.seeds), packages=dict(facts.packages), device=facts.device, started_at=datetime.now(UTC),
            fingerprint={name: rows.fingerprint for name, rows in self._sets.items()},
        )  # fmt: skip
        if left_out or any(facts.cut.values()):
            log.warning("fit of model %r: %s", self.run.identifier, _remarks(left_out, facts.cut))
        self.check()
        before = self._history.newest(self.run.identifier)
        self._since = time.monotonic()
        if before is None or not self._is_same(before):
            self.run = self._history.start(self.run)
            return Start(checkpoints_of(self.run))
        return self._resume(before)

    def _unread(self) -> dict[str, int]:
        """How many rows of the sets cannot be read; those that are of folds are all in the first."""
        count = sum(rows.unread for name, rows in self._sets.items() if name == TRAIN or rows.fold is None)
        return {"that cannot be read": count} if count else {}

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Add an entry to the run's metrics; written within a second or so, and with every checkpoint."""
        plain = {name: float(value) for name, value in values.items()}
        self._pending.append({"step": step, "epoch": epoch, **plain})
        self.run.metrics.update(plain)
        self.run.step, self.run.epoch = step, epoch
        self._line.note(values.get("loss"))
        if time.monotonic() - self._flushed_at > FLUSH_S:
            self._flush()

    def progress(self, step: int, max_steps: int, epoch: float) -> None:
        """A step was made: the line on the terminal moves, and every few seconds the run in the database."""
        self.run.step, self.run.max_steps, self.run.epoch = step, max_steps, epoch
        self._line.move(step, max_steps)
        if time.monotonic() - self._flushed_at > PROGRESS_S:
            self._flush()

    def save(self, saved: SavedWeights) -> None:
        """Store a checkpoint; when this returns, a crash loses nothing before it."""
        self._flush()
        if not self._is_stored:
            return
        self._history.save(
            self.run,
            Checkpoint(
                self.run.identifier, step=saved.step, epoch=saved.epoch, form=saved.form, loss=saved.loss,
                metrics=dict(saved.metrics), files=_artifacts(saved.files), logged=self._logged, is_best=saved.is_best,
            ),
            _artifacts(saved.state),
            self._limit,
        )  # fmt: skip

    def finish(self, step: int, *, best: int | None) -> None:
        """Training is over: ``step`` has the weights that the model gets, ``best`` the best ones, if any."""
        self._final = step
        self.check()
        if self._is_stored:
            self._history.mark(self.run, best=best, final=step)

    # -- around it ---------------------------------------------------------------------------------

    def chosen(self) -> Checkpoint | None:
        """The checkpoint that the model gets; None where checkpoints stay on the disk."""
        if not self._is_stored:
            return None
        found = [checkpoint for checkpoint in self._history.checkpoints(self.run) if checkpoint.step == self._final]
        if not found:
            raise TrainingError(f"training of model {self.run.identifier!r} ended without a checkpoint")
        return found[0]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around the training and the new version: the run ends as done, failed or interrupted."""
        try:
            yield
        except KeyboardInterrupt:
            self._end(INTERRUPTED, "interrupted by the keyboard")
            raise
        except SystemExit:
            self._end(INTERRUPTED, "the process was asked to end")
            raise
        except BaseException as error:  # the unit of work: one training, whose end is recorded; raised again
            self._end(FAILED, redacted(f"{type(error).__name__}: {error}"))
            raise
        self._end(DONE, None)

    def _end(self, status: str, error: str | None) -> None:
        self._line.close()
        if self.run.version is None:
            return
        self.run.status, self.run.error = status, error
        self.run.seconds = self._seconds_before + time.monotonic() - self._since
        try:
            self._flush()
            self._history.end(self.run)
        except PinnacleError as failure:
            if status == DONE:
                raise
            log.warning("how the run of model %r ended could not be stored: %s", self.run.identifier, failure)

    def _is_same(self, before: Run) -> bool:
        is_same = (before.call, before.fingerprint) == (self.run.call, self.run.fingerprint)
        return before.status != DONE and is_same

    def _resume(self, before: Run) -> Start:
        states = self._history.states(before)
        found = self._history.checkpoints(before)
        checkpoint = next((each for each in reversed(found) if each.step in states), None)
        name = checkpoints_of(before)
        model, ended = before.identifier, "failed" if before.status == FAILED else "was interrupted"
        self.run = before
        self._seconds_before = before.seconds
        self._logged = 0 if checkpoint is None else checkpoint.logged
        self._history.resume(before, checkpoint)
        if not self._is_stored:
            log.warning("the fit of model %r that %s is taken up again, from what it left on the disk", model, ended)
            return Start(name, is_resumed=True)
        if checkpoint is None:
            log.warning("the fit of model %r that %s left nothing to go on from; it begins again", model, ended)
            return Start(name, is_resumed=True)
        log.warning("the fit of model %r that %s goes on from its checkpoint at step %d", model, ended, checkpoint.step)
        folder = self._work_dir / f"checkpoint-{checkpoint.step}"
        write_files({**checkpoint.files, **states[checkpoint.step].files}, folder)
        for best in found:
            if best.is_best and best.step < checkpoint.step:
                write_files(best.files, self._work_dir / f"checkpoint-{best.step}")
        return Start(name, folder, is_resumed=True)

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        self.check()
        if self._pending and self._is_stored:
            self._history.log(self.run, self._logged, self._pending)
            self._logged += len(self._pending)
        self._pending.clear()
        self.run.seconds = self._seconds_before + time.monotonic() - self._since
        self._history.catalog.amend(self.run)


class Follower:
    """The `Recorder` of a process that trains along and tells nobody."""

    def begin(self, facts: DataFacts) -> Start:
        raise ConfigError("a process that trains along begins where the first one says")

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        return None

    def progress(self, step: int, max_steps: int, epoch: float) -> None:
        return None

    def save(self, saved: SavedWeights) -> None:
        raise ConfigError("a process that trains along stores no checkpoint")

    def finish(self, step: int, *, best: int | None) -> None:
        return None


def _remarks(left_out: Mapping[str, int], cut: Mapping[str, int]) -> str:
    parts = [f"{count} rows left out ({reason})" for reason, count in left_out.items()]
    return ", ".join(parts + [f"{count} of {name} cut to max_length" for name, count in cut.items() if count])


def _artifacts(files: Mapping[str, Path]) -> dict[str, Artifact]:
    return {name: Artifact(path) for name, path in files.items()}
