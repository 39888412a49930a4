"""A model that learns a line by seeded gradient descent, in plain Python: small, real, and equal on every machine."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pinnacle import Checkpoint, ConfigError, Model, Run
from pinnacle.plugin import Artifact, DataFacts, SavedWeights, TrainingConfiguration, TrainingJob, learned

AT_STEP: dict[int, Callable[[TrainingJob], Any]] = {}
"""What to do when a step was made, before it is logged or saved; a global, which changes no model's content."""

WEIGHTS, STATE = "weights.json", "state.json"
MOMENTUM = 0.5

Sample = tuple[float, float]


@dataclasses.dataclass
class LineConfiguration(TrainingConfiguration):
    """How a `Line` is trained; a checkpoint every ``save_steps``, of which ``save_total_limit`` are kept."""

    _: dataclasses.KW_ONLY
    max_steps: int = 12
    learning_rate: float = 0.1
    batch_size: int = 4
    seed: int = 7
    logging_steps: int = 2
    save_steps: int = 4
    save_total_limit: int | None = None
    keep_best: bool = False

    @property
    def checkpoints_kept(self) -> int | None:
        return self.save_total_limit


@dataclasses.dataclass
class Line(Model):
    """y = slope * x + offset. A row gives the numbers in its fields, of which the last, or "target", is y."""

    _: dataclasses.KW_ONLY
    unit: float = 1.0
    weights: Artifact | None = learned(repr=False)
    fitted_by: Run | None = learned(repr=False)

    def predict_one(self, x: float) -> float:
        slope, offset = self.line()
        return slope * x / self.unit + offset

    def line(self) -> Sample:
        """Slope and offset; nothing learned is a flat line."""
        if self.weights is None:
            return 0.0, 0.0
        slope, offset = json.loads(self.weights.read())
        return slope, offset

    def check_training(self, configuration: TrainingConfiguration) -> None:
        if not isinstance(configuration, LineConfiguration):
            raise ConfigError(f"a line is trained by a LineConfiguration, not {type(configuration).__name__}")

    def train(self, job: TrainingJob) -> None:
        Descent(self, job).run()

    def learned_from(self, run: Run, checkpoint: Checkpoint | None) -> dict[str, Any]:
        return {"weights": None if checkpoint is None else checkpoint.files[WEIGHTS], "fitted_by": run}


@dataclasses.dataclass
class Descent:
    """Gradient descent with momentum over shuffled samples; all that it needs to go on is in its state."""

    model: Line
    job: TrainingJob

    def __post_init__(self) -> None:
        self.configuration: Any = self.job.configuration
        self.samples: dict[str, list[Sample]] = {}
        self.left_out: dict[str, int] = {}
        self.step, self.best = 0, (float("inf"), 0)
        self.line, self.speed, self.order = list(self.model.line()), [0.0, 0.0], list[int]()
        self.random = random.Random(self.configuration.seed)

    def run(self) -> None:
        for name, rows in self.job.sets.items():
            self.samples[name] = list(self._read(name, rows))
        for fold, count in self.job.sets["train"].folds.items():
            if fold not in ("train", "valid"):
                self.left_out[f"of fold {fold!r}"] = count
        counts = {name: len(found) for name, found in self.samples.items() if found or name == "train"}
        seeds = {"seed": self.configuration.seed}
        start = self.job.record.begin(DataFacts(counts, self.left_out, {}, seeds, {"line": "1.0"}, "cpu"))
        if start.folder is not None:
            self._go_on_from(start.folder)
        while self.step < self.configuration.max_steps:
            self._make_step()
        self.job.record.finish(self._final(), best=self.best[1] or None)

    def _read(self, name: str, rows: Iterable[Any]) -> Iterable[Sample]:
        for row in rows:
            sample = None if row is None else sample_of(row, self.model.unit)
            if sample is not None:
                yield sample
                continue
            reason = "left out by transform" if row is None else "not two numbers"
            self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def _make_step(self) -> None:
        samples, configuration = self.samples["train"], self.configuration
        if len(self.order) < configuration.batch_size:
            self.order += self.random.sample(range(len(samples)), len(samples))
        batch = [samples[i] for i in self.order[: configuration.batch_size]]
        del self.order[: configuration.batch_size]
        errors = [(x, self.line[0] * x + self.line[1] - y) for x, y in batch]
        for i, slope in enumerate((sum(error * x for x, error in errors), sum(error for _, error in errors))):
            self.speed[i] = MOMENTUM * self.speed[i] - configuration.learning_rate * slope / len(batch)
            self.line[i] += self.speed[i]
        self.step += 1
        if self.step in AT_STEP:
            AT_STEP[self.step](self.job)
        loss = sum(error**2 for _, error in errors) / len(errors)
        is_last = self.step == configuration.max_steps
        self.job.record.progress(self.step, configuration.max_steps, self._epoch())
        if self.step % configuration.logging_steps == 0 or is_last:
            self.job.record.log(self.step, self._epoch(), {"loss": loss})
        if self.step % configuration.save_steps == 0 or is_last:
            self._save(loss, self._evaluate())

    def _epoch(self) -> float:
        return self.step * self.configuration.batch_size / len(self.samples["train"])

    def _evaluate(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, samples in self.samples.items():
            if name != "train" and samples:
                answers = [(self.line[0] * x + self.line[1], y) for x, y in samples]
                found[f"eval_{name}_loss"] = sum((given - y) ** 2 for given, y in answers) / len(answers)
                for metric, function in self.job.metrics.items():
                    texts = [[f"{value:.0f}" for value in values] for values in zip(*answers, strict=True)]
                    found[f"eval_{name}_{metric}"] = float(function(texts[0], texts[1]))
        if found:
            self.job.record.log(self.step, self._epoch(), found)
        return found

    def _save(self, loss: float, metrics: dict[str, float]) -> None:
        scores = [value for name, value in metrics.items() if name.endswith("_loss")]
        if is_best := bool(scores and scores[0] < self.best[0]):
            self.best = scores[0], self.step
        state = {
            "step": self.step, "speed": self.speed, "order": self.order, "random": self.random.getstate(),
            "best": self.best,
        }  # fmt: skip
        self.job.record.save(
            SavedWeights(
                self.step, self._epoch(), "full", {WEIGHTS: self._written(WEIGHTS, self.line)},
                {STATE: self._written(STATE, state)}, loss, metrics, is_best,
            )
        )  # fmt: skip

    def _written(self, name: str, content: Any) -> Path:
        path = self.job.work_dir / name
        path.write_text(json.dumps(content))
        return path

    def _go_on_from(self, folder: Path) -> None:
        self.line = json.loads((folder / WEIGHTS).read_text())
        state = json.loads((folder / STATE).read_text())
        self.step, self.speed, self.order = state["step"], state["speed"], state["order"]
        version, numbers, rest = state["random"]
        self.random.setstate((version, tuple(numbers), rest))
        self.best = state["best"][0], state["best"][1]

    def _final(self) -> int:
        return self.best[1] if self.configuration.keep_best and self.best[1] else self.step


def sample_of(row: Any, unit: float) -> Sample | None:
    """x and y of a row: a dict of fields, or a text of two numbers; None for anything else."""
    values = list(row.values()) if isinstance(row, dict) else [row]
    if isinstance(row, dict) and "target" in row:
        values = [value for name, value in row.items() if name != "target"] + [row["target"]]
    try:
        x, y = [float(part) for value in values for part in str(value).split()]
    except ValueError:
        return None
    return x / unit, y
