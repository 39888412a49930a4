"""Database: the handle that `pinnacle()` returns, one short method a verb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, TypeVar

from pinnacle.backends.open import open_backend
from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import ComponentError, ConfigError, Conflict, NotFound
from pinnacle.base.listening import Freshness, ListenerStatus
from pinnacle.base.rows import Fields, OutputInfo, OutputSpec, RowError
from pinnacle.base.settings import Settings
from pinnacle.base.types import Items
from pinnacle.catalog.catalog import Catalog
from pinnacle.components.component import Component
from pinnacle.components.listener import Listener
from pinnacle.components.model import Model
from pinnacle.components.side import Side, place_of
from pinnacle.runtime.arguments import canonical, check_arguments
from pinnacle.runtime.engine import Run, RunOptions
from pinnacle.runtime.listening import Listening
from pinnacle.runtime.progress import progress_bar
from pinnacle.runtime.result import PredictResult
from pinnacle.runtime.worker import Worker

C = TypeVar("C", bound=Component)
M = TypeVar("M", bound=Model)


def pinnacle(target: Any = None, *, settings: Settings | None = None) -> Database:
    """Open a database: a URL, a SQLAlchemy Engine or a pymongo Database.

    Without one, ``sqlite:///pinnacle.db`` in the working directory. Nothing is written
    before the first `add` or `predict`. Settings come from the environment unless given.
    """
    settings = settings or Settings.from_environment()
    return Database(open_backend(target, settings), settings)


@dataclass(frozen=True)
class Plan:
    """Statements that a call would run, in order; prints as a script."""

    statements: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(f"{statement};" for statement in self.statements) or "nothing to do"


class Database:
    """A database with models attached. Usable from several threads; a context manager."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self._backend, self._settings = backend, settings
        self._catalog = Catalog(backend.catalog, settings)
        self._listening = Listening(backend, self._catalog, settings)

    # -- components -----------------------------------------------------------------------------

    def add(self, component: C, *, allow_pickle: bool = False) -> C:
        """Store a component and return it with its ``version`` set.

        The same content again is a no-op; changed content is the next version. Commits
        before it returns. ComponentError when a part of it cannot be stored.

        A `Listener` begins to capture changes at once and returns; whichever worker runs
        (`listen`, or ``pinnacle worker``) fills its output and keeps it fresh. Conflict when
        its output would, through other listeners, change what it reads.
        """
        if isinstance(component, Listener):
            return self._listening.add(component, allow_pickle=allow_pickle)  # type: ignore[return-value]
        return self._catalog.add(component, allow_pickle=allow_pickle)

    def replace(self, component: C, *, allow_pickle: bool = False) -> C:
        """Store a component as the newest version of an existing identifier, even as another class."""
        return self._catalog.replace(component, allow_pickle=allow_pickle)

    def load(self, kind: str, identifier: str, version: int | None = None, *, allow_pickle: bool = False) -> Any:
        """A new object of a stored component: the newest version, or the one asked for.

        NotFound names what is near. Runs no code from the database: see the README.
        """
        return self._catalog.load(kind, identifier, version, allow_pickle=allow_pickle)

    def show(self, kind: str | None = None, identifier: str | None = None) -> Any:
        """What is stored: kinds with identifiers; the identifiers of a kind; or one component's versions."""
        return self._catalog.show(kind, identifier)

    def remove(
        self, kind: str, identifier: str, version: int | None = None, *,
        outputs: Literal["refuse", "keep", "drop"] = "refuse",
    ) -> None:  # fmt: skip
        """Remove a component, all versions or one.

        Refused (Conflict) while other components or outputs depend on it. A model's
        outputs go with it only when told: ``"keep"`` forgets their bookkeeping and leaves
        the columns with their values, ``"drop"`` drops the columns that pinnacle made.
        """
        if outputs not in ("refuse", "keep", "drop"):
            raise ConfigError(f"outputs= is 'refuse', 'keep' or 'drop', not {outputs!r}")
        if kind == Listener.kind:
            self._listening.remove(identifier, version)
            return
        made = self._backend.outputs(identifier) if kind == Model.kind else []
        mine = [info for info in made if version in (None, info.version)]
        self._catalog.check_removable(kind, identifier, version)
        if mine and outputs == "refuse":
            named = ", ".join(f"{info.table}.{info.name}" for info in mine)
            raise Conflict(
                f"model {identifier!r} keeps {named}; pass outputs='keep' to leave the values and forget how they were "
                "made, or outputs='drop' to drop them too"
            )
        for info in mine:
            self._backend.forget_output(info.id, drop_column=outputs == "drop")
        self._catalog.remove(kind, identifier, version)

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
        info = self._backend.find_output(entity, fields, identifier)
        if info is None:
            known = ", ".join(
                f"{o.table}.{o.name} (X={o.fields.to_json()!r}, model {o.model!r})" for o in self.outputs()
            )
            raise NotFound(
                f"model {identifier!r} has no output for X={fields.to_json()!r} there; "
                f"outputs are {known or 'none yet'}"
            )
        return self._backend.output_column(entity, info)

    def outputs(self) -> list[OutputInfo]:
        """All outputs, oldest first."""
        return self._backend.outputs()

    # -- predicting -------------------------------------------------------------------------------

    def predict(
        self, model: Model | str, X: Any, select: Any, *, output: str | Side | None = None, limit: int | None = None,  # noqa: N803
        batch_size: int | None = None, overwrite: bool = False, on_error: Literal["isolate", "raise"] = "isolate",
        progress: bool | None = None, dry_run: bool = False, listen: bool = False, **parameters: Any,
    ) -> PredictResult:  # fmt: skip
        """Compute a model's output for every row of a query and write it beside the row.

        ``X``: a field, a dotted path, a tuple of fields (positional arguments) or a dict
        (argument -> field; ``input`` is the first). ``output``: the column's name, by default
        ``{X}__{identifier}``; created if absent, adopted if it has the right type. Or
        ``Side("chunks")``: a table or collection of its own, one row an item of what the model returns.
        Rows whose stored output is current are not computed again unless ``overwrite``:
        inputs, output, model version and the keywords for the model are as they were.
        ``limit``: only the first rows of the query, in key order. ``on_error="raise"`` stops
        at the first row that fails; by default it is set aside and listed by `errors`.
        Other keywords go to the model. Each batch is committed as it is done: after an
        abort of any kind the same call goes on where it stopped. ``listen``: afterwards a
        `Listener` for the same is added, for a worker to keep the output fresh.
        """
        options = _options(limit, batch_size, overwrite, on_error, dry_run, parameters)
        if isinstance(model, str):
            model = self.load(Model.kind, model)
        if isinstance(model, Model) and X is not None:
            check_arguments(model, Fields.of(X), parameters)
        model = self._ready(model, store=not dry_run)
        source, spec = self._spec(model, X, select, output)
        spec = replace(spec, parameters=canonical(parameters))
        target = self._backend.bind(source, spec, create=not dry_run)
        with progress_bar(spec.name or model.identifier, target.count, progress) as move:
            result = Run(model, target, options, lease_ttl_s=self._settings.lease_ttl_s, on_progress=move).execute()
        if not dry_run:
            self._listening.after_predict(target.info.id, spec.parameters)
            if isinstance(spec.type, Items):
                target.forget(target.orphans(None, None, selected=False))
        if listen and not dry_run:
            self.add(Listener(model=model, key=X, select=select, output=output, parameters=dict(parameters)))
        return result

    def plan(
        self,
        component: Component | str,
        X: Any = None,  # noqa: N803
        select: Any = None,
        *,
        output: str | Side | None = None,
    ) -> Plan:
        """Every statement that `add` or, with ``X`` and ``select``, `predict` would run before its first row.

        Changes nothing.
        """
        if isinstance(component, Listener):
            return Plan(tuple(self._listening.plan(component)))
        if X is None and select is None:
            return Plan(tuple(self._backend.migration_plan()))
        model = self._ready(component, store=False)
        source, spec = self._spec(model, X, select, output)
        return Plan(tuple(self._backend.plan(source, spec)))

    def errors(self, model: str | Model | None = None, *, limit: int = 1000) -> list[RowError]:
        """Rows set aside with their errors, newest first."""
        if model is None:
            return self._backend.errors(None, limit)
        return [error for info in self._outputs_of(model) for error in self._backend.errors(info.id, limit)][:limit]

    def retry_errors(self, model: str | Model | None = None, *, progress: bool | None = None) -> list[PredictResult]:
        """Compute set-aside rows again, of one model or of all; one result an output that had any.

        Rows that fail again are set aside again. A model that cannot be loaded here raises its
        ComponentError after all others were run. An output that a listener keeps fresh is
        computed as it says; keyword arguments that an earlier `predict` passed on to the
        model are not repeated.
        """
        results: list[PredictResult] = []
        unloadable: list[ComponentError] = []
        for info in self.outputs() if model is None else self._outputs_of(model):
            if not self._backend.errors(info.id, 1):
                continue
            try:
                ready, target, parameters = self._to_retry(info, model)
            except ComponentError as error:
                unloadable.append(error)
                continue
            keys = self._backend.take_errors(info.id)
            with progress_bar(info.name, keys.__len__, progress) as move:
                run = Run(
                    ready,
                    target,
                    RunOptions(parameters=parameters),
                    lease_ttl_s=self._settings.lease_ttl_s,
                    on_progress=move,
                )
                results.append(run.execute(keys))
        if unloadable:
            raise unloadable[0]
        return results

    def _to_retry(self, info: OutputInfo, model: str | Model | None) -> tuple[Model, Any, Mapping[str, Any]]:
        """What computes an output's failed rows: its listener's model, rows and keywords, where it has one."""
        if (found := self._listening.to_retry(info.id)) is not None:
            listener, target = found
            return self._ready(listener.model, store=False), target, listener.parameters  # type: ignore[arg-type]
        own = model if isinstance(model, Model) else self.load(Model.kind, info.model)
        ready = self._ready(own, store=True)
        source, spec = self._spec(ready, info.fields.to_json(), self._backend.rows_of(info), _place(info))
        return ready, self._backend.bind(source, spec), {}

    # -- listening --------------------------------------------------------------------------------

    def listen(self) -> None:
        """Run a worker in a thread of this process, until `close`. On SQLite it stands by while another works."""
        self._listening.listen()

    def drain(self, timeout_s: float = 30.0) -> None:
        """Wait until nothing is pending for any listener that is not paused.

        Needs a worker, here or elsewhere. NotDrained names what still waits when the time is over.
        """
        self._listening.drain(timeout_s)

    def fresh(self, listener: Listener | str) -> Freshness:
        """How many rows of a listener are fresh, stale, missing and failed; reads all of them."""
        return self._listening.fresh(listener)

    def sweep(self, listener: Listener | str) -> None:
        """Have a worker compare all rows of a listener with what is recorded of them, page by page."""
        self._listening.sweep(listener)

    def pause(self, listener: Listener | str, reason: str = "paused by hand") -> None:
        """Stop working on a listener; changes are still captured."""
        self._listening.pause(listener, reason)

    def resume(self, listener: Listener | str) -> None:
        """Work on a paused listener again, with a sweep of all its rows."""
        self._listening.resume(listener)

    def listeners(self) -> list[ListenerStatus]:
        """How every listener stands: pending, in flight, failed, lag, errors, whether it is paused."""
        return self._listening.status()

    def worker(self) -> Worker:
        """A worker for this database, to be run by the caller; `listen` runs one in a thread."""
        return self._listening.worker()

    # -- housekeeping -------------------------------------------------------------------------------

    def migration_plan(self) -> list[str]:
        """Statements that `migrate` would run."""
        return self._backend.migration_plan()

    def migrate(self) -> None:
        """Bring pinnacle's own tables to this version."""
        self._backend.migrate()

    def removal_plan(self, *, outputs: bool = False) -> list[str]:
        """Statements that `remove_all` would run."""
        return self._backend.removal_plan(outputs=outputs)

    def remove_all(self, *, outputs: bool = False) -> None:
        """Take everything of pinnacle's out of the database and leave the user's data.

        Output columns are the user's data and stay, unless ``outputs``.
        """
        self._backend.remove_all(outputs=outputs)

    def close(self) -> None:
        """Stop this process's worker, and close what pinnacle opened; a database passed in stays open."""
        self._listening.close()
        self._backend.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Database({self._backend.name})"

    # -- parts of predict -----------------------------------------------------------------------------

    def _ready(self, model: Component | str, *, store: bool) -> Model:
        """The model with its version: stored if it is new or changed; a loaded version stays what it is."""
        if isinstance(model, str):
            model = self.load(Model.kind, model)
        if not isinstance(model, Model):
            raise ConfigError(f"predict takes a model or its identifier, not {type(model).__name__}")
        return self.add(model) if store and not self._catalog.holds(model) else model

    def _spec(self, model: Model, X: Any, select: Any, output: Any) -> tuple[Any, OutputSpec]:  # noqa: N803
        if X is None or select is None:
            raise ConfigError("predict over a database needs X= (the field or fields to read) and select= (the rows)")
        chosen, kind = place_of(output, model)
        fields = Fields.of(X)
        source = self._backend.resolve(select, fields)
        name = chosen or self._backend.default_name(fields, model.identifier)
        return source, OutputSpec(name, kind, model.identifier, model.version or 0, source.fields)

    def _outputs_of(self, model: str | Model) -> list[OutputInfo]:
        return self._backend.outputs(model if isinstance(model, str) else model.identifier)


def _place(info: OutputInfo) -> str | Side:
    return Side(info.name, info.type.item) if isinstance(info.type, Items) else info.name


def _options(
    limit: int | None,
    batch_size: int | None,
    overwrite: bool,
    on_error: Any,
    dry_run: bool,
    parameters: Mapping[str, Any],
) -> RunOptions:
    if on_error not in ("isolate", "raise"):
        raise ConfigError(f"on_error is 'isolate' or 'raise', not {on_error!r}")
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name} is a whole number from 1, not {value!r}")
    return RunOptions(limit, batch_size, overwrite, on_error, dry_run, parameters)
