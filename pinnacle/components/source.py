"""Tells whether code is still the code it was: digests of the source of functions and classes.

What counts is the text of the function or of the class's own methods, its defaults, and
what it closes over. Globals that it merely refers to do not count.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import pickle
import sys
import textwrap
import types
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What pickling an arbitrary object of the user's may raise.
_PICKLE_ERRORS = (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, NotImplementedError)


class FunctionSource:
    """A callable's source as it was when this object was made (files may be edited later)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.text = source_text(function)
        self._defaults = [describe(getattr(function, name, None)) for name in ("__defaults__", "__kwdefaults__")]

    @functools.cached_property
    def digest(self) -> str:
        """A hex digest that changes with the text, the defaults or what the function closes over."""
        return _digest([self._code(), self._defaults, _closure(self._function)])

    def _code(self) -> Any:
        code = getattr(self._function, "__code__", None)
        if code is None:
            return [self.text, _parts(self._function)]
        if self.text is None or code.co_name == "<lambda>":
            # Two lambdas may share a line, and so a text.
            return [self.text, _code_parts(code)]
        return self.text


class ClassSource:
    """The source of a class's own body: methods by their text, other attributes by their value."""

    def __init__(self, cls: type) -> None:
        self._bases = [base for base in cls.__bases__ if hasattr(base, "class_source")]
        self._methods: dict[str, list[FunctionSource]] = {}
        self._values: dict[str, Any] = {}
        if cls.__module__.partition(".")[0] == "pinnacle":
            return
        for name, value in vars(cls).items():
            if functions := _functions_of(value):
                self._methods[name] = [FunctionSource(function) for function in functions]
            elif not name.startswith("__") and not name.startswith("_abc_"):
                self._values[name] = describe(value)

    @functools.cached_property
    def digest(self) -> str:
        """A hex digest of this class and of those it inherits from, pinnacle's own excepted."""
        methods = {name: [source.digest for source in sources] for name, sources in self._methods.items()}
        inherited = [base.class_source.digest for base in self._bases]
        return _digest([methods, self._values, inherited])


@dataclass(frozen=True)
class SchemaSource:
    """What a Pydantic class makes of answers: its JSON Schema, and a digest of its source where there is one.

    The source of the models that it inherits from, and of those in its fields, counts too.
    """

    schema: Mapping[str, Any]
    digest: str | None

    @classmethod
    def of(cls, schema_class: Any) -> SchemaSource:
        if schema_class not in _schema_digests:  # taken once: files may be edited later
            _schema_digests[schema_class] = _schema_digest(schema_class)
        return cls(schema_class.model_json_schema(), _schema_digests[schema_class])

    @property
    def identity(self) -> str:
        """A hex digest that changes with the schema and with the source."""
        return _digest([self.schema, self.digest])

    def keep_for(self, schema_class: type) -> None:
        """Let this be the source of a class that was pickled, which has no file here."""
        _schema_digests[schema_class] = self.digest


_schema_digests: weakref.WeakKeyDictionary[type, str | None] = weakref.WeakKeyDictionary()


def is_schema_class(value: Any) -> bool:
    """Whether ``value`` is a subclass of Pydantic's BaseModel; told by name, for Pydantic may not be installed."""
    if not isinstance(value, type) or not hasattr(value, "model_json_schema"):
        return False
    return any(base.__name__ == "BaseModel" and _is_of_pydantic(base) for base in value.__mro__[1:])


def _schema_digest(schema_class: type) -> str | None:
    written = [[source_text(cls), _method_digests(cls)] for cls in dict.fromkeys(_classes_in(schema_class, set()))]
    return _digest(written) if any(text or methods for text, methods in written) else None


def _method_digests(cls: type) -> dict[str, list[str]]:
    found = {name: _functions_of(value) for name, value in vars(cls).items()}
    return {
        name: [FunctionSource(function).digest for function in functions if not _is_of_pydantic(function)]
        for name, functions in found.items()
        if any(not _is_of_pydantic(function) for function in functions)
    }


def _classes_in(cls: Any, seen: set[type]) -> Iterator[type]:
    """The user's classes that a Pydantic class is made of: itself, its bases, the models in its fields."""
    if cls in seen:
        return
    seen.add(cls)
    for base in cls.__mro__:
        if not _is_of_pydantic(base) and base.__module__.partition(".")[0] not in sys.stdlib_module_names:
            yield base
    for field in cls.model_fields.values():
        for nested in _schema_classes_in(field.annotation):
            yield from _classes_in(nested, seen)


def _schema_classes_in(annotation: Any) -> Iterator[type]:
    if is_schema_class(annotation):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _schema_classes_in(argument)


def _is_of_pydantic(code: Any) -> bool:
    return str(code.__module__).partition(".")[0] == "pydantic"


def source_text(function: Callable[..., Any]) -> str | None:
    """The function's or the class's source, dedented, or None where there is none to read (a prompt, a built-in)."""
    try:
        lines = inspect.getsource(function)
    except (OSError, TypeError, SyntaxError):
        return None
    return textwrap.dedent(lines.replace("\r\n", "\n")).strip()


def describe(value: Any) -> Any:
    """A JSON value that changes when ``value`` does and is the same in every process."""
    return _describe(value, ())


def _describe(value: Any, outer: tuple[int, ...]) -> Any:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return [kind, repr(value)]
    if id(value) in outer:
        return [kind, "itself"]
    outer = (*outer, id(value))
    if isinstance(value, (list, tuple)):
        return [kind, [_describe(item, outer) for item in value]]
    if isinstance(value, (set, frozenset)):
        return [kind, sorted((_describe(item, outer) for item in value), key=_canonical)]
    if isinstance(value, dict):
        pairs = ([_describe(key, outer), _describe(item, outer)] for key, item in value.items())
        return [kind, sorted(pairs, key=_canonical)]
    if isinstance(value, types.FunctionType):
        return [kind, source_text(value) or _code_parts(value.__code__), _closure(value, outer)]
    if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        return [kind, getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__)]
    return [kind, _pickle_digest(value)]


def _pickle_digest(value: Any) -> str | None:
    try:
        return hashlib.sha256(pickle.dumps(value, protocol=4)).hexdigest()
    except _PICKLE_ERRORS:
        return None  # locks, clients and the like: only their type counts


def _closure(function: Any, outer: tuple[int, ...] = ()) -> Any:
    outer = (*outer, id(function))
    return {name: _describe(value, outer) for name, value in closure_of(function).items()}


def closure_of(function: Any) -> dict[str, Any]:
    """The variables a function closes over, but for those not assigned yet."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    enclosed = {}
    for name, cell in zip(code.co_freevars, cells, strict=True) if code and cells else ():
        try:
            enclosed[name] = cell.cell_contents
        except ValueError:  # empty until the enclosing function assigns it
            continue
    return enclosed


def _parts(function: Any) -> Any:
    """What makes up a callable that is not a plain function."""
    if isinstance(function, functools.partial):
        return [_describe(part, ()) for part in (function.func, function.args, function.keywords)]
    if isinstance(function, types.MethodType):
        return [_describe(function.__func__, ()), _describe(function.__self__, ())]
    if isinstance(function, (type, types.BuiltinFunctionType)):
        return [function.__module__, function.__qualname__]
    return [_describe(type(function).__call__, ()), _describe(function, ())]


def _code_parts(code: types.CodeType) -> Any:
    constants = [_code_parts(c) if isinstance(c, types.CodeType) else _describe(c, ()) for c in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), constants]


def _functions_of(value: Any) -> list[types.FunctionType]:
    if isinstance(value, property):
        return [f for f in (value.fget, value.fset, value.fdel) if isinstance(f, types.FunctionType)]
    if isinstance(value, functools.cached_property):
        value = value.func
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    return [value] if isinstance(value, types.FunctionType) else []


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode("utf-8", "surrogatepass")).hexdigest()
