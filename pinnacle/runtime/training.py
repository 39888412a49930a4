"""What a fit hands to a model's `train`: rows, where to go on from, and where logs and checkpoints go."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import ConfigError, TrainingError, UnknownField
from pinnacle.base.rows import Fields, Key
from pinnacle.components.configuration import TrainingConfiguration

FOLD = "_fold"
TRAIN, VALID = "train", "valid"
PAGE_ROWS = 1_000

Metric = Callable[[list[str], list[str]], Any]


class RowStream:
    """The rows of one set, read page by page in the order of their keys each time it is iterated.

    A row is a dict by the names of X: its arguments where X is a dict, else its fields, or other ``names``. Or it is
    what ``transform`` made of that, None where it leaves the row out. With ``fold``, only rows of that fold; ``folds``
    counts what was seen of each. ``count`` and ``fingerprint`` are of the last whole pass, and so is ``unread``: rows
    that are left out because they cannot be read. Of a query with a limit, a pass has the rows that are first when it
    begins.
    """

    def __init__(
        self, backend: Backend, select: Any, fields: Fields, *, transform: Callable[[Any], Any] | None = None,
        fold: str | None = None, names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self._backend, self._transform, self.fold = backend, transform, fold
        self.names = names or fields.arguments or fields.paths
        self._source = backend.resolve(select, fields if fold is None else _with_fold(fields), checked=True)
        self.folds: Counter[Any] = Counter()
        self.count, self.unread, self.fingerprint = 0, 0, ""

    def __iter__(self) -> Iterator[Any]:
        return (row for _, row in self.keyed())

    def keyed(self) -> Iterator[tuple[Key, Any]]:
        """The rows with their keys, for messages."""
        digest = hashlib.sha256()
        self.folds, self.count, self.unread = Counter(), 0, 0
        for key, values in self._values():
            if self.fold is not None:
                self.folds[values[-1] if isinstance(values[-1], str) else None] += 1
                if values[-1] != self.fold:
                    continue
            row = self._row(key, dict(zip(self.names, values, strict=False)))
            if (told := _told(row)) is None:
                self.unread += 1
                continue
            self.count += 1
            digest.update(told + b"\n")
            yield key, row
        self.fingerprint = digest.hexdigest()

    def _row(self, key: Key, row: dict[str, Any]) -> Any:
        if self._transform is None:
            return row
        try:
            return self._transform(row)
        except Exception as error:  # the unit of work: the user's function, on one row
            raise TrainingError(
                f"transform= failed on the row of key {key!r}: {type(error).__name__}: {error}"
            ) from error

    def _values(self) -> Iterator[tuple[Key, tuple[Any, ...]]]:
        target = self._backend.scan(self._source)
        after = None
        while True:
            page = target.read(after, PAGE_ROWS, overwrite=True)
            self.unread += len(page.unreadable)
            single = len(self._source.fields.paths) == 1
            for key, value in zip(page.keys, page.inputs, strict=True):
                yield key, (value,) if single else tuple(value)
            if page.last is None:
                return
            after = page.last


def _told(row: Any) -> bytes | None:
    """A row as it goes into the fingerprint; None for one that has no such form: it is nested too deep."""
    try:
        return json.dumps(row, default=_plain, sort_keys=True).encode("utf-8", "surrogatepass")
    except (RecursionError, TypeError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """What JSON lacks, as text that is equal for equal values; of an array all of it."""
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def has_fold(backend: Backend, select: Any, fields: Fields) -> bool:
    """Whether the rows of a query say by a field ``_fold`` what they are for."""
    try:
        backend.resolve(select, _with_fold(fields), checked=True)
    except UnknownField as error:
        if error.field == FOLD:
            return False
        raise
    return True


def _with_fold(fields: Fields) -> Fields:
    if FOLD in fields.paths:
        raise ConfigError(f"{FOLD} says which rows are for training and is no input; leave it out of X")
    return Fields((*fields.paths, FOLD), None)


@dataclass(frozen=True)
class DataFacts:
    """What a model found in its sets, counted: trainable ``rows`` of each, why others are ``left_out``, and how many
    were ``cut`` to the longest that it takes."""

    rows: Mapping[str, int]
    left_out: Mapping[str, int]
    cut: Mapping[str, int]
    seeds: Mapping[str, int]
    packages: Mapping[str, str]
    device: str


@dataclass(frozen=True)
class Start:
    """Where training of a ``run`` begins: ``folder`` has the files of a checkpoint and its state, None: at step 0.

    ``is_resumed``: an earlier call of the same fit was interrupted, which may have left checkpoints on the disk.
    """

    run: str
    folder: Path | None = None
    is_resumed: bool = False


class Recorder(Protocol):
    """Where a training job tells what it does; see `TrainingJob`."""

    def begin(self, facts: DataFacts) -> Start: ...

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None: ...

    def progress(self, step: int, max_steps: int, epoch: float) -> None: ...

    def save(self, saved: SavedWeights) -> None: ...

    def finish(self, step: int, *, best: int | None) -> None: ...


@dataclass(frozen=True)
class SavedWeights:
    """Weights in files, by their names in Hugging Face form; ``state``: what training needs to go on from them."""

    step: int
    epoch: float
    form: str
    files: Mapping[str, Path]
    state: Mapping[str, Path] = field(default_factory=dict)
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    is_best: bool = False


@dataclass(frozen=True)
class TrainingJob:
    """One fit, as a model's `train` gets it.

    ``sets``: "train", and the validation sets by their names. ``work_dir``: a folder of its own, gone afterwards.
    ``is_main``: of several processes that train together the one that tells the database. The model reads its sets,
    then calls ``record.begin``, while it trains ``log``, ``progress`` and ``save``, and at the end ``finish``.
    """

    configuration: TrainingConfiguration
    fields: Fields
    sets: Mapping[str, RowStream]
    metrics: Mapping[str, Metric]
    work_dir: Path
    record: Recorder
    is_main: bool = True


def exact_match(predictions: list[str], targets: list[str]) -> float:
    """The share of predictions that are their target, but for white space around them."""
    hits = sum(given.strip() == wanted.strip() for given, wanted in zip(predictions, targets, strict=True))
    return hits / len(targets) if targets else 0.0


METRICS: Mapping[str, Metric] = {"exact_match": exact_match}


def named_metrics(metrics: Any) -> dict[str, Metric]:
    """Metrics, or one, by their names; ConfigError for what is neither a function nor the name of one of `METRICS`."""
    found: dict[str, Metric] = {}
    given = [metrics] if callable(metrics) or isinstance(metrics, str) else metrics or ()
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"metrics= is a list of functions or of names, not {metrics!r}")
    for metric in given:
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
        function = METRICS.get(metric) if isinstance(metric, str) else metric
        if not callable(function):
            raise ConfigError(f"metrics= holds functions or names of {', '.join(map(repr, METRICS))}, not {metric!r}")
        if name in found:
            raise ConfigError(f"two metrics are called {name!r}; give each function a name of its own")
        found[name] = function
    return found
