"""Database: the handle that `pinnacle()` returns, one short method a verb."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, TypeVar

from pinnacle.backends.open import open_backend
from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import ConfigError, NotFound
from pinnacle.base.limits import NEWEST_ERRORS
from pinnacle.base.listeners import Freshness, ListenerStatus, WorkerStatus
from pinnacle.base.rows import Fields, OutputInfo, RowError
from pinnacle.base.settings import Settings
from pinnacle.base.usage import UsageRow
from pinnacle.catalog.catalog import Catalog, ModelInfo
from pinnacle.catalog.history import FitStatus, History
from pinnacle.catalog.trust import Doubt, Trust
from pinnacle.components.component import Component
from pinnacle.components.configuration import TrainingConfiguration
from pinnacle.components.dataset import Dataset
from pinnacle.components.listener import Listener
from pinnacle.components.model import Model
from pinnacle.components.run import Run
from pinnacle.components.side import Side
from pinnacle.runtime.estimate import Estimate
from pinnacle.runtime.fitter import FitRequest, Fitter
from pinnacle.runtime.listeners import Listeners
from pinnacle.runtime.local_worker import LocalWorker
from pinnacle.runtime.options import PredictOptions
from pinnacle.runtime.plan import Plan
from pinnacle.runtime.predictor import Predictor, PredictRequest
from pinnacle.runtime.queries import stored_dataset
from pinnacle.runtime.removal import Removal
from pinnacle.runtime.result import PredictResult
from pinnacle.runtime.training import named_metrics
from pinnacle.runtime.worker import Worker

C = TypeVar("C", bound=Component)
M = TypeVar("M", bound=Model)


def pinnacle(target: Any = None, *, settings: Settings | None = None) -> Database:
    """Open a database: a URL, a SQLAlchemy Engine or a pymongo Database.

    Without one, what ``PINNACLE_URL`` says, else ``sqlite:///pinnacle.db`` in the working directory. Nothing is written
    before the first `add` or `predict`. Settings come from the environment unless given.
    """
    settings = settings or Settings.from_environment()
    return Database(open_backend(settings.url if target is None else target, settings), settings)


class Database:
    """A database with models attached. Usable from several threads; a context manager."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self._backend, self._settings = backend, settings
        self._catalog = Catalog(backend.catalog, settings)
        self._listeners = Listeners(backend, self._catalog, settings)
        self._predictor = Predictor(backend, self._catalog, settings, self._listeners)
        self._history = History(self._catalog, backend.runs)
        self._fitter = Fitter(backend, self._catalog, self._history, settings)

    # -- components -----------------------------------------------------------------------------

    def add(self, component: C, *, allow_pickle: bool = False) -> C:
        """Store a component and return it with its ``version`` set.

        The same content again is a no-op; changed content is the next version. Commits
        before it returns. ComponentError when a part of it cannot be stored.

        A `Listener` begins to capture changes at once and returns; whichever worker runs
        (`listen`, or ``pinnacle worker``) fills its output and keeps it fresh. Conflict when
        its output would, through other listeners, change what it reads. A newer version of a
        model is what listeners with ``follow="latest"`` move to.
        """
        if isinstance(component, Listener):
            return self._listeners.add(component, allow_pickle=allow_pickle)  # type: ignore[return-value]
        return self._store(component, self._catalog.add, allow_pickle)

    def replace(self, component: C, *, allow_pickle: bool = False) -> C:
        """Store a component as the newest version of an existing identifier, even as another class."""
        return self._store(component, self._catalog.replace, allow_pickle)

    def _store(self, component: C, store: Callable[..., Component], allow_pickle: bool) -> C:
        """Store a component; a dataset's query as plain values."""
        stored = stored_dataset(self._backend, component) if isinstance(component, Dataset) else component
        component.version = store(stored, allow_pickle=allow_pickle).version
        return component

    def load(self, kind: str, identifier: str, version: int | None = None, *, allow_pickle: bool = False) -> Any:
        """A new object of a stored component: the newest version, or the one asked for.

        NotFound names what is near. Runs no code from the database: see the guide, "Security".
        """
        return self._catalog.load(kind, identifier, version, allow_pickle=allow_pickle)

    def show(self, kind: str | None = None, identifier: str | None = None) -> Any:
        """What is stored: kinds with identifiers; the identifiers of a kind; or one component's versions."""
        return self._catalog.show(kind, identifier)

    def models(self, purpose: str | None = None) -> list[ModelInfo]:
        """The stored models, all or those for one purpose, by identifier: ``id``, ``description``, ``type``.

        Purposes are those of `pinnacle.components.model.PURPOSES`; ConfigError names them for any other.
        """
        return self._catalog.models(purpose)

    def remove(
        self, kind: str, identifier: str, version: int | None = None, *,
        outputs: Literal["refuse", "keep", "drop"] = "refuse",
    ) -> None:  # fmt: skip
        """Remove a component, all versions or one.

        Refused (Conflict) while other components or outputs depend on it. A model's
        outputs go with it only when told: ``"keep"`` forgets their bookkeeping and leaves
        the columns with their values, ``"drop"`` drops the columns that pinnacle made.

        A run takes its checkpoints and metrics along, and a model's last version its runs; Conflict while it is
        being trained.
        """
        if outputs not in ("refuse", "keep", "drop"):
            raise ConfigError(f"outputs= is 'refuse', 'keep' or 'drop', not {outputs!r}")
        removal = Removal(self._backend, self._catalog, self._history, self._listeners)
        removal.remove(kind, identifier, version, outputs=outputs)

    # -- queries ----------------------------------------------------------------------------------

    @property
    def engine(self) -> Any:
        """The SQLAlchemy Engine, or the pymongo Database, that queries run on."""
        return self._backend.engine

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a query of this database's kind: SQLAlchemy's own Result, or Documents."""
        return self._backend.execute(query, *args, **kwargs)

    def output(self, entity: Any, X: Any, model: str | Model) -> Any:  # noqa: N803
        """The column of an output, for use in a ``select()``; the dotted field on MongoDB.

        ``entity``: a mapped class, a Table or a Collection. NotFound lists what there is.
        """
        identifier = model if isinstance(model, str) else model.identifier
        fields = Fields.of(X)
        info = self._backend.outputs.find(entity, fields, identifier)
        if info is None:
            known = ", ".join(
                f"{o.table}.{o.name} (X={o.fields.to_json()!r}, model {o.model!r})" for o in self.outputs()
            )
            raise NotFound(
                f"model {identifier!r} has no output for X={fields.to_json()!r} there; "
                f"outputs are {known or 'none yet'}"
            )
        return self._backend.outputs.column(entity, info)

    def outputs(self) -> list[OutputInfo]:
        """All outputs, oldest first."""
        return self._backend.outputs.all()

    # -- predicting -------------------------------------------------------------------------------

    def predict(
        self, model: Model | str, X: Any, select: Any = None, *, output: Any = None, limit: int | None = None,  # noqa: N803
        batch_size: int | None = None, overwrite: bool = False, on_error: Literal["isolate", "raise"] = "isolate",
        progress: bool | None = None, dry_run: bool = False, listen: bool = False, budget: float | None = None,
        mode: Literal["live", "batch"] = "live", adopt: bool = False,
        context_select: Any = None, context_key: str | None = None, example_keys: tuple[str, str] | None = None,
        **parameters: Any,
    ) -> Any:  # fmt: skip
        """Compute a model's output for every row of a query and write it beside the row.

        ``X``: a field, a dotted path, a tuple of fields (positional arguments) or a dict
        (argument -> field; ``input`` is the first). ``output``: the column's name, by default
        ``{X}__{identifier}``; created if absent, adopted if it has the right type. Values there that pinnacle did
        not write are never overwritten unasked: ConfigError counts them, ``adopt=True`` gives them up. Or
        ``Side("chunks")``: a table or collection of its own, one row an item of what the model returns. Or, for
        a model with an ``output_schema``, a dict of field to column beside the default one.
        Rows whose stored output is current are not computed again unless ``overwrite``:
        inputs, output, model version and the keywords for the model are as they were.
        ``limit``: only the first rows of the query, in key order. ``on_error="raise"`` stops
        at the first row that fails, and raises for rows set aside earlier; by default it is set aside and listed by
        `errors`.
        Other keywords go to the model. Each batch is committed as it is done: after an
        abort of any kind the same call goes on where it stopped. ``listen``: afterwards a
        `Listener` for the same is added, for a worker to keep the output fresh.
        ``budget``: US dollars; the prediction stops before a call that would pass it, and says so in its result.
        ``mode="batch"``: rows go to the provider as batches of its own, cheaper and later; the call returns at once
        with them ``pending``, and the same call collects what is done, in any process, and submits the rest.
        Raises ProviderUnavailable when a hosted model does not answer for `Settings.outage_patience_s`, ConnectionLost
        when the database does not.

        ``context_select``: a query whose rows fill ``{context}`` of a prompt, from ``context_key`` or its
        first column; ``examples`` may be a query too, of (input, answer) pairs or with ``example_keys``. With
        ``context_select`` and without ``select``, ``X`` is the input itself and its output is returned.
        """
        _check_mode(mode, is_live=listen or dry_run or budget is not None)
        options = _options(limit, batch_size, overwrite, on_error, dry_run, budget)
        parameters = self._predictor.with_queries(parameters, context_select, context_key, example_keys)
        model = self._predictor.asked(model)
        if select is None and context_select is not None:
            return self._predictor.answer(model, X, parameters)
        request = PredictRequest(model, X, select, output, parameters, adopt)
        options = replace(options, parameters=parameters)
        if mode == "batch":
            return self._predictor.predict_in_batches(request, options, progress)
        return self._predictor.predict(request, options, progress=progress, listen=listen)

    def estimate(
        self, model: Model | str, X: Any, select: Any, *, output: Any = None, limit: int | None = None,  # noqa: N803
        overwrite: bool = False, **parameters: Any,
    ) -> Estimate:  # fmt: skip
        """What a `predict` would read, send and cost, before its first call; changes nothing."""
        options = replace(_options(limit, None, overwrite, "isolate", True, None), parameters=parameters)
        ready = self._predictor.ready(model, store=False)
        return self._predictor.estimate(PredictRequest(ready, X, select, output, parameters), options)

    def plan(
        self,
        component: Component | str,
        X: Any = None,  # noqa: N803
        select: Any = None,
        *,
        output: str | Side | None = None,
    ) -> Plan:
        """Every statement that `add` or, with ``X`` and ``select``, `predict` would run before its first row.

        With ``X`` and ``select`` also the rows that it would compute, what of the model has changed, and the values
        that it would overwrite: see `Plan`. These are counted by reading all rows. Changes nothing. Of a model that is
        given by its name, the newest version as it is stored: its class is not loaded.
        """
        if isinstance(component, Listener):
            return Plan(tuple(self._listeners.plan(component)))
        if X is None and select is None:
            return Plan(tuple(self._backend.migration_plan()))
        by_name = self._predictor.outlined(component) if isinstance(component, str) else None
        model = by_name or self._predictor.ready(component, store=False)
        return self._predictor.plan(PredictRequest(model, X, select, output))

    def errors(
        self, model: str | Model | None = None, *, output: str | None = None, limit: int = NEWEST_ERRORS
    ) -> list[RowError]:
        """Rows set aside with their errors, newest first; of one model, or of one output, as ``table.column``."""
        if model is None and output is None:
            return self._backend.errors.newest(None, limit)
        infos = self.outputs() if model is None else self._outputs_of(model)
        chosen = [info for info in infos if output in (None, f"{info.table}.{info.name}")]
        found = [error for info in chosen for error in self._backend.errors.newest(info.id, limit)]
        return sorted(found, key=lambda error: error.failed_at, reverse=True)[:limit]

    def count_errors(self) -> dict[str, int]:
        """How many rows are set aside, by output, as ``table.column``; outputs without any are left out."""
        counts = self._backend.errors.counts()
        return {f"{info.table}.{info.name}": counts[info.id] for info in self.outputs() if info.id in counts}

    def retry_errors(self, model: str | Model | None = None, *, progress: bool | None = None) -> list[PredictResult]:
        """Compute set-aside rows again, of one model or of all; one result an output that had any.

        Rows that fail again are set aside again. A model that cannot be loaded here raises its
        ComponentError after all others were computed. An output that a listener keeps fresh is
        computed as it says; keyword arguments that an earlier `predict` passed on to the
        model are not repeated.
        """
        infos = self.outputs() if model is None else self._outputs_of(model)
        return self._predictor.retry_errors(infos, model, progress)

    # -- training ---------------------------------------------------------------------------------

    def fit(
        self, model: Model, X: Any = None, *, select: Any = None, configuration: TrainingConfiguration | None = None,  # noqa: N803
        validation_sets: Sequence[Dataset] = (), transform: Callable[[Any], Any] | None = None,
        metrics: Sequence[Callable[..., Any] | str] = (), progress: bool | None = None, on_ray: bool = False,
        ray_address: str | None = None, ray_configs: Mapping[str, Any] | None = None,
    ) -> Run:  # fmt: skip
        """Train a model on the rows of a query; what it learned is a new version of it, which it is from then on.

        ``X``: for a language model a field of text or of chat messages, ``("prompt", "completion")``, for DPO
        ``("prompt", "chosen", "rejected")``, or a dict of these names to fields. ``transform``: a function of a row (a
        dict by those names or fields) to such a dict, or to text; None leaves the row out. Where rows have a field
        ``_fold``, those with "train" are trained on and those with "valid" are a validation set; others are left out.
        ``select`` may sort and limit, which tells which rows are meant; they are read in the order of their keys.
        ``validation_sets``: `Dataset` components; metrics are called ``eval_<set>_<metric>``. ``metrics``: functions of
        (predictions, targets), two lists of texts, to a number; or "exact_match".

        Each checkpoint commits. After a crash the same call on the same rows goes on from the last one. The run that is
        returned, also ``db.load("run", identifier)``, holds lineage, metrics and checkpoints. Raises Conflict while
        another process trains the model, TrainingError when training cannot go on: its checkpoints are kept.
        """
        if on_ray or ray_address or ray_configs:
            raise ConfigError(
                "on_ray=, ray_address= and ray_configs= ask for training on a Ray cluster, which this version of "
                "pinnacle cannot do; leave them out to train in this process"
            )
        sets = (validation_sets,) if isinstance(validation_sets, Dataset) else tuple(validation_sets)
        request = FitRequest(model, X, select, configuration, sets, transform, named_metrics(metrics))  # type: ignore[arg-type]
        return self._fitter.fit(request, progress=progress)

    def fits(self) -> list[FitStatus]:
        """How the last fit of each model stands; loads none of their classes. ``db.load("run", model)`` tells more."""
        return self._history.fits()

    # -- listening --------------------------------------------------------------------------------

    def listen(self) -> LocalWorker:
        """Run a worker in a thread of this process, until `stop` or `close`; what is returned tells how it fares.

        Called again it returns the one that runs. On SQLite it stands by while another works.
        """
        return self._listeners.listen()

    def stop(self) -> None:
        """Stop this process's worker, if it runs. What is in hand is finished; `listen` starts another."""
        self._listeners.stop()

    def drain(self, timeout_s: float = 30.0) -> None:
        """Wait until nothing is pending for any listener that is not paused.

        Needs a worker, here or elsewhere. NotDrained names what still waits when the time is over.
        """
        self._listeners.drain(timeout_s)

    def fresh(self, listener: Listener | str) -> Freshness:
        """How many rows of a listener are fresh, stale, missing and failed; reads all of them."""
        return self._listeners.fresh(listener)

    def sweep(self, listener: Listener | str) -> None:
        """Have a worker compare all rows of a listener with what is recorded of them, page by page."""
        self._listeners.sweep(listener)

    def pause(self, listener: Listener | str, reason: str = "paused by hand") -> None:
        """Stop working on a listener; changes are still captured."""
        self._listeners.pause(listener, reason)

    def resume(self, listener: Listener | str) -> None:
        """Work on a paused listener again, with a sweep of all its rows."""
        self._listeners.resume(listener)

    def listeners(self) -> list[ListenerStatus]:
        """How every listener stands: pending, in flight, failed, lag, errors, whether it is paused, its model."""
        return self._listeners.status()

    def workers(self) -> list[WorkerStatus]:
        """The workers that live, wherever they run: ``host``, ``pid``, ``since`` (seconds since 1970)."""
        return self._backend.listeners.workers()

    def worker(self) -> Worker:
        """A worker for this database, to be run by the caller; `listen` runs one in a thread."""
        return self._listeners.worker()

    # -- housekeeping -------------------------------------------------------------------------------

    def usage(self, model: str | Model | None = None) -> list[UsageRow]:
        """What model calls cost so far, of one model or of all: a row a day, model and output, newest day first.

        Tokens are exact; costs, in US dollars, are summed as double. Rows stay when their
        model or output is removed.
        """
        return self._backend.ledger.usage(model.identifier if isinstance(model, Model) else model)

    def clear_cache(self) -> None:
        """Erase the answers of hosted models that are kept so that none is paid for twice."""
        self._backend.ledger.clear_cache()

    def migration_plan(self) -> list[str]:
        """Statements that `migrate` would run."""
        return self._backend.migration_plan()

    def migrate(self) -> None:
        """Bring pinnacle's own tables to this version."""
        self._backend.migrate()

    def doubts(self) -> list[Doubt]:
        """Stored definitions that are not signed with this process's secret; ConfigError without one, or where
        pinnacle's tables are not of this version."""
        found = Trust(self._backend.seals).doubts()
        if self._backend.migration_plan():
            raise ConfigError(
                "pinnacle's tables are of another version, without signatures: run pinnacle migrate first"
            )
        return found

    def trust(self, doubts: Iterable[Doubt]) -> None:
        """Sign definitions as `doubts` has shown them; Conflict for one that was changed since."""
        Trust(self._backend.seals).sign(doubts)

    def removal_plan(self, *, outputs: bool = False) -> list[str]:
        """Statements that `remove_all` would run."""
        return self._backend.removal_plan(outputs=outputs)

    def remove_all(self, *, outputs: bool = False) -> None:
        """Take everything of pinnacle's out of the database and leave the user's data.

        Output columns are the user's data and stay, unless ``outputs``.
        """
        self._backend.remove_all(outputs=outputs)
        self._listeners.forget_added()

    def close(self) -> None:
        """Stop this process's worker, and close what pinnacle opened; a database passed in stays open."""
        self._listeners.stop()
        self._backend.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Database({self._backend.name})"

    def _outputs_of(self, model: str | Model) -> list[OutputInfo]:
        return self._backend.outputs.of(model if isinstance(model, str) else model.identifier)


def _check_mode(mode: Any, *, is_live: bool) -> None:
    """ConfigError for what is no mode, and for a batch with an option of live predictions."""
    if mode not in ("live", "batch"):
        raise ConfigError(f"mode= is 'live' or 'batch', not {mode!r}")
    if mode == "batch" and is_live:
        raise ConfigError(
            'listen=, dry_run= and budget= do not go with mode="batch": add a Listener, ask estimate(), and '
            "bound what is submitted by limit="
        )


def _options(
    limit: int | None, batch_size: int | None, overwrite: bool, on_error: Any, dry_run: bool, budget: float | None
) -> PredictOptions:
    if on_error not in ("isolate", "raise"):
        raise ConfigError(f"on_error is 'isolate' or 'raise', not {on_error!r}")
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name} is a whole number from 1, not {value!r}")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, (int, float)) or not budget >= 0):
        raise ConfigError(f"budget is a number of US dollars from 0, not {budget!r}")
    return PredictOptions(limit, batch_size, overwrite, on_error, dry_run, budget=budget)
