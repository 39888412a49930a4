"""Fits: a model trained on the rows of a query, under a lease, with a run that survives a crash."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import ConfigError, Conflict, UnsupportedQuery
from pinnacle.base.rows import Fields
from pinnacle.base.settings import Settings
from pinnacle.catalog.bodies import digest_of
from pinnacle.catalog.catalog import Catalog
from pinnacle.catalog.history import History
from pinnacle.components.component import check_identifier
from pinnacle.components.configuration import TrainingConfiguration
from pinnacle.components.dataset import Dataset
from pinnacle.components.model import Model
from pinnacle.components.run import Run
from pinnacle.components.source import FunctionSource, describe
from pinnacle.runtime.recording import Follower, Recording
from pinnacle.runtime.training import TRAIN, VALID, RowStream, TrainingJob, has_fold

MAX_RUNS = 10**9


@dataclass(frozen=True)
class FitJob:
    """One fit as it was asked for: a model, the fields ``X`` of the rows of ``select``, and how."""

    model: Model
    X: Any
    select: Any
    configuration: TrainingConfiguration
    validation_sets: Sequence[Dataset] = ()
    transform: Callable[[Any], Any] | None = None
    metrics: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


class Fitting:
    """Trains models on one database."""

    def __init__(self, backend: Backend, catalog: Catalog, history: History, settings: Settings) -> None:
        self._backend, self._catalog, self._history, self._settings = backend, catalog, history, settings

    def fit(self, job: FitJob, *, progress: bool | None = None) -> Run:
        """Train, or go on from where the same fit was interrupted; the model takes over what it learned.

        Checks everything that can be checked before the lease is taken and anything is written.
        """
        self._check(job)
        job.model.check_training(job.configuration)
        fields = Fields.of(job.X)
        sets = self._sets(job, fields)
        if int(os.environ.get("RANK", "0")) > 0:
            return self._follow(job, fields, sets)
        with self._leased(job.model.identifier) as check, self._work_dir() as work_dir:
            configuration = self._catalog.add(job.configuration)
            base = self._base(job.model)
            call = self._call(job, base, configuration, fields)
            recording = Recording(
                self._history, self._lineage(job, configuration, base, fields, call), sets, work_dir, check,
                progress=progress,
            )  # fmt: skip
            with recording.watched():
                job.model.train(TrainingJob(configuration, fields, sets, job.metrics, work_dir, recording))
                self._register(job.model, recording)
            return recording.run

    # -- parts -------------------------------------------------------------------------------------

    def _check(self, job: FitJob) -> None:
        if not isinstance(job.model, Model):
            raise ConfigError(f"fit takes a model, not {type(job.model).__name__}")
        if not isinstance(job.configuration, TrainingConfiguration):
            raise ConfigError(
                f"fit needs configuration=, such as LLMTrainingConfiguration(...), not {job.configuration!r}"
            )
        if job.X is None or job.select is None:
            raise ConfigError("fit needs X= (the field or fields to train on) and select= (the rows)")
        check_identifier(f"{job.model.identifier}/{MAX_RUNS}")
        for dataset in job.validation_sets:
            if not isinstance(dataset, Dataset):
                raise ConfigError(f"validation_sets= holds Dataset(name, select=...), not {dataset!r}")
        names = [dataset.identifier for dataset in job.validation_sets]
        if repeated := next((name for name in names if name == TRAIN or names.count(name) > 1), None):
            raise ConfigError(f"two sets are called {repeated!r}; give each validation set a name of its own")

    def _sets(self, job: FitJob, fields: Fields) -> dict[str, RowStream]:
        """The training rows and the validation sets, by name."""

        def stream(select: Any, fields: Fields, fold: str | None = None) -> RowStream:
            return RowStream(self._backend, select, fields, transform=job.transform, fold=fold)

        is_folded = has_fold(self._backend, job.select, fields)
        sets = {TRAIN: stream(job.select, fields, TRAIN if is_folded else None)}
        for dataset in job.validation_sets:
            own = _fields_of(dataset, fields)
            if len(own.paths) != len(fields.paths):
                raise ConfigError(
                    f"dataset {dataset.identifier!r} has X={dataset.X!r}, and the fit reads {job.X!r}: name as many"
                )
            sets[dataset.identifier] = stream(dataset.select, own)
        if is_folded and VALID not in sets:
            sets[VALID] = stream(job.select, fields, VALID)
        return sets

    def _base(self, model: Model) -> dict[str, Any]:
        """What the model is before the fit, as plain values."""
        return self._catalog.plain(model)

    def _call(self, job: FitJob, base: Any, configuration: TrainingConfiguration, fields: Fields) -> str:
        """A digest that is equal for the same fit, asked for again."""
        validation = [
            [dataset.identifier, (own := _fields_of(dataset, fields)).to_json(), self._query(dataset.select, own)]
            for dataset in job.validation_sets
        ]
        asked = [
            base, fields.to_json(), self._query(job.select, fields), [configuration.identifier, configuration.version],
            validation, None if job.transform is None else FunctionSource(job.transform).digest,
            {name: FunctionSource(metric).digest for name, metric in job.metrics.items()},
        ]  # fmt: skip
        return digest_of(describe(asked))

    def _query(self, select: Any, fields: Fields) -> Any:
        """A query as plain values; its text where it cannot be stored."""
        if isinstance(select, Mapping):
            return dict(select)
        try:
            return self._backend.freeze(self._backend.resolve(select, fields))
        except UnsupportedQuery:
            return {"text": str(select)}

    def _lineage(
        self, job: FitJob, configuration: TrainingConfiguration, base: dict[str, Any], fields: Fields, call: str
    ) -> Run:
        others = {each.identifier: (each.select, _fields_of(each, fields)) for each in job.validation_sets}
        queries = {TRAIN: (job.select, fields), **others}
        return Run(
            job.model.identifier, base=base, X=fields.to_json(), configuration=configuration, call=call,
            query={name: self._query(*query) for name, query in queries.items()},
        )  # fmt: skip

    def _register(self, model: Model, recording: Recording) -> None:
        """Give the model what the run ended with, and store it as a new version."""
        run = recording.run
        model.learn(model.learned_from(run, recording.chosen()))
        model.version = None
        self._catalog.add(model)

    def _follow(self, job: FitJob, fields: Fields, sets: Mapping[str, RowStream]) -> Run:
        """One of several processes that train together, of which the first tells the database."""
        known = self._history.newest(job.model.identifier)
        with self._work_dir() as work_dir:
            job.model.train(
                TrainingJob(job.configuration, fields, sets, job.metrics, work_dir, Follower(), is_main=False)
            )
        run = self._history.wait_for_newer(job.model.identifier, known)
        final = next((each for each in self._history.checkpoints(run) if each.is_final), None)
        job.model.learn(job.model.learned_from(run, final))
        job.model.version = self._catalog.load(Model.kind, job.model.identifier).version
        return run

    @contextmanager
    def _leased(self, model: str) -> Iterator[Callable[[], None]]:
        """The right to train a model, renewed until the end; yields a check that it was not lost."""
        runs, token, ttl_s = self._backend.runs, uuid.uuid4().hex, self._settings.lease_ttl_s
        if (owner := runs.lease(model, token, ttl_s)) is not None:
            raise Conflict(
                f"model {model!r} is being trained by process {owner}; wait for it, or stop it: its lease ends with it"
            )
        stop, lost = threading.Event(), threading.Event()

        def renew() -> None:
            while not stop.wait(ttl_s / 3):
                if runs.lease(model, token, ttl_s) is not None:
                    lost.set()
                    return

        def check() -> None:
            if lost.is_set():
                raise Conflict(f"the right to train model {model!r} was taken over by another process; this one stops")

        thread = threading.Thread(target=renew, name="pinnacle-training-lease", daemon=True)
        thread.start()
        try:
            yield check
        finally:
            stop.set()
            thread.join()
            runs.release(model, token)

    @contextmanager
    def _work_dir(self) -> Iterator[Path]:
        """A folder for this fit; those of processes that are gone are swept away."""
        root = self._settings.cache_dir / "training"
        root.mkdir(parents=True, exist_ok=True)
        for left in root.iterdir():
            pid, _, host = left.name.partition("@")
            if host.startswith(f"{socket.gethostname()}-") and pid.isdigit() and not _runs(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}@{socket.gethostname()}-", dir=root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _fields_of(dataset: Dataset, fields: Fields) -> Fields:
    """A dataset's own fields, else those of the fit."""
    return fields if dataset.X is None else Fields.of(dataset.X)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
