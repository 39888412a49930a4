"""What the installed libraries' training takes, read from their source: to import them takes seconds."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pinnacle import ConfigError, MissingPlugin

METHODS = ("sft", "dpo")
STRATEGIES = ("eval_strategy", "evaluation_strategy", "save_strategy", "logging_strategy")
TOKENS = frozenset({"token", "use_auth_token", "hub_token", "api_key"})
_CONFIGS = {"sft": "SFTConfig", "dpo": "DPOConfig"}
_TYPES = {"int", "float", "bool", "str", "None"}
_LOOSELY_DECLARED = {"fsdp", "resume_from_checkpoint"}
"""They take True as well, whatever their annotation says."""


def config_class(method: str) -> Any:
    """trl's own class of arguments; MissingPlugin where a library is not installed."""
    try:
        import trl
    except ImportError as error:
        raise _missing(error.name or "trl") from error
    return getattr(trl, _CONFIGS[method])


@functools.cache
def arguments_of(method: str) -> Mapping[str, str]:
    """The annotation of every argument that trl's config class takes, by name."""
    base = _declared("transformers", "training_args.py", "TrainingArguments")
    shared = _declared("trl", "trainer/base_config.py", "_BaseConfig")
    own = _declared("trl", f"trainer/{method}_config.py", _CONFIGS[method])
    if base and own:
        return {**base, **shared, **own}
    # The libraries keep them elsewhere by now: ask the class itself.
    fields = [field for field in dataclasses.fields(config_class(method)) if field.init]
    return {field.name: getattr(field.type, "__name__", str(field.type)) for field in fields}


def known_arguments() -> set[str]:
    """What some method takes."""
    return {name for method in METHODS for name in arguments_of(method)}


def default_of(method: str, name: str) -> Any:
    """The library's default; KeyError where the method has no such argument."""
    fields = {field.name: field for field in dataclasses.fields(config_class(method))}
    field = fields[name]
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def plain(name: str, value: Any) -> Any:
    """A value as JSON has it: an enum's value, a path's text, a dtype's name. ConfigError for what has no such form."""
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or type(value) in (bool, int, float, str):
        return _strategy(value) if name in STRATEGIES and isinstance(value, bool) else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {key: each for key, each in dataclasses.asdict(value).items() if each is not None}
    if isinstance(value, Mapping):
        return {_key(name, key): plain(name, each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(name, each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(name, each) for each in value)
    if type(value).__module__ == "torch" and type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy's
        return plain(name, value.item())
    raise ConfigError(f"{name} is a number, a text, or a list or dict of these, and not a {type(value).__name__}")


def checked(name: str, annotation: str, value: Any) -> Any:
    """``value``, where it is of the declared type; whole floats count as ints. ConfigError elsewhere."""
    types = set(annotation.split(" | "))
    if not types <= _TYPES or name in _LOOSELY_DECLARED:
        return value
    kind = type(value).__name__.replace("NoneType", "None")
    if kind in types or (kind == "int" and "float" in types):
        return value
    if kind == "float" and "int" in types and value.is_integer():
        return int(value)
    raise ConfigError(f"{name} is of type {annotation.replace(' | ', ' or ')}, and {value!r} is not")


def _strategy(value: bool) -> str:
    return "steps" if value else "no"


def _key(name: str, key: Any) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{name} is a dict whose keys are texts, and {key!r} is none")
    if key in TOKENS:
        raise ConfigError(f"{name} holds a {key!r}, which would be stored; log in to the hub, or pass hub_token=")
    return key


def _declared(package: str, file: str, name: str) -> dict[str, str]:
    """Fields that a dataclass declares itself, with their annotations; none where it is not in that file."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    path = Path(spec.submodule_search_locations[0], file)
    module = ast.parse(path.read_bytes()) if path.is_file() else ast.Module([], [])
    found = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name]
    fields = [node for cls in found for node in cls.body if isinstance(node, ast.AnnAssign)]
    return {
        node.target.id: ast.unparse(node.annotation)
        for node in fields
        if isinstance(node.target, ast.Name) and not node.target.id.startswith("_") and _is_taken(node.value)
    }


def _is_taken(default: ast.expr | None) -> bool:
    """Whether ``__init__`` takes the field."""
    keywords = default.keywords if isinstance(default, ast.Call) else []
    return not any(word.arg == "init" and ast.unparse(word.value) == "False" for word in keywords)


def _missing(package: str) -> MissingPlugin:
    return MissingPlugin(package, "pinnacle-transformers", purpose="LLMTrainingConfiguration")
