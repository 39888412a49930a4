"""Tells whether code is still the code it was: digests of the source of functions and classes.

What counts is the code of the function or of the class's own methods, its defaults, what it
closes over, and the code of all that it uses of its own module: constants, helper functions,
classes, what those use, and all that may change these (`influences`). Comments, docstrings that
nobody reads and layout do not count, nor does what is imported from elsewhere, but for its name.
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

from pinnacle.components.code import ModuleCode, parsed, plain
from pinnacle.components.influences import DOCUMENTS, Influences, written

# What pickling an arbitrary object of the user's may raise.
_PICKLE_ERRORS = (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, NotImplementedError)


FORM = 2
"""How digests are made. Those of an earlier form lack what has an influence on code; they are `earlier_digest`."""


# Where a module lies, which is elsewhere for every process.
_PLACES = frozenset({"__file__", "__name__", "__path__", "__cached__"})


class FunctionSource:
    """A callable's source as it was when this object was made (files may be edited later).

    ``version``: what its user calls the function as it is now; where it is given, it alone counts.
    """

    def __init__(self, function: Callable[..., Any], version: str | None = None) -> None:
        self._function, self._version = function, version
        self.text = source_text(function)
        if (plain := written(function)) is not None:
            ModuleCode.of(plain)  # read now
        self._defaults = [describe(getattr(function, name, None)) for name in ("__defaults__", "__kwdefaults__")]

    @functools.cached_property
    def parts(self) -> dict[str, str]:
        """Digests of what counts, by name: the function itself, what it uses of its module, what it was given."""
        return {name: part for name, part in self._earlier_parts.items() if name not in _PLACES} | self.influences

    @functools.cached_property
    def influences(self) -> dict[str, str]:
        """Of these what an earlier form did not count."""
        if self._version is not None:
            return {}
        influences = Influences(self._earlier_parts)
        influences.add_callable(self._function)
        return {part: _digest(value) for part, value in influences.parts.items()}

    @functools.cached_property
    def _earlier_parts(self) -> dict[str, str]:
        name = getattr(self._function, "__qualname__", type(self._function).__qualname__)
        if self._version is not None:
            return {f"version of {name}": self._version}
        found = _parts(self._function)
        if self._defaults != [describe(None)] * 2:
            found[f"the defaults of {name}"] = self._defaults
        if closed := _closure(self._function):
            found |= {f"{variable}, which {name} closes over,": value for variable, value in closed.items()}
        return {part: _digest(value) for part, value in found.items()}

    @functools.cached_property
    def digest(self) -> str:
        """A hex digest that changes when any of the parts does."""
        return _digest(self.parts)

    @functools.cached_property
    def earlier_digest(self) -> str:
        """What ``digest`` was of this code before `FORM` 2."""
        return _digest(self._earlier_parts)

    def is_written_as(self, text: str | None) -> bool:
        """Whether the function's own code is that of ``text``, whatever the layout."""
        if text is None or self.text is None:
            return text == self.text
        values = getattr(written(self._function), "__globals__", {})
        mine, other = parsed(self.text), parsed(text)
        if mine is None or other is None:
            return text == self.text
        return plain(mine, values) == plain(other, values)  # type: ignore[no-any-return]


class ClassSource:
    """The source of a class's own body: methods by their code, other attributes by their value."""

    def __init__(self, cls: type) -> None:
        self._name = cls.__qualname__
        self._bases = [base for base in cls.__bases__ if hasattr(base, "class_source")]
        self._methods: dict[str, list[FunctionSource]] = {}
        self._values: dict[str, Any] = {}
        self._module: ModuleCode | None = None
        if cls.__module__.partition(".")[0] == "pinnacle":
            return
        self._module = _module_of(cls)
        self._module_name = cls.__module__
        self._mixins = frozenset(base.__name__ for base in cls.__bases__ if not hasattr(base, "class_source"))
        for name, value in vars(cls).items():
            if functions := _functions_of(value):
                self._methods[name] = [FunctionSource(function) for function in functions]
            elif name != "version" and not name.startswith("__") and not name.startswith("_abc_"):
                self._values[name] = describe(value)

    @functools.cached_property
    def parts(self) -> dict[str, str]:
        """Digests of what counts, by name: methods, what these use of their module, other attributes, base classes."""
        found: dict[str, str] = {}
        for base in self._bases:
            found |= base.class_source.parts
        for name, value in self._values.items():
            found[f"{self._name}.{name}"] = _digest(value)
        for sources in self._methods.values():
            for source in sources:
                found |= source.parts
        return found | self._influences

    @functools.cached_property
    def _influences(self) -> dict[str, str]:
        if self._module is None:
            return {}
        influences = Influences()
        values = vars(sys.modules.get(self._module_name, object))
        influences.add_class(self._name, self._mixins, self._module, values)
        return {part: _digest(value) for part, value in influences.parts.items()}

    @functools.cached_property
    def digest(self) -> str:
        """A hex digest of this class and of those it inherits from, pinnacle's own excepted."""
        methods = {name: [source.digest for source in sources] for name, sources in self._methods.items()}
        inherited = [base.class_source.digest for base in self._bases]
        own = [methods, self._values, inherited]
        return _digest([*own, self._influences] if self._influences else own)

    @functools.cached_property
    def earlier_digest(self) -> str:
        """What ``digest`` was of this class before `FORM` 2."""
        methods = {name: [source.earlier_digest for source in sources] for name, sources in self._methods.items()}
        return _digest([methods, self._values, [base.class_source.earlier_digest for base in self._bases]])


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
    classes = list(dict.fromkeys(_classes_in(schema_class, set())))
    written: list[Any] = [[_class_code(cls), _method_digests(cls)] for cls in classes]
    if not any(code or methods for code, methods in written):
        return None
    influences = [found for cls in classes if (found := _method_influences(cls))]
    return _digest([*written, influences] if influences else written)


def _class_code(cls: type) -> Any:
    """A class's code, whatever its layout; None where there is no source of it."""
    text = source_text(cls)
    tree = None if text is None else parsed(text)
    return text if tree is None else plain(tree, vars(sys.modules.get(cls.__module__, object)))


def _module_of(cls: type) -> ModuleCode | None:
    """The code of the module that a class stands in, as it is now."""
    module = sys.modules.get(cls.__module__)
    for value in vars(cls).values():
        for function in _functions_of(value):
            if function.__module__ == cls.__module__:
                return ModuleCode.of(function)
    file = getattr(module, "__file__", None)
    return None if module is None or file is None else ModuleCode.of_file(file, vars(module))


def _method_digests(cls: type) -> dict[str, list[str]]:
    found = {name: _functions_of(value) for name, value in vars(cls).items()}
    return {
        name: [FunctionSource(function).earlier_digest for function in functions if not _is_of_pydantic(function)]
        for name, functions in found.items()
        if any(not _is_of_pydantic(function) for function in functions)
    }


def _method_influences(cls: type) -> dict[str, str]:
    """What has an influence on validators, but for docstrings, which nobody reads."""
    functions = [each for value in vars(cls).values() for each in _functions_of(value) if not _is_of_pydantic(each)]
    found: dict[str, str] = {}
    for function in functions:
        found |= {name: part for name, part in FunctionSource(function).influences.items() if name != DOCUMENTS}
    return found


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
        return [kind, _code_of(value), _closure(value, outer)]
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


def _parts(function: Any) -> dict[str, Any]:
    """What makes up a callable, by name: a plain function's code, another's with what it was given."""
    if isinstance(function, types.FunctionType):
        return _code_of(function)
    if isinstance(function, functools.partial):
        return _parts(function.func) | {"the arguments of its partial": describe([function.args, function.keywords])}
    if isinstance(function, types.MethodType):
        return _parts(function.__func__) | {f"the {type(function.__self__).__name__}": describe(function.__self__)}
    if isinstance(function, (type, types.BuiltinFunctionType)):
        return {function.__qualname__: [function.__module__, function.__qualname__]}
    kind = type(function)
    return _code_of(kind.__call__) | {f"the {kind.__name__}": describe(function)}


def _code_of(function: Any) -> dict[str, Any]:
    """The code of a function and of all that it uses of its module, by name; empty for what is no plain function."""
    found: dict[str, Any] = {}
    if isinstance(function, types.FunctionType) and (own := written(function)) is not None:
        _add_function(found, own)
    return found


def _add_function(found: dict[str, Any], function: types.FunctionType) -> None:
    code, module, values = function.__code__, ModuleCode.of(function), function.__globals__
    if (tree := module.function(code)) is None:
        found[function.__qualname__] = _code_parts(code)
        names = _names_of(code)
    else:
        found[function.__qualname__] = module.plain(tree, values)
        names = module.names_in(tree, values)
    _add_names(found, names - set(code.co_freevars), module, values)


def _add_names(found: dict[str, Any], names: set[str], module: ModuleCode, values: Mapping[str, Any]) -> None:
    """Add what global names stand for, by the code that gives them their value, and what that code uses in turn.

    Not by the values themselves, which may be another in every process. Only where there is no such code
    (names of other cells of a notebook), plain values count.
    """
    for name in sorted(names - found.keys()):
        if definitions := module.definitions(name):
            found[name] = [module.plain(definition, values) for definition in definitions]
            for definition in definitions:
                _add_names(found, module.names_in(definition, values), module, values)
        elif name not in values or name in found:
            continue
        elif (own := written(value := values[name])) is not None and own.__globals__ is values:
            _add_function(found, own)
        elif value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            found[name] = describe(value)


def _names_of(code: types.CodeType) -> set[str]:
    nested = [_names_of(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*nested)


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
