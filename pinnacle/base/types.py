"""Output types: what a model's value must be before a backend may store it.

A value that does not fit raises; nothing is coerced. The few exact equivalents that
Python itself treats as one type are accepted: numpy scalars for their Python kin, and
an int where a float is declared (PEP 484) when the float holds it exactly.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import types as pytypes
import typing
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from pinnacle.base.errors import ConfigError, MissingPlugin, OutputTypeMismatch

INT64 = range(-(2**63), 2**63)


@dataclasses.dataclass(frozen=True)
class OutputType:
    """Base of all output types; compare by value, store with `to_json`."""

    name: ClassVar[str]
    python: ClassVar[type]

    def check(self, value: Any) -> Any:
        """Return ``value`` as it will be stored; raise OutputTypeMismatch if it does not fit.

        None is never passed here: it is stored as NULL for every type.
        """
        raise NotImplementedError

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        """Check a whole batch: the values to store, and the misfits by position."""
        if set(map(type, values)) <= self.exact_types():
            return values, {}
        checked, misfits = list(values), {}
        for position, value in enumerate(values):
            if value is None:
                continue
            try:
                checked[position] = self.check(value)
            except OutputTypeMismatch as error:
                misfits[position] = error
            except Exception as error:  # of the value's own code: its model_dump, __array__ or __index__
                misfits[position] = self.misfit(value, f"reading it raised {type(error).__name__}")
        return checked, misfits

    def exact_types(self) -> frozenset[type]:
        """Python types whose every value fits as it is (the fast path of `check_all`)."""
        return frozenset()

    def to_json(self) -> Any:
        """A string, or an object with the type's parameters."""
        parameters = dataclasses.asdict(self)
        return {"type": self.name, **parameters} if parameters else self.name

    def misfit(self, value: Any, why: str = "") -> OutputTypeMismatch:
        """The error for a value that does not fit; shows its type and not its content."""
        found = type(value).__name__
        return OutputTypeMismatch(f"the model returned {found} where the output is {self}{': ' + why if why else ''}")

    def __str__(self) -> str:
        return self.name


class Text(OutputType):
    """Unicode text, without NUL characters or lone surrogates (no database takes all of them)."""

    name, python = "str", str

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        if set(map(type, values)) == {str}:
            whole = "".join(values)
            if "\x00" not in whole and (whole.isascii() or _encodes(whole)):
                return values, {}
        return super().check_all(values)

    def check(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.misfit(value)
        if "\x00" in value:
            raise self.misfit(value, "text with a NUL character")
        if not _encodes(value):
            raise self.misfit(value, "text with a lone surrogate")
        return value if type(value) is str else str.__str__(value)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Integer(OutputType):
    """A 64-bit signed integer."""

    name, python = "int", int

    def check(self, value: Any) -> int:
        if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_") or not hasattr(value, "__index__"):
            raise self.misfit(value)
        number = operator.index(value)
        if number not in INT64:
            raise self.misfit(value, f"{number} does not fit 64 bits")
        return number

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        if set(map(type, values)) == {int} and min(values) in INT64 and max(values) in INT64:
            return values, {}
        return super().check_all(values)


class Float(OutputType):
    """A finite 64-bit float. NaN and infinities do not fit: SQLite and JSON cannot hold them."""

    name, python = "float", float

    def check(self, value: Any) -> float:
        if isinstance(value, bool) or (not isinstance(value, (int, float)) and not _is_numpy_number(value)):
            raise self.misfit(value)
        try:
            number = float(value)
        except OverflowError:
            raise self.misfit(value, "too large for a float") from None
        if not math.isfinite(number):
            raise self.misfit(value, f"{number} is not finite")
        if number != value:
            raise self.misfit(value, f"{value} is not exact as a float")
        return number


def _is_numpy_number(value: Any) -> bool:
    return (
        type(value).__module__ == "numpy"
        and hasattr(value, "dtype")
        and value.shape == ()
        and value.dtype.kind in "iuf"
    )


class Boolean(OutputType):
    """True or False."""

    name, python = "bool", bool

    def check(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
            return bool(value)
        raise self.misfit(value)

    def exact_types(self) -> frozenset[type]:
        return frozenset({bool, type(None)})


class Bytes(OutputType):
    """Raw bytes."""

    name, python = "bytes", bytes

    def check(self, value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise self.misfit(value)
        return bytes(value)

    def exact_types(self) -> frozenset[type]:
        return frozenset({bytes, type(None)})


@dataclasses.dataclass(frozen=True)
class Datetime(OutputType):
    """A point in time: without a time zone by default, with one for ``timezone=True`` (kept as UTC)."""

    timezone: bool = False
    name, python = "datetime", datetime

    def check(self, value: Any) -> datetime:
        if not isinstance(value, datetime):
            raise self.misfit(value)
        if (value.utcoffset() is not None) != self.timezone:
            have, want = ("with", "without") if not self.timezone else ("without", "with")
            remedy = "declare output_type=Datetime(timezone=True)" if not self.timezone else "return an aware datetime"
            raise self.misfit(value, f"it is {have} a time zone and the output {want} one; {remedy}")
        return value

    def to_json(self) -> Any:
        return {"type": self.name, "timezone": True} if self.timezone else self.name


class Json(OutputType):
    """A dict or list of JSON values: str keys, finite numbers.

    Pydantic models and dataclasses are stored as their fields.
    """

    name, python = "json", dict

    def check(self, value: Any) -> Any:
        plain = value
        if hasattr(value, "model_dump") and not isinstance(value, type):
            plain = value.model_dump(mode="json")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            plain = dataclasses.asdict(value)
        if not isinstance(plain, (dict, list)):
            raise self.misfit(value, "a dict or a list is needed")
        try:
            return _plain_json(plain, "")
        except (TypeError, ValueError, RecursionError) as error:
            raise self.misfit(value, str(error)) from None


def _plain_json(value: Any, path: str) -> Any:
    """A copy made of plain JSON types; raises TypeError or ValueError naming the path."""
    if value is None or type(value) in (str, bool):
        if isinstance(value, str) and ("\x00" in value or not _encodes(value)):
            raise ValueError(f"text at {path or 'the root'} holds a NUL or a lone surrogate")
        return value
    if type(value) is int:
        if value not in INT64:
            raise ValueError(f"{value} at {path or 'the root'} does not fit 64 bits")
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{value} at {path or 'the root'} is not JSON")
        return value
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"key {key!r} at {path or 'the root'} is not a string")
            _plain_json(key, f"{path}.{key}")
        return {key: _plain_json(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{type(value).__name__} at {path or 'the root'} is not JSON")


@dataclasses.dataclass(frozen=True)
class Vector(OutputType):
    """A float32 vector of ``dim`` finite numbers; read back as a numpy array of shape (dim,)."""

    dim: int
    name, python = "vector", list

    def __post_init__(self) -> None:
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 1:
            raise ConfigError(f"Vector(dim) takes a positive whole number, not {self.dim!r}")

    def check(self, value: Any) -> Any:
        np = numpy()
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise self.misfit(value, str(error)) from None
        if array.dtype.kind not in "fiu":
            raise self.misfit(value, f"its numbers are {array.dtype}")
        if array.shape != (self.dim,):
            raise self.misfit(value, f"its shape is {array.shape}, not ({self.dim},)")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise self.misfit(value, "it holds NaN or an infinity")
        return array

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        np = numpy()
        shape = (self.dim,)
        if values and all(isinstance(v, np.ndarray) and v.dtype == np.float32 and v.shape == shape for v in values):
            if np.isfinite(np.stack(values)).all():
                return values, {}
        return super().check_all(values)

    def __str__(self) -> str:
        return f"vector({self.dim})"


def numpy() -> Any:
    """The numpy module; MissingPlugin where it is not installed."""
    try:
        import numpy as np
    except ImportError as error:
        raise MissingPlugin("numpy", "numpy", purpose="vector outputs") from error
    return np


@dataclasses.dataclass(frozen=True)
class Items(OutputType):
    """Any number of values a row, kept in a side table; ``many`` says that the model returns a list of them."""

    item: OutputType
    many: bool

    name, python = "items", list

    def check(self, value: Any) -> list[Any]:
        if self.many and not isinstance(value, (list, tuple)):
            raise self.misfit(value)
        items, misfits = self.item.check_all(list(value) if self.many else [value])
        for error in misfits.values():
            raise error
        if any(item is None for item in items):
            raise self.misfit(value, "None among its items")
        return list(items)

    def to_json(self) -> Any:
        return {"type": self.name, "item": self.item.to_json(), "many": self.many}

    def __str__(self) -> str:
        return f"items of {self.item}"


_PLAIN: dict[str, Callable[[], OutputType]] = {
    kind.name: kind for kind in (Text, Integer, Float, Boolean, Bytes, Datetime, Json)
}
_BY_ANNOTATION: dict[Any, OutputType] = {
    str: Text(), int: Integer(), float: Float(), bool: Boolean(), bytes: Bytes(), datetime: Datetime(),
    dict: Json(), list: Json(),
}  # fmt: skip


def output_type_of(annotation: Any, *, where: str = "the model") -> OutputType:
    """The output type for a declared type or a return annotation.

    ``X | None`` is X: None is stored as NULL. Raises ConfigError for anything that no
    column can hold, naming what can be declared instead.
    """
    if isinstance(annotation, OutputType):
        return annotation
    if isinstance(annotation, str) and annotation in _PLAIN:
        return _PLAIN[annotation]()
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, pytypes.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(members) == 1:
            return output_type_of(members[0], where=where)
    if origin is typing.Annotated:
        declared = [m for m in annotation.__metadata__ if isinstance(m, OutputType)]
        return declared[0] if declared else output_type_of(annotation.__origin__, where=where)
    try:
        known = _BY_ANNOTATION.get(origin or annotation)
    except TypeError:
        known = None
    if known is not None:
        return known
    if isinstance(annotation, type) and (hasattr(annotation, "model_dump") or dataclasses.is_dataclass(annotation)):
        return Json()
    raise ConfigError(
        f"{where} needs an output type: annotate what it returns, or pass output_type= one of str, int, float, "
        f"bool, bytes, datetime, dict, list, a Pydantic model, a dataclass or Vector(dim); found {annotation!r}"
    )


def output_type_from_json(stored: Any) -> OutputType:
    """The inverse of `OutputType.to_json`."""
    if isinstance(stored, str):
        return _PLAIN[stored]()
    if stored["type"] == Items.name:
        return Items(output_type_from_json(stored["item"]), stored["many"])
    parameters = {k: v for k, v in stored.items() if k != "type"}
    return Vector(**parameters) if stored["type"] == Vector.name else Datetime(**parameters)


def dump_json(value: Any) -> str:
    """Compact JSON text of a checked value, keys in their own order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
