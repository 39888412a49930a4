"""Reads what a function's annotations promise about its inputs and its output."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from typing import Any

from pinnacle.base.errors import ConfigError
from pinnacle.base.types import OutputType, output_type_of
from pinnacle.components.source import closure_of

_SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)


def annotation_of(function: Any, name: str) -> Any:
    """The annotation of a parameter or of ``"return"``, resolved where it is text; None where there is none.

    Unlike `typing.get_type_hints` it takes values too, such as ``-> "Vector(384)"``. Raises NameError for a name
    that is not there at run time.
    """
    carrier = inspect.unwrap(annotated(function))
    annotation = getattr(carrier, "__annotations__", {}).get(name)
    if not isinstance(annotation, str):
        return annotation
    return eval(annotation, getattr(carrier, "__globals__", {}), closure_of(carrier))


def output_type_from_annotation(function: Any, *, is_batch: bool, where: str) -> OutputType:
    """The output type that a return annotation names; for a batch function, that of its list's items."""
    try:
        annotation = annotation_of(function, "return")
    except (NameError, SyntaxError) as error:
        raise ConfigError(f"{where}: its return annotation does not resolve ({error}); pass output_type=") from error
    if not is_batch or annotation is None:
        return output_type_of(None if annotation is Any else annotation, where=where)
    items = typing.get_args(annotation)
    if typing.get_origin(annotation) in _SEQUENCES and items:
        return output_type_of(items[0], where=where)
    raise ConfigError(
        f"{where} needs an output type: annotate its batch function with the type of one output, "
        f"as in -> list[int], or pass output_type=; found {annotation!r}"
    )


def list_item_from_annotation(function: Any, *, is_batch: bool) -> OutputType | None:
    """The type of one item, where the output that is annotated is a list of them."""
    try:
        annotation = annotation_of(function, "return")
    except (NameError, SyntaxError):  # said by `output_type_from_annotation`
        return None
    for _ in range(2 if is_batch else 1):
        if typing.get_origin(annotation) not in _SEQUENCES or not typing.get_args(annotation):
            return None
        annotation = typing.get_args(annotation)[0]
    return output_type_of(annotation, where="the items of the list")


def admits_null(function: Any) -> bool:
    """Whether None is a declared input: of the first parameter, or of another that has no default."""
    inputs = [p for i, p in enumerate(parameters_of(function) or []) if i == 0 or p.default is p.empty]
    try:
        return any(_is_optional(annotation_of(function, p.name)) for p in inputs)
    except (NameError, SyntaxError):  # a name known only to type checkers
        return any("None" in str(p.annotation) for p in inputs)


def parameters_of(function: Any) -> list[inspect.Parameter] | None:
    """The parameters of a callable; None for built-ins that do not tell."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def annotated(function: Any) -> Any:
    """The function that carries a callable's annotations and its code."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _is_optional(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return type(None) in typing.get_args(annotation)
    return annotation is type(None)
