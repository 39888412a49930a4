"""Runs: what a fit did, with its lineage, its metrics and its checkpoints."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, ClassVar, Protocol

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import ConfigError, MissingPlugin, NotFound
from pinnacle.components.artifact import Artifact
from pinnacle.components.component import Component, operational
from pinnacle.components.configuration import TrainingConfiguration

RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"


@dataclasses.dataclass
class Checkpoint(Component):
    """The weights that a model had after a step of training; its version is the step.

    ``files``: in Hugging Face form, safetensors and JSON, without anything pickled. ``form``: what they are, "adapter"
    or "full". ``loss``: the last one logged; ``metrics``: of the validation sets, ``eval_<set>_<metric>``, as last
    computed. ``is_final``: the one that the run ended with.
    """

    kind: ClassVar[str] = "checkpoint"

    _: dataclasses.KW_ONLY
    step: int = 0
    epoch: float = 0.0
    loss: float | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    form: str = "adapter"
    files: dict[str, Artifact] = dataclasses.field(default_factory=dict, repr=False)
    logged: int = dataclasses.field(default=0, repr=False)
    is_final: bool = operational(False)
    is_best: bool = operational(False)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclasses.dataclass
class TrainingState(Component):
    """What training needs beside a checkpoint's weights to go on from it: optimizer, schedule, random numbers."""

    kind: ClassVar[str] = "training_state"

    _: dataclasses.KW_ONLY
    files: dict[str, Artifact] = dataclasses.field(default_factory=dict, repr=False)


class RunReader(Protocol):
    """How a run gets at what is kept beside it."""

    def checkpoints(self, run: Run) -> list[Checkpoint]: ...

    def series(self, run: Run) -> list[dict[str, Any]]: ...

    def is_alive(self, run: Run) -> bool: ...


@dataclasses.dataclass
class Run(Component):
    """One `fit`: ``db.load("run", model)`` is a model's last one; versions count its fits from 0.

    Lineage: the ``base`` it began from, ``X`` and ``query`` of each set, its ``rows`` and their ``fingerprint`` (a hash
    of all that was read), ``left_out`` (why rows were not trained on, counted), ``cut`` (rows longer than max_length),
    ``configuration``, ``packages``, ``seeds``, ``device``. State: ``status`` is "running", "done", "failed" or
    "interrupted" (its process is gone; the same fit goes on), ``seconds`` of training, ``step`` of ``max_steps``,
    ``metrics`` as last logged, ``resumed`` how often it went on after a crash.
    """

    kind: ClassVar[str] = "run"

    _: dataclasses.KW_ONLY
    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    X: Any = None
    query: dict[str, Any] = dataclasses.field(default_factory=dict)
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    cut: dict[str, int] = dataclasses.field(default_factory=dict)
    fingerprint: dict[str, str] = dataclasses.field(default_factory=dict)
    configuration: TrainingConfiguration | None = None
    packages: dict[str, str] = dataclasses.field(default_factory=dict)
    seeds: dict[str, int] = dataclasses.field(default_factory=dict)
    device: str = ""
    started_at: datetime | None = None
    call: str = dataclasses.field(default="", repr=False)
    status: str = operational(RUNNING)
    error: str | None = operational(None)
    seconds: float = operational(0.0)
    step: int = operational(0)
    max_steps: int = operational(0)
    epoch: float = operational(0.0)
    metrics: dict[str, float] = operational(dataclasses.MISSING, default_factory=dict)
    resumed: int = operational(0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reader: RunReader | None = None

    def checkpoints(self) -> list[Checkpoint]:
        """Those in the database, oldest first."""
        return self._reader().checkpoints(self)

    def series(self) -> list[dict[str, Any]]:
        """What was logged, in order: ``step``, ``epoch`` and values an entry.

        With ``log_to_db=False`` what is on the disk of this machine: up to the last checkpoint while it runs.
        """
        found = self._reader().series(self)
        if found or self.configuration is None or self.configuration.log_to_db:
            return found
        return self.configuration.series_on_disk(checkpoints_of(self))

    @property
    def is_alive(self) -> bool:
        """Whether a process is at work on it now."""
        return self.status == RUNNING and self._reader().is_alive(self)

    @property
    def ended(self) -> str:
        """The status; "interrupted" also where the process that it ran in is gone and could not say so."""
        return INTERRUPTED if self.status == RUNNING and not self.is_alive else self.status

    def __str__(self) -> str:
        loss = f", loss {self.metrics['loss']:.4f}" if "loss" in self.metrics else ""
        rows = f"{sum(self.rows.values()):,} rows"
        where = f"step {self.step}/{self.max_steps}{loss}, {self.seconds:,.1f} s"
        return f"run {self.version} of {self.identifier!r}: {self.status}, {rows}, {where}"

    def data(self) -> Any:
        """The metrics as a pandas DataFrame: a row a step, a column a metric, NaN where it was not logged."""
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingPlugin("pandas", with_extra("plot"), purpose="run.data()") from error
        merged: dict[int, dict[str, Any]] = {}
        for entry in self._logged():
            merged.setdefault(entry["step"], {}).update(entry)
        return pd.DataFrame([merged[step] for step in sorted(merged)])

    def plot(self, path: str | None = None) -> Any:
        """The losses over steps as a matplotlib Figure, training and each validation set; saved where ``path`` says."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingPlugin("matplotlib", with_extra("plot"), purpose="run.plot()") from error
        lines = losses(self._logged())
        if not lines:
            raise NotFound(f"run {self.version} of {self.identifier!r} has logged no loss yet; see logging_steps=")
        figure: Any = Figure(figsize=(8, 4.5))
        axes = figure.subplots()
        for name, points in lines.items():
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=name, marker="o" if len(points) < 20 else None)
        axes.set(xlabel="step", ylabel="loss", title=f"{self.identifier}, run {self.version}")
        axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure

    def _logged(self) -> list[dict[str, Any]]:
        found = self.series()
        if not found and self.configuration is not None and not self.configuration.log_to_db:
            raise NotFound(
                f"run {self.version} of {self.identifier!r} had log_to_db=False: its metrics are in its output_dir, on "
                "the machine that trained, until another fit writes there"
            )
        return found

    def _reader(self) -> RunReader:
        if self.reader is None:
            raise ConfigError(f"run of {self.identifier!r} is of no database here; load it with db.load('run', ...)")
        return self.reader


def losses(series: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(step, loss) pairs by name: ``loss`` of training, ``eval_<set>_loss`` of each validation set."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for entry in series:
        for name, value in entry.items():
            if name == "loss" or (name.startswith("eval_") and name.endswith("_loss")):
                lines.setdefault(name, []).append((int(entry["step"]), float(value)))
    return lines


def checkpoints_of(run: Run) -> str:
    """The name under which a run's checkpoints and metrics are kept."""
    return f"{run.identifier}/{run.version}"
