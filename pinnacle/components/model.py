"""Models: what maps inputs to outputs, on a value, on a list, or on the rows of a query."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pinnacle.base import loop
from pinnacle.base.batches import BatchAnswers
from pinnacle.base.errors import ConfigError
from pinnacle.base.types import OutputType, output_type_of
from pinnacle.components.annotations import list_item_from_annotation, output_type_from_annotation
from pinnacle.components.calls import call_batch, call_concurrently, call_in_batches, call_values, raise_errors
from pinnacle.components.component import Component, operational
from pinnacle.components.plugins import FUNCTIONS, PROVIDERS, parse_model_url, plugin_class

if TYPE_CHECKING:
    from pinnacle.components.configuration import TrainingConfiguration
    from pinnacle.components.dataset import Dataset
    from pinnacle.components.run import Checkpoint, Run
    from pinnacle.db import Database
    from pinnacle.runtime.training import TrainingJob

ASYNC_CONCURRENCY = 16
PURPOSES = (
    "GENERIC_COMPLETION", "TEXT_EMBEDDING_EXTRACTION", "IMAGE_EMBEDDING_EXTRACTION", "IMAGE_GENERATION", "RERANKING",
)  # fmt: skip
_MISSING: Any = object()


class CallStyle(enum.Enum):
    """How a model is called: one value, a list of values, or one value in a coroutine."""

    VALUE = "value"
    BATCH = "batch"
    ASYNC = "async"


@dataclasses.dataclass
class Model(Component):
    """Maps inputs to outputs. Subclass it and write `predict_one`, `predict_batch` or `apredict_one`.

    ``output_type``: what a value is stored as, a type or ``Vector(dim)``; by default what the
    method is annotated to return. ``batch_size``: rows handed over and committed together.
    ``concurrency``: calls in flight; 0 is one, or 16 for an async model. ``max_attempts``,
    ``retry_delay_s``: calls before a row counts as failed, and the first pause between them.
    ``skip_null``: a row whose input is NULL gets a NULL output and no call. ``description``: a line for people.
    ``version``: a text, such as "2", that alone decides whether the model has changed; without one its code and its
    fields do. It is kept as ``code_version``: ``version`` itself is the number that the stored model has.
    """

    kind: ClassVar[str] = "model"
    purpose: ClassVar[str | None] = None
    """What it is for, one of `PURPOSES`, where it is for one of these."""

    is_paid: ClassVar[bool] = False
    """Whether a call costs money: its answers are kept, and not asked for twice."""

    never_from_rows: ClassVar[frozenset[str]] = frozenset()
    """Keywords that no field of a row may be, for they name secrets."""

    takes_row_keywords: ClassVar[bool] = False
    """Whether a batch model's items may bring keywords of their own, where X is a dict."""

    _: dataclasses.KW_ONLY
    output_type: Any = None
    batch_size: int | None = operational(None)
    concurrency: int = operational(0, repr=False)
    max_attempts: int = operational(3)
    retry_delay_s: float = operational(0.05)
    skip_null: bool = True
    description: str = operational("")
    version: Any = dataclasses.field(default=None, compare=False, repr=False)
    code_version: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        declared = type(self).version
        if (given := declared if self.version is None else self.version) is not None:
            if not isinstance(given, str) or not given or declared not in (None, given):
                what = "" if declared is None else f", and {type(self).__name__} has {declared!r} itself"
                raise ConfigError(
                    f'version= is a text that names the state of the model, such as "2", not {given!r}{what}'
                )
            self.code_version, self.version = given, None
        if self.output_type is not None:
            self.output_type = output_type_of(self.output_type, where=f"model {self.identifier!r}")
        if self.concurrency == 0:
            self.concurrency = ASYNC_CONCURRENCY if self.call_style is CallStyle.ASYNC else 1
        _check_count("batch_size", self.batch_size if self.batch_size is not None else 1)
        _check_count("concurrency", self.concurrency)
        _check_count("max_attempts", self.max_attempts)
        if not 0 <= self.retry_delay_s < math.inf:
            raise ConfigError(f"retry_delay_s is a number of seconds from 0, not {self.retry_delay_s!r}")

    @property
    def call_style(self) -> CallStyle:
        """The style whose method the class implements; batches before coroutines before values."""
        for style, method in _METHODS.items():
            if getattr(type(self), method) is not getattr(Model, method):
                return style
        raise ConfigError(f"{type(self).__name__} implements none of {', '.join(_METHODS.values())}")

    def predict_one(self, *args: Any, **kwargs: Any) -> Any:
        """Compute one output. Models called value by value implement this."""
        raise NotImplementedError(f"{type(self).__name__} is not called value by value")

    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> Any:
        """A list or array with one output for each input, in order. Models called in batches implement this.

        An exception in an output's place is that input's error, and the others keep their outputs.

        An input is a value; a tuple where X is a tuple of fields, a dict where X is a dict.
        """
        raise NotImplementedError(f"{type(self).__name__} is not called in batches")

    async def apredict_one(self, *args: Any, **kwargs: Any) -> Any:
        """Compute one output in a coroutine. Async models implement this."""
        raise NotImplementedError(f"{type(self).__name__} is not an async model")

    def submit_batch(self, requests: Mapping[str, tuple[Any, Mapping[str, Any]]], token: str) -> str:
        """Submit inputs with their keywords, by name, as one batch of the provider's; its id.

        ``token`` goes along, so that `find_batch` finds the batch. ConfigError for models without batches.
        """
        raise ConfigError(f'model {self.identifier!r} has no batches of a provider\'s: leave out mode="batch"')

    def find_batch(self, token: str) -> str | None:
        """The id of the batch that was submitted with a token; None where there is none."""
        raise NotImplementedError(f"{type(self).__name__} has no batches")

    def fetch_batch(self, batch: str) -> BatchAnswers | None:
        """What a batch brought; None while the provider works on it."""
        raise NotImplementedError(f"{type(self).__name__} has no batches")

    def length_of(self, value: Any) -> int | None:
        """How long an input is: batches are made of inputs of similar length. None: order does not matter."""
        return None

    def holds_many(self, value: Any) -> bool:
        """Whether ``predict(value)`` is asked for a list of outputs."""
        return isinstance(value, list)

    def check_arguments(self, positional: int, named: Sequence[str]) -> None:
        """ConfigError when a call with so many positional arguments and these named ones cannot work.

        What takes anything says nothing; models that know their arguments override this.
        """

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """ConfigError for keywords over rows whose values cannot work; models that know theirs override it."""

    def resolved_output_type(self) -> OutputType:
        """The declared output type, else that of the return annotation; ConfigError where there is neither."""
        if isinstance(self.output_type, OutputType):
            return self.output_type
        style = self.call_style
        return output_type_from_annotation(
            getattr(type(self), _METHODS[style]),
            is_batch=style is CallStyle.BATCH,
            where=f"model {self.identifier!r}",
        )

    def told_output_type(self) -> OutputType | None:
        """What `resolved_output_type` gives, where that takes no weights and asks nobody; None elsewhere. It is stored
        with the model, for what is planned without loading its class."""
        if isinstance(self.output_type, OutputType):
            return self.output_type
        return declared_output_type(self) if type(self).resolved_output_type is Model.resolved_output_type else None

    def list_item(self) -> OutputType | None:
        """The type of one item, where an output is annotated as a list of them; None where it is not."""
        style = self.call_style
        return list_item_from_annotation(getattr(type(self), _METHODS[style]), is_batch=style is CallStyle.BATCH)

    def check_training(self, configuration: TrainingConfiguration) -> None:
        """ConfigError when the model cannot be trained like this. Models that can be trained implement this,
        `train` and `learned_from`."""
        raise ConfigError(
            f"model {self.identifier!r} is a {type(self).__name__}, which cannot be trained; LLM can: "
            "from pinnacle.ext.llm import LLM"
        )

    def train(self, job: TrainingJob) -> None:
        """Train on the sets of ``job``, and tell ``job.record`` of it. It does not change the model itself."""
        raise NotImplementedError(f"{type(self).__name__} cannot be trained")

    def learned_from(self, run: Run, checkpoint: Checkpoint | None) -> dict[str, Any]:
        """The fields of the model, by name, that take over a checkpoint; None where it stays on the disk."""
        raise NotImplementedError(f"{type(self).__name__} cannot be trained")

    def fit(
        self, X: Any = None, *, select: Any = None, configuration: Any = None, db: Database | None = None,  # noqa: N803
        validation_sets: Sequence[Dataset] = (), transform: Any = None, metrics: Sequence[Any] = (),
        progress: bool | None = None, on_ray: bool = False, ray_address: str | None = None,
        ray_configs: Mapping[str, Any] | None = None,
    ) -> Run:  # fmt: skip
        """Train on the rows of a query, and store the result as a new version of this model: see `Database.fit`."""
        if db is None or not hasattr(db, "fit"):
            raise ConfigError(f"fit needs db=, what pinnacle(...) returns, not {type(db).__name__}")
        return db.fit(
            self, X, select=select, configuration=configuration, validation_sets=validation_sets, transform=transform,
            metrics=metrics, progress=progress, on_ray=on_ray, ray_address=ray_address, ray_configs=ray_configs,
        )  # fmt: skip

    @classmethod
    def from_function(cls, identifier: str, fn: Any, **options: Any) -> Any:
        """A language model that a function calls; `EmbedModel.from_function` makes an embedder.

        ``fn(model, prompt, **kwargs)``, async or not, returns the text, or (text, (input tokens, output tokens)).
        ``setup_fn(api_key)`` is called once, and its result is ``model.client``; ``model.args`` is a dict of the
        user's. Other options are those of `BaseLLMAPI`: ``api_key``, ``cost``, ``rate_limit``, ``context_window``, ...
        """
        return plugin_class(FUNCTIONS, "FunctionLLM")(identifier, fn=fn, **options)

    @classmethod
    def from_url(cls, url: str, identifier: str = "", **options: Any) -> Any:
        """A language model behind a URL: ``provider+https://{KEY_VARIABLE}@host/path;model=name``.

        The key is the value of an environment variable, and is never stored. MissingPlugin where the
        provider's plug-in is not installed.
        """
        provider, parts = parse_model_url(url)
        return plugin_class(PROVIDERS, provider)(identifier, **parts, **options)

    def predict(
        self,
        value: Any = _MISSING,
        /,
        *args: Any,
        X: Any = None,  # noqa: N803
        db: Database | None = None,
        select: Any = None,
        output: Any = None,
        limit: int | None = None,
        batch_size: int | None = None,
        overwrite: bool = False,
        on_error: str = "isolate",
        progress: bool | None = None,
        dry_run: bool = False,
        listen: bool = False,
        budget: float | None = None,
        mode: str = "live",
        adopt: bool = False,
        **kwargs: Any,
    ) -> Any:
        """One output for a value, a list of outputs for a list, or with ``X`` and ``db`` the rows of a query.

        Further arguments go to the model. A list's outputs are in its order; a batch model that returns numpy arrays
        gives one array of shape (n, ...). An async model runs on a loop of its own, also inside a running one. On rows
        the result is a PredictResult, and the outputs are in the database: see `Database.predict`.
        """
        engine = {
            "select": select, "output": output, "limit": limit, "overwrite": overwrite, "on_error": on_error,
            "progress": progress, "dry_run": dry_run, "listen": listen, "budget": budget,
            "mode": mode, "adopt": adopt,
        }  # fmt: skip
        if db is not None:
            _refuse_values(self.identifier, value, X)
            if not hasattr(db, "predict"):
                raise ConfigError(f"db= is what pinnacle(...) returns, not {type(db).__name__}")
            return db.predict(self, X=X, batch_size=batch_size, **engine, **kwargs)
        _require_value(self.identifier, value, X, engine)
        if batch_size is not None:
            _check_count("batch_size", batch_size)
        return self._predict_values(value, args, kwargs, batch_size)

    async def apredict(self, value: Any = _MISSING, /, *args: Any, **kwargs: Any) -> Any:
        """`predict` for callers inside an event loop: async models run on that loop, others and queries in a thread.

        Cancelling the task stops a predict over rows after the calls in hand; what was computed is written.
        """
        on_values = kwargs.get("db") is None and kwargs.get("X") is None and value is not _MISSING
        if not on_values or self.call_style is not CallStyle.ASYNC:
            arguments = () if value is _MISSING else (value, *args)
            return await loop.in_thread(self.predict, *arguments, **kwargs)
        _require_value(self.identifier, value, None, {name: kwargs.pop(name, None) for name in _ENGINE_DEFAULTS})
        kwargs = {name: given for name, given in kwargs.items() if name not in ("db", "X", "batch_size")}
        if self.holds_many(value):
            return await call_concurrently(self, value, args, kwargs)
        return await self.apredict_one(value, *args, **kwargs)

    def _predict_values(self, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any], batch_size: int | None) -> Any:
        is_list = self.holds_many(value)
        if self.call_style is CallStyle.ASYNC:
            return loop.run(
                call_concurrently(self, value, args, kwargs) if is_list else self.apredict_one(value, *args, **kwargs)
            )
        if self.call_style is CallStyle.VALUE:
            return call_values(self, value, args, kwargs) if is_list else self.predict_one(value, *args, **kwargs)
        if is_list:
            return call_in_batches(self, value, args, kwargs, batch_size)
        return raise_errors(call_batch(self, [(value, *args) if args else value], **kwargs))[0]


_METHODS = {
    CallStyle.BATCH: "predict_batch",
    CallStyle.ASYNC: "apredict_one",
    CallStyle.VALUE: "predict_one",
}
_ENGINE_DEFAULTS: dict[str, Any] = {
    "select": None, "output": None, "limit": None, "overwrite": False, "on_error": "isolate",
    "progress": None, "dry_run": False, "listen": False, "budget": None,
    "mode": "live", "adopt": False,
}  # fmt: skip


def declared_output_type(model: Model) -> OutputType | None:
    """What a model says that it returns; None where it does not."""
    try:
        return model.resolved_output_type()
    except ConfigError:
        return None


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is a whole number from 1, not {value!r}")


def _refuse_values(identifier: str, value: Any, fields: Any) -> None:
    if value is not _MISSING:
        raise ConfigError(
            f"model {identifier!r} was given a value and a database; pass the field to read as X=, or leave out db="
        )
    if fields is None:
        raise ConfigError(f"model {identifier!r} needs X=, the field or fields to read from each row")


def _require_value(identifier: str, value: Any, fields: Any, engine: Mapping[str, Any]) -> None:
    """Refuse what only makes sense with a database."""
    given = [name for name, chosen in engine.items() if chosen is not None and chosen is not _ENGINE_DEFAULTS[name]]
    if fields is not None or given:
        named = ", ".join(f"{name}=" for name in (["X"] if fields is not None else []) + given)
        raise ConfigError(f"model {identifier!r} was given {named} without db=; pass db= to predict on rows")
    if value is _MISSING:
        raise ConfigError(f"model {identifier!r} needs a value, or X=, db= and select= to predict on rows")
