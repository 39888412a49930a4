"""Fits: a model trained on the rows of a query, under a lease, with a run that survives a crash."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import ConfigError
from pinnacle.base.failpoints import failpoint
from pinnacle.base.processes import is_gone, this_process
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
from pinnacle.runtime.leases import leased
from pinnacle.runtime.queries import told_query
from pinnacle.runtime.recorder import Follower, RunRecorder
from pinnacle.runtime.training import TRAIN, VALID, RowStream, TrainingJob, has_fold

MAX_RUNS = 10**9


@dataclass(frozen=True)
class FitRequest:
    """One fit as it was asked for: a model, the fields ``X`` of the rows of ``select``, and how."""

    model: Model
    X: Any
    select: Any
    configuration: TrainingConfiguration
    validation_sets: Sequence[Dataset] = ()
    transform: Callable[[Any], Any] | None = None
    metrics: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


class Fitter:
    """Trains models on one database."""

    def __init__(self, backend: Backend, catalog: Catalog, history: History, settings: Settings) -> None:
        self._backend, self._catalog, self._history, self._settings = backend, catalog, history, settings

    def fit(self, request: FitRequest, *, progress: bool | None = None) -> Run:
        """Train, or go on from where the same fit was interrupted; the model takes over what it learned.

        Checks everything that can be checked before the lease is taken and anything is written.
        """
        self._check(request)
        request.model.check_training(request.configuration)
        for component in (request.model, request.configuration):
            self._catalog.check_class(component)
        fields = Fields.of(request.X)
        sets = self._sets(request, fields)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
            return self._follow(request, fields, sets)
        right = leased(self._backend.runs, request.model.identifier, self._settings.lease_ttl_s)
        with right as lease, self._work_dir() as work_dir:
            run = self._lineage(request, fields)
            recorder = RunRecorder(self._history, run, sets, work_dir, lease.check, progress=progress)
            with recorder.watched():
                request.model.train(
                    TrainingJob(request.configuration, fields, sets, request.metrics, work_dir, recorder)
                )
                self._register(request.model, recorder)
            return recorder.run

    # -- parts -------------------------------------------------------------------------------------

    def _check(self, request: FitRequest) -> None:
        if not isinstance(request.model, Model):
            raise ConfigError(f"fit takes a model, not {type(request.model).__name__}")
        if not isinstance(request.configuration, TrainingConfiguration):
            raise ConfigError(
                f"fit needs configuration=, such as LLMTrainingConfiguration(...), not {request.configuration!r}"
            )
        if request.X is None or request.select is None:
            raise ConfigError("fit needs X= (the field or fields to train on) and select= (the rows)")
        check_identifier(f"{request.model.identifier}/{MAX_RUNS}")
        for dataset in request.validation_sets:
            if not isinstance(dataset, Dataset):
                raise ConfigError(f"validation_sets= holds Dataset(name, select=...), not {dataset!r}")
        if request.transform is not None and not callable(request.transform):
            raise ConfigError(f"transform= is a function of a row, not {request.transform!r}")
        names = [dataset.identifier for dataset in request.validation_sets]
        if repeated := next((name for name in names if name == TRAIN or names.count(name) > 1), None):
            raise ConfigError(f"two sets are called {repeated!r}; give each validation set a name of its own")

    def _sets(self, request: FitRequest, fields: Fields) -> dict[str, RowStream]:
        """The training rows and the validation sets, by name."""

        def stream(select: Any, fields: Fields, **options: Any) -> RowStream:
            return RowStream(self._backend, select, fields, transform=request.transform, **options)

        is_folded = has_fold(self._backend, request.select, fields)
        sets = {TRAIN: stream(request.select, fields, fold=TRAIN if is_folded else None)}
        for dataset in request.validation_sets:
            own = _fields_of(dataset, fields)
            if len(own.paths) != len(fields.paths):
                raise ConfigError(
                    f"dataset {dataset.identifier!r} has X={dataset.X!r}, and the fit reads {request.X!r}: name as many"
                )
            names = own.arguments or own.paths
            if dataset.X is None and isinstance(dataset.select, Mapping):  # stored by the database's own names
                own = self._backend.resolve(request.select, fields).fields
            sets[dataset.identifier] = stream(dataset.select, own, names=names)
        if is_folded and VALID not in sets:
            sets[VALID] = stream(request.select, fields, fold=VALID)
        return sets

    def _lineage(self, request: FitRequest, fields: Fields) -> Run:
        """The run of a fit before it began: what is asked for, and a digest that is equal when it is asked again."""
        others = {each.identifier: (each.select, _fields_of(each, fields)) for each in request.validation_sets}
        queries = {TRAIN: (request.select, fields), **others}
        query = {name: told_query(self._backend, *asked) for name, asked in queries.items()}
        base = self._catalog.plain(request.model)
        asked = [
            base, query, [[name, fields.to_json()] for name, (_, fields) in queries.items()],
            self._catalog.plain(request.configuration),
            None if request.transform is None else FunctionSource(request.transform).digest,
            sorted(request.metrics),  # a metric that is mended is no other fit
        ]  # fmt: skip
        return Run(
            request.model.identifier, base=base, X=fields.to_json(), configuration=request.configuration, query=query,
            call=digest_of(describe(asked)),
        )  # fmt: skip

    def _register(self, model: Model, recorder: RunRecorder) -> None:
        """Give the model what the run ended with, and store it as a new version."""
        learned = model.learned_from(recorder.run, recorder.chosen())
        recorder.check()
        failpoint("before-register")
        model.learn(learned)
        model.version = None
        self._catalog.add(model)
        failpoint("after-register")

    def _follow(self, request: FitRequest, fields: Fields, sets: Mapping[str, RowStream]) -> Run:
        """One of several processes that train together, of which the first tells the database."""
        known = self._history.newest(request.model.identifier)
        with self._work_dir() as work_dir:
            request.model.train(
                TrainingJob(request.configuration, fields, sets, request.metrics, work_dir, Follower(), is_main=False)
            )
        run = self._history.wait_for_newer(request.model.identifier, known)
        final = next((each for each in self._history.checkpoints(run) if each.is_final), None)
        request.model.learn(request.model.learned_from(run, final))
        request.model.version = self._catalog.load(Model.kind, request.model.identifier).version
        return run

    @contextmanager
    def _work_dir(self) -> Iterator[Path]:
        """A folder for this fit; those of processes that are gone are swept away."""
        root = self._settings.cache_dir / "training"
        root.mkdir(parents=True, exist_ok=True)
        machine, _, pid = this_process().rpartition(":")
        here = hashlib.sha256(machine.encode()).hexdigest()[:16]
        for left in root.iterdir():
            its_machine, _, its_pid = left.name.partition("-")
            if its_machine == here and is_gone(f"{machine}:{its_pid.partition('-')[0]}"):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{here}-{pid}-", dir=root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _fields_of(dataset: Dataset, fields: Fields) -> Fields:
    """A dataset's own fields, else those of the fit."""
    return fields if dataset.X is None else Fields.of(dataset.X)
