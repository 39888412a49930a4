"""The output types that there are, and which one an annotation or a stored description means."""

from __future__ import annotations

import dataclasses
import functools
import types as pytypes
import typing
from typing import Any

from pinnacle.base.entry_points import entry_points
from pinnacle.base.errors import ConfigError
from pinnacle.base.types.boolean import Boolean
from pinnacle.base.types.bytes import Bytes
from pinnacle.base.types.datetime import Datetime
from pinnacle.base.types.float import Float
from pinnacle.base.types.integer import Integer
from pinnacle.base.types.items import Items
from pinnacle.base.types.json import Json
from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.text import Text
from pinnacle.base.types.vector import Vector

GROUP = "pinnacle.types"
"""The entry points by which packages bring output types, each under the type's own name."""

_TYPES: dict[str, type[OutputType]] = {
    kind.name: kind for kind in (Text, Integer, Float, Boolean, Bytes, Datetime, Json, Vector, Items)
}
_BY_ANNOTATION: dict[Any, type[OutputType]] = {python: kind for kind in _TYPES.values() for python in kind.annotations}


def register_output_type(kind: type[OutputType]) -> None:
    """Make a type of the program's own known by its name and its annotations.

    For this process alone; a package is better off with an entry point in the group
    ``pinnacle.types``, which every worker finds. ConfigError where the name or an
    annotation has another meaning already.
    """
    if _found(kind.name) not in (None, kind):
        raise ConfigError(f"there is an output type {kind.name!r} already; give {kind.__name__} another name")
    for python in kind.annotations:
        if _meant_by(python) not in (None, kind):
            raise ConfigError(f"the annotation {python.__name__} means another output type already")
    _TYPES[kind.name] = kind
    _BY_ANNOTATION.update((python, kind) for python in kind.annotations)


def output_type_of(annotation: Any, *, where: str = "the model") -> OutputType:
    """The output type for a declared type or a return annotation.

    ``X | None`` is X: None is stored as NULL. Raises ConfigError for anything that no
    column can hold, naming what can be declared instead.
    """
    if isinstance(annotation, OutputType):
        return annotation
    if isinstance(annotation, str):
        named = _found(annotation)
        if named is not None and not _has_to_be_told(named):
            return named()
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, pytypes.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(members) == 1:
            return output_type_of(members[0], where=where)
    if origin is typing.Annotated:
        declared = [m for m in annotation.__metadata__ if isinstance(m, OutputType)]
        return declared[0] if declared else output_type_of(annotation.__origin__, where=where)
    known = _meant_by(origin or annotation)
    if known is not None:
        return known()
    if isinstance(annotation, type) and (hasattr(annotation, "model_dump") or dataclasses.is_dataclass(annotation)):
        return Json()
    kinds = [*_TYPES.values(), *_installed().values()]
    names = dict.fromkeys(python.__name__ for kind in kinds for python in kind.annotations)
    raise ConfigError(
        f"{where} needs an output type: annotate what it returns, or pass output_type= one of {', '.join(names)}, "
        f"a Pydantic model, a dataclass or Vector(dim); found {annotation!r}"
    )


def output_type_from_json(stored: Any) -> OutputType:
    """The inverse of `OutputType.to_json`; ConfigError for a type that is not known here."""
    name = stored if isinstance(stored, str) else stored["type"]
    kind = _found(name)
    if kind is None:
        raise ConfigError(
            f"the output type {name!r} is not known here; install the package that brings it (an entry point of the "
            f"group {GROUP!r}), or call register_output_type before the database is opened"
        )
    parameters = {} if isinstance(stored, str) else {key: value for key, value in stored.items() if key != "type"}
    if kind is Items:
        parameters["item"] = output_type_from_json(parameters["item"])
    return kind.from_json(parameters)


def _found(name: str) -> type[OutputType] | None:
    return _TYPES.get(name) or _installed().get(name)


def _meant_by(annotation: Any) -> type[OutputType] | None:
    try:
        known = _BY_ANNOTATION.get(annotation)
    except TypeError:  # not hashable
        return None
    if known is not None:
        return known
    return next((kind for kind in _installed().values() if annotation in kind.annotations), None)


@functools.cache
def _installed() -> dict[str, type[OutputType]]:
    """The types of installed packages; loaded when a name or an annotation is none of our own.

    ConfigError for one under another name than its own, by which a stored output would not find it.
    """
    found: dict[str, type[OutputType]] = {}
    for point in entry_points(group=GROUP):
        kind = found[point.name] = point.load()
        if kind.name != point.name:
            raise ConfigError(
                f"the output type {point.value} calls itself {kind.name!r}, and its entry point in the group {GROUP!r} "
                f"calls it {point.name!r}; the package must give both one name"
            )
    return found


def _has_to_be_told(kind: type[OutputType]) -> bool:
    """Whether a type has parameters without a default."""
    return any(
        field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        for field in dataclasses.fields(kind)
    )
