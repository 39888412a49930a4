"""Turns a plain function into a model: ``@model``."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, overload

from pinnacle.base.errors import ConfigError
from pinnacle.base.types import OutputType
from pinnacle.components.annotations import (
    admits_null,
    annotated,
    list_item_from_annotation,
    output_type_from_annotation,
    parameters_of,
)
from pinnacle.components.model import CallStyle, Model, declared_output_type
from pinnacle.components.source import FunctionSource


@dataclasses.dataclass
class FunctionModel(Model):
    """A model whose outputs a function computes; callable like the function itself.

    ``batch``: the function takes a list of inputs and returns as many outputs.
    """

    _: dataclasses.KW_ONLY
    function: Callable[..., Any]
    batch: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.function, FunctionModel):
            self.function = self.function.function
        if not callable(self.function) or isinstance(self.function, type):
            raise ConfigError(f"model {self.identifier!r} needs a function, not {self.function!r}")
        super().__post_init__()
        functools.update_wrapper(self, self.function, updated=())
        self.source = FunctionSource(self.function, self.code_version)
        _check_signature(self.identifier, self.function, is_batch=self.batch)

    @functools.cached_property
    def _style(self) -> CallStyle:
        target = annotated(self.function)
        is_async = inspect.iscoroutinefunction(target)
        if is_async and self.batch:
            raise ConfigError(f"model {self.identifier!r} is async and batch=True; write one or the other")
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            raise ConfigError(f"model {self.identifier!r} is a generator; return the output, or a list for batch=True")
        if self.batch:
            return CallStyle.BATCH
        return CallStyle.ASYNC if is_async else CallStyle.VALUE

    @property
    def call_style(self) -> CallStyle:
        return self._style

    def predict_one(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> Any:
        return self.function(inputs, **kwargs)

    async def apredict_one(self, *args: Any, **kwargs: Any) -> Any:
        return await self.function(*args, **kwargs)

    def check_arguments(self, positional: int, named: Sequence[str]) -> None:
        try:
            signature = inspect.signature(self.function)
        except ValueError:  # some functions written in C do not tell
            return
        try:
            signature.bind(*[None] * positional, **dict.fromkeys(named))
        except TypeError as error:
            raise ConfigError(
                f"model {self.identifier!r} cannot be called with these fields and keywords: {error}; "
                f"it takes {signature}"
            ) from None

    def resolved_output_type(self) -> OutputType:
        if isinstance(self.output_type, OutputType):
            return self.output_type
        return output_type_from_annotation(self.function, is_batch=self.batch, where=f"model {self.identifier!r}")

    def told_output_type(self) -> OutputType | None:
        return declared_output_type(self)

    def list_item(self) -> OutputType | None:
        return list_item_from_annotation(self.function, is_batch=self.batch)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


@overload
def model(
    function: Callable[..., Any],
    /,
    *,
    identifier: str | None = None,
    output_type: Any = None,
    batch: bool = False,
    batch_size: int | None = None,
    concurrency: int | None = None,
    max_attempts: int = 3,
    retry_delay_s: float = 0.05,
    skip_null: bool | None = None,
    version: str | None = None,
) -> FunctionModel: ...


@overload
def model(
    function: None = None,
    /,
    *,
    identifier: str | None = None,
    output_type: Any = None,
    batch: bool = False,
    batch_size: int | None = None,
    concurrency: int | None = None,
    max_attempts: int = 3,
    retry_delay_s: float = 0.05,
    skip_null: bool | None = None,
    version: str | None = None,
) -> Callable[[Callable[..., Any]], FunctionModel]: ...


def model(
    function: Callable[..., Any] | None = None,
    /,
    *,
    identifier: str | None = None,
    output_type: Any = None,
    batch: bool = False,
    batch_size: int | None = None,
    concurrency: int | None = None,
    max_attempts: int = 3,
    retry_delay_s: float = 0.05,
    skip_null: bool | None = None,
    version: str | None = None,
) -> Any:
    """Make a model of a function; a decorator with or without arguments, or ``model(lambda x: ..., identifier="n")``.

    ``identifier`` is the function's name by default, ``output_type`` what it is annotated to return (for
    ``batch=True``, the type of its list's items). ``skip_null`` is False by default where the annotation of an input
    admits None. The other options are those of `Model`.
    """

    def wrap(function: Callable[..., Any]) -> FunctionModel:
        if not callable(function):
            raise ConfigError(f"@model takes a function, not {function!r}; name it with identifier=")
        function = function.function if isinstance(function, FunctionModel) else function
        return FunctionModel(
            _identifier(function) if identifier is None else identifier,
            function=function,
            output_type=output_type,
            batch=batch,
            batch_size=batch_size,
            concurrency=0 if concurrency is None else concurrency,
            max_attempts=max_attempts,
            retry_delay_s=retry_delay_s,
            skip_null=not admits_null(function) if skip_null is None else skip_null,
            version=version,
        )

    return wrap if function is None else wrap(function)


def _identifier(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", None)
    if name is None or name == "<lambda>":
        raise ConfigError(f"{function!r} has no name to go by; pass identifier=")
    return str(name)


def _check_signature(identifier: str, function: Callable[..., Any], *, is_batch: bool) -> None:
    parameters = parameters_of(function)
    if parameters is None:
        return
    if not parameters:
        raise ConfigError(f"model {identifier!r} takes no input; give its function a parameter")
    if is_batch and parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise ConfigError(f"model {identifier!r} has batch=True and no positional parameter for the list of inputs")
