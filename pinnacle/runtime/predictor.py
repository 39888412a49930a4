"""Predicts over a database: what `Database.predict` and its kin hand on to, from arguments to a finished prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from pinnacle.backends.protocol import Backend, Source, Target
from pinnacle.base.errors import ComponentError, ConfigError, Conflict, ModelError
from pinnacle.base.metering import Meter, meter
from pinnacle.base.rows import Fields, OutputInfo, OutputSpec
from pinnacle.base.settings import Settings
from pinnacle.base.told import logger
from pinnacle.base.types import Items
from pinnacle.catalog.catalog import Catalog
from pinnacle.components.component import Component
from pinnacle.components.field_of import FieldOf, column_type
from pinnacle.components.json_schema import properties_of
from pinnacle.components.listener import Listener
from pinnacle.components.model import Model
from pinnacle.components.side import Side, place_of
from pinnacle.components.stored_model import StoredModel
from pinnacle.runtime.arguments import canonical, check_arguments
from pinnacle.runtime.batch_prediction import BatchPrediction
from pinnacle.runtime.books import book, predict_settings
from pinnacle.runtime.context import with_queries
from pinnacle.runtime.database_patience import DatabasePatience
from pinnacle.runtime.estimate import Estimate, estimate
from pinnacle.runtime.listeners import Listeners
from pinnacle.runtime.options import PredictOptions, PredictSettings
from pinnacle.runtime.plan import Plan, counted, foreign_values, refuse_foreign
from pinnacle.runtime.prediction import Prediction
from pinnacle.runtime.progress import progress_bar, tell_failures
from pinnacle.runtime.result import PredictResult

log = logger(__name__)


T = TypeVar("T")


@dataclass(frozen=True)
class PredictRequest:
    """One predict as it was asked for: a model over the fields ``X`` of the rows of ``select``.

    ``adopt``: values at the output's place that pinnacle did not write may be overwritten.
    """

    model: Model
    X: Any
    select: Any
    output: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    adopt: bool = False


class Predictor:
    """Runs models over one database."""

    def __init__(self, backend: Backend, catalog: Catalog, settings: Settings, listeners: Listeners) -> None:
        self._backend, self._catalog, self._settings, self._listeners = backend, catalog, settings, listeners

    # -- on rows -----------------------------------------------------------------------------------

    def predict(
        self, request: PredictRequest, options: PredictOptions, *, progress: bool | None, listen: bool
    ) -> PredictResult:
        """Fill the output; afterwards, with ``listen``, leave a listener behind."""
        if isinstance(request.output, Mapping):
            return self._spread(request, options, progress=progress, listen=listen)
        check_arguments(
            request.model, Fields.of(request.X) if request.X is not None else Fields.of("input"), request.parameters
        )
        if options.budget is not None and getattr(request.model, "price", None) is None:
            raise ConfigError(
                f"budget= needs to know what model {request.model.identifier!r} costs: give it cost=(input, output), "
                "in US dollars a token"
            )
        place_of(request.output, request.model)  # raises what is wrong with it before anything is made
        model, source, spec, target = self._waiting(partial(self._opened, request, is_dry=options.dry_run))
        if model.is_paid and not options.overwrite and not options.dry_run:
            self._waiting(partial(self._refuse_beside_batches, target))
        with progress_bar(spec.name or model.identifier, partial(self._waiting, target.count), progress) as move:
            result = Prediction(model, target, options, self._predict_settings(model, target, move)).execute()
        log.info(
            "predicted %s with model %s version %d: %d rows read, %d written, %d failed in %.2f s", result.output,
            model.identifier, spec.version, result.read, result.written, result.failed, result.seconds,
            extra={"output": target.info.id, "model": model.identifier},
        )  # fmt: skip
        if options.dry_run:
            result.foreign = self._waiting(partial(foreign_values, self._backend, source, spec, request.output))
        else:
            self._tell_failures(result, target.info.id, options, progress)
            self._waiting(partial(self._listeners.after_predict, target.info.id, target.info.parameters))
            if isinstance(spec.type, Items):
                self._waiting(lambda: target.forget(target.orphans(None, None, selected=False)))
        if listen and not options.dry_run:
            self._waiting(partial(self._listen, replace(request, model=model)))
        return result

    def _opened(self, request: PredictRequest, *, is_dry: bool) -> tuple[Model, Source, OutputSpec, Target]:
        """The model, stored, and the output, made, unless the prediction ``is_dry``."""
        model = self.ready(request.model, store=False)
        if not is_dry and not self._catalog.holds(model):
            self._check_place(replace(request, model=model))
            model = self.ready(model, store=True)
        source, spec = self.spec(model, request)
        if not is_dry:
            refuse_foreign(self._backend, source, spec, request.output, adopt=request.adopt)
        return model, source, spec, self._backend.bind(source, spec, create=not is_dry)

    def _tell_failures(self, result: PredictResult, output: int, options: PredictOptions, shown: bool | None) -> None:
        """Show that rows failed; with ``on_error="raise"`` raise for those that were set aside earlier, too."""
        if not result.failed and not result.set_aside:
            return
        newest = next(iter(self._waiting(partial(self._backend.errors.newest, output, 1))), None)
        tell_failures(result, newest, shown)
        if options.on_error == "raise" and result.set_aside and newest is not None:
            rows = "1 row was" if result.set_aside == 1 else f"{result.set_aside:,} rows were"
            raise ModelError(
                f"{rows} set aside on {result.output} earlier, as for key {newest.key!r}: {newest.error}: "
                f"{newest.message}; see db.errors(), db.retry_errors() computes them again",
                keys=[newest.key],
            )

    def _waiting(self, operation: Callable[[], T]) -> T:
        """What a prediction does before its first row and after its last, which waits for the database as between
        them. All of it may be done twice."""
        return DatabasePatience(self._settings.outage_patience_s).run(operation)

    def _refuse_beside_batches(self, target: Target) -> None:
        """Rows in a batch of the provider's would be paid for twice."""
        made_for = (target.info.version, target.info.parameters)
        batches = self._backend.ledger.batches(target.info.id)
        if waiting := [batch for batch in batches if (batch.version, batch.parameters) == made_for]:
            rows = sum(len(batch.items) for batch in waiting)
            raise Conflict(
                f"{rows} rows of {target.info.table}.{target.info.name} are in a batch of the provider's; collect it "
                'with mode="batch" first, or pass overwrite=True to compute all rows now'
            )

    def predict_in_batches(self, request: PredictRequest, options: PredictOptions, shown: bool | None) -> PredictResult:
        """Collect the provider's batches that are done, and submit what is not on its way."""
        check_arguments(request.model, Fields.of(request.X), request.parameters)
        if isinstance(request.output, Mapping):
            raise ConfigError('output= as a dict of fields does not go with mode="batch"; name one column')
        model, _, _, target = self._waiting(partial(self._opened, request, is_dry=False))
        settings = predict_settings(self._backend, self._settings, model, target)
        result = BatchPrediction(self._backend, model, target, options, settings).execute()
        self._tell_failures(result, target.info.id, options, shown)
        return result

    def _spread(
        self, request: PredictRequest, options: PredictOptions, *, progress: bool | None, listen: bool
    ) -> PredictResult:
        """One JSON output, and of it a column for each field that was named; all kept fresh where one is."""
        schema = _answer_schema(request.model)
        if schema is None:
            raise ConfigError(
                "output= is a dict of field to column for models with output_schema=, which "
                f"{request.model.identifier!r} has not; name one column"
            )
        _check_columns(request)
        known = properties_of(schema)
        if unknown := [name for name in request.output if name not in known]:
            raise ConfigError(f"the schema has no field {unknown[0]!r}; it has {', '.join(map(repr, known))}")
        whole = replace(request, output=None)
        if options.dry_run:
            result = self.predict(whole, options, progress=progress, listen=listen)
            result.foreign = self._waiting(partial(self._foreign_columns, whole, request.output, schema))
            return result
        parts = self._waiting(partial(self._parts, whole, request.output, schema))
        result = self.predict(whole, options, progress=progress, listen=listen)
        for part in parts:
            done = self.predict(part, replace(options, parameters={}, budget=None), progress=False, listen=listen)
            result.failed += done.failed
        return result

    def _foreign_columns(self, whole: PredictRequest, columns: Mapping[str, str], schema: Mapping[str, Any]) -> int:
        """How many values in these columns pinnacle did not write."""
        source, spec = self.spec(self.ready(whole.model, store=False), whole)
        places = [replace(spec, name=column, type=column_type(schema, name)) for name, column in columns.items()]
        return sum(self._backend.outputs.foreign(source, place) for place in places)

    def _parts(
        self, whole: PredictRequest, columns: Mapping[str, str], schema: Mapping[str, Any]
    ) -> list[PredictRequest]:
        """The predicts of the columns, once nothing stands in their way; makes the output that they read."""
        types = {name: column_type(schema, name) for name in columns}  # which refuses, and so before anything is made
        source, spec = self.spec(self.ready(whole.model, store=True), whole)
        self._backend.bind(source, spec)
        parts = [
            PredictRequest(
                FieldOf(f"{whole.model.identifier}.{name}", field=name, output_type=types[name]),
                spec.name, whole.select, column, adopt=whole.adopt,
            )
            for name, column in columns.items()
        ]  # fmt: skip
        for part in parts:
            self._check(part)
        return parts

    def _listen(self, request: PredictRequest) -> None:
        self._listeners.add(
            Listener(
                model=request.model,
                key=request.X,
                select=request.select,
                output=request.output,
                parameters=dict(request.parameters),
                adopt=request.adopt,
            )
        )

    def _check_place(self, request: PredictRequest) -> None:
        """Raise what stands in the way of an output before its model is stored."""
        source, spec = self.spec(request.model, request)
        self._backend.bind(source, spec, create=False)
        refuse_foreign(self._backend, source, spec, request.output, adopt=request.adopt)

    def _check(self, request: PredictRequest) -> None:
        """Raise what stands in the way of a predict before the first call."""
        source, spec = self.spec(self.ready(request.model, store=False), request)
        self._backend.plan(source, spec)
        refuse_foreign(self._backend, source, spec, request.output, adopt=request.adopt)

    def plan(self, request: PredictRequest) -> Plan:
        """What a predict would do: the statements before its first row, and the rows; reads all of them."""
        model = request.model if isinstance(request.model, StoredModel) else self.ready(request.model, store=False)
        source, spec = self.spec(model, request)
        statements = self._backend.plan(source, spec)
        found = counted(self._backend.bind(source, spec, create=False))
        is_as_stored = isinstance(model, StoredModel) or self._catalog.holds(model)
        changes = () if is_as_stored else self._catalog.changes(model)[1]
        foreign = foreign_values(self._backend, source, spec, request.output)
        return Plan(tuple(statements), *found, tuple(changes), foreign)

    def estimate(self, request: PredictRequest, options: PredictOptions) -> Estimate:
        """Rows, tokens and cost of a predict, before the first call; changes nothing."""
        check_arguments(request.model, Fields.of(request.X), request.parameters)
        model = self.ready(request.model, store=False)
        target = self._backend.bind(*self.spec(model, request), create=False)
        return estimate(model, target, options, self._backend.ledger.usage(model.identifier))

    # -- on a value, with what the database knows --------------------------------------------------

    def answer(self, model: Model, value: Any, parameters: Mapping[str, Any]) -> Any:
        """The model's output for a value; what it cost goes to the database's books."""
        spent = Meter()
        token = meter.set(spent)
        try:
            return model.predict(value, **parameters)
        finally:
            meter.reset(token)
            book(self._backend, model, "", spent.take())

    def with_queries(
        self, parameters: Mapping[str, Any], context_select: Any, context_key: Any, example_keys: Any
    ) -> dict[str, Any]:
        """The keywords for the model, with context and examples read from the database."""
        return self._waiting(
            partial(with_queries, self._backend, parameters, context_select, context_key, example_keys)
        )

    # -- rows set aside ----------------------------------------------------------------------------

    def retry_errors(
        self, infos: list[OutputInfo], model: str | Model | None, progress: bool | None
    ) -> list[PredictResult]:
        """Compute set-aside rows again; one result an output that had any.

        A model that cannot be loaded here raises its ComponentError after all others were computed.
        """
        results: list[PredictResult] = []
        unloadable: list[ComponentError] = []
        for info in infos:
            if not self._backend.errors.newest(info.id, 1):
                continue
            try:
                ready, target, parameters = self._to_retry(info, model)
            except ComponentError as error:
                unloadable.append(error)
                continue
            keys = self._backend.errors.take(info.id)
            with progress_bar(info.name, keys.__len__, progress) as move:
                options = PredictOptions(parameters=parameters)
                results.append(
                    Prediction(ready, target, options, self._predict_settings(ready, target, move)).execute(keys)
                )
        if unloadable:
            raise unloadable[0]
        return results

    def _to_retry(self, info: OutputInfo, model: str | Model | None) -> tuple[Model, Target, Mapping[str, Any]]:
        """What computes an output's failed rows: its listener's model, rows and keywords, where it has one."""
        if (found := self._listeners.to_retry(info.id)) is not None:
            listener, target = found
            return self.ready(listener.model, store=False), target, listener.parameters
        own = model if isinstance(model, Model) else self._load(info.model)
        ready = self.ready(own, store=True)
        output = Side(info.name, info.type.item) if isinstance(info.type, Items) else info.name
        request = PredictRequest(ready, info.fields.to_json(), self._backend.outputs.rows(info), output)
        return ready, self._backend.bind(*self.spec(ready, request)), {}

    # -- parts -------------------------------------------------------------------------------------

    def asked(self, model: Component | str) -> Model:
        """The model that a predict was asked for, with its version if it is stored; waits for the database."""
        return self._waiting(partial(self.ready, model, store=False))

    def ready(self, model: Component | str | None, *, store: bool) -> Model:
        """The model with its version: stored if it is new or changed; a loaded version stays what it is."""
        if isinstance(model, str):
            model = self._load(model)
        if not isinstance(model, Model):
            raise ConfigError(
                f"predict takes a model or its identifier, not {type(model).__name__}; @model makes one of a function"
            )
        if store:
            return model if self._catalog.holds(model) else self._catalog.add(model)
        self._catalog.teach(model)
        return model

    def _load(self, identifier: str) -> Model:
        loaded: Any = self._catalog.load(Model.kind, identifier)
        return loaded  # type: ignore[no-any-return]

    def outlined(self, identifier: str) -> StoredModel:
        """The newest version of a model as a plan needs it; its class is not loaded."""
        found = self._catalog.outlined(identifier)
        if found is None:
            version = self._catalog.record(Model.kind, identifier).version
            made = [info for info in self._backend.outputs.of(identifier) if info.version == version]
            found = StoredModel.of(identifier, version, made[0].type) if made else None
        if found is None:
            raise ConfigError(
                f"what model {identifier!r} returns is told by its class alone, which a plan by name does not load: "
                f"db.plan(db.load('model', {identifier!r}), X=..., select=...) in Python does"
            )
        return found

    def spec(self, model: Model, request: PredictRequest) -> tuple[Any, OutputSpec]:
        """The rows and the output that a predict is about."""
        if request.X is None or request.select is None:
            raise ConfigError("predict over a database needs X= (the field or fields to read) and select= (the rows)")
        chosen, kind = place_of(request.output, model)
        fields = Fields.of(request.X)
        source = self._backend.resolve(request.select, fields)
        name = chosen or self._backend.default_name(fields, model.identifier)
        parameters = canonical(request.parameters)
        return source, OutputSpec(
            name=name,
            type=kind,
            model=model.identifier,
            version=self._version(model),
            fields=source.fields,
            parameters=parameters,
            adopt=request.adopt,
        )

    def _version(self, model: Model) -> int:
        """The version that a model has, or would be given where it is not stored yet."""
        return self._catalog.changes(model)[0] if model.version is None else int(model.version)

    def _predict_settings(self, model: Model, target: Target, move: Callable[[int], None]) -> PredictSettings:
        return predict_settings(self._backend, self._settings, model, target, move)


def _check_columns(request: PredictRequest) -> None:
    """Refuse names of columns that no database takes, or that are given to two fields, before anything is made."""
    taken: dict[Any, str] = {}
    for name, column in request.output.items():
        place_of(column, request.model)
        if column in taken:
            raise ConfigError(f"output= names {column!r} for {taken[column]!r} and for {name!r}; name another for one")
        taken[column] = name


def _answer_schema(model: Model) -> Mapping[str, Any] | None:
    """The JSON Schema of a model's outputs, where it has an output_schema."""
    form: Any = getattr(model, "form", None)
    return None if form is None or getattr(model, "output_schema", None) is None else form.output_schema
