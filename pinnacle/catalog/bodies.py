"""Turns the fields of a component into JSON and back, with the types JSON lacks tagged.

A tag is an object with one key that begins with ``@``. Everything a database might not
keep as it is (key order aside) is tagged: big and odd numbers, NUL characters, keys with
dots. What has no tag cannot be stored.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import types
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any

from pinnacle.base.errors import ComponentError
from pinnacle.base.types import INT64, OutputType, output_type_from_json
from pinnacle.components.artifact import Artifact
from pinnacle.components.component import Component
from pinnacle.components.source import is_schema_class

MAX_INLINE_BYTES = 1 << 16
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


@dataclass(frozen=True)
class Hooks:
    """How the catalog stores what is more than a value; each gets the field's path."""

    component: Callable[[Component, str], Any]
    artifact: Callable[[Artifact, str], Any]
    function: Callable[[Any, str], Any]
    schema_class: Callable[[type, str], Any]
    other: Callable[[Any, str], Any]


def encode(value: Any, hooks: Hooks, path: str) -> Any:
    """The JSON of one field's value; ComponentError naming ``path`` where it cannot be stored."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return value if _is_plain(value) else {"@text": _base64(value.encode("utf-8", "surrogatepass"))}
    if kind is int:
        return value if value in INT64 else {"@int": str(value)}
    if kind is float:
        return value if _is_kept(value) else {"@float": repr(value)}
    if kind in (list, tuple):
        items = [encode(item, hooks, f"{path}[{i}]") for i, item in enumerate(value)]
        return items if kind is list else {"@tuple": items}
    if kind in (set, frozenset):
        return {f"@{kind.__name__}": sorted((encode(item, hooks, f"{path}{{}}") for item in value), key=canonical)}
    if kind is dict:
        return _encode_dict(value, hooks, path)
    if kind is bytes and len(value) > MAX_INLINE_BYTES:
        raise ComponentError(f"{path} holds {len(value)} bytes; wrap them in Artifact(...), which is kept in chunks")
    if kind in _SCALARS:
        tag, write, _ = _SCALARS[kind]
        return {tag: write(value)}
    return _encode_object(value, hooks, path)


def _encode_dict(value: dict[Any, Any], hooks: Hooks, path: str) -> Any:
    pairs = [(key, encode(item, hooks, f"{path}[{key!r}]")) for key, item in value.items()]
    if all(type(key) is str and _is_plain(key) and key and key[0] not in "@$" and "." not in key for key in value):
        return dict(pairs)
    return {"@dict": sorted(([encode(key, hooks, path), item] for key, item in pairs), key=canonical)}


def _encode_object(value: Any, hooks: Hooks, path: str) -> Any:
    if isinstance(value, Component):
        return {"@component": hooks.component(value, path)}
    if isinstance(value, Artifact):
        return {"@artifact": hooks.artifact(value, path)}
    if isinstance(value, OutputType):
        return {"@output_type": value.to_json()}
    if isinstance(value, PurePath):
        return {"@path": str(value)}
    if isinstance(value, FUNCTIONS):
        return {"@function": hooks.function(value, path)}
    if is_schema_class(value):
        return {"@schema_class": hooks.schema_class(value, path)}
    return hooks.other(value, path)


@dataclass(frozen=True)
class Readers:
    """How the catalog gets back what `Hooks` stored."""

    component: Callable[[Mapping[str, Any]], Component]
    artifact: Callable[[Mapping[str, Any]], Artifact]
    function: Callable[[Mapping[str, Any]], Any]
    schema_class: Callable[[Mapping[str, Any]], type]
    other: Callable[[str], Any]


MALFORMED = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What reading a stored value raises that is of another type or shape than `encode` writes."""


def decode(stored: Any, readers: Readers) -> Any:
    """The value that `encode` was given. ComponentError for a tag this version does not know; one of `MALFORMED` for
    what `encode` never gave."""
    if isinstance(stored, list):
        return [decode(item, readers) for item in stored]
    if not isinstance(stored, Mapping):
        return stored
    tag = next(iter(stored), "")
    if not tag.startswith("@"):
        return {key: decode(item, readers) for key, item in stored.items()}
    if len(stored) != 1:
        raise ValueError(f"what is tagged {tag!r} holds more than that")
    content = stored[tag]
    if tag in _READ_SCALAR:
        return _READ_SCALAR[tag](content)
    if tag in _CONTAINERS:
        return _CONTAINERS[tag](decode(item, readers) for item in _list(content))
    if tag == "@dict":
        return {decode(key, readers): decode(item, readers) for key, item in map(_list, _list(content))}
    hooks: dict[str, Callable[[Any], Any]] = {
        "@component": readers.component,
        "@artifact": readers.artifact,
        "@function": readers.function,
        "@schema_class": readers.schema_class,
        "@pickle": readers.other,
    }
    if tag not in hooks:
        raise ComponentError(f"a stored value is tagged {tag!r}, which this version of pinnacle does not know; upgrade")
    return hooks[tag](content)


def _list(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError(f"a list is stored as a {type(content).__name__}")
    return content


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise TypeError(f"a text is stored as a {type(content).__name__}")
    return content


def canonical(value: Any) -> str:
    """The one JSON text of a value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: Any) -> str:
    """The SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _is_plain(text: str) -> bool:
    """Whether every database keeps the text: no NUL, no lone surrogate."""
    return "\x00" not in text and (text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text))


def _is_kept(number: float) -> bool:
    """Whether JSON columns give the same float back: PostgreSQL turns 1e16 into an int, and -0.0 into 0.0."""
    if not math.isfinite(number) or (number == 0 and math.copysign(1, number) < 0):
        return False
    return not number.is_integer() or abs(number) < 1e15


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


_SCALARS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: ("@bytes", _base64, base64.b64decode),
    datetime: (
        "@datetime",
        lambda v: [v.isoformat(), v.fold],
        lambda s: datetime.fromisoformat(s[0]).replace(fold=s[1]),
    ),
    date: ("@date", date.isoformat, date.fromisoformat),
    time: ("@time", time.isoformat, time.fromisoformat),
    timedelta: ("@timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda s: timedelta(*s)),
    Decimal: ("@decimal", str, Decimal),
    uuid.UUID: ("@uuid", str, uuid.UUID),
    complex: ("@complex", repr, complex),
}
_CONTAINERS: dict[str, Callable[[Any], Any]] = {"@tuple": tuple, "@set": set, "@frozenset": frozenset}
_READ_SCALAR: dict[str, Callable[[Any], Any]] = {
    "@text": lambda stored: base64.b64decode(stored).decode("utf-8", "surrogatepass"),
    "@int": lambda stored: int(_text(stored)),
    "@float": lambda stored: float(_text(stored)),
    "@path": lambda stored: Path(_text(stored)),
    "@output_type": output_type_from_json,
    **{tag: read for tag, _, read in _SCALARS.values()},
}
