"""The base of everything `db.add` stores: a typed, versioned dataclass with an identifier."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from pinnacle.base.errors import ConfigError
from pinnacle.components.source import ClassSource

MAX_IDENTIFIER_LENGTH = 255
SECRET_PREFIX = "env:"


@dataclasses.dataclass
class Component:
    """Something with a name that can be stored, versioned and loaded again.

    Subclass it as a dataclass; every field that ``__init__`` takes is content, but for
    `operational` ones, and changed content is a new version. ``version`` is None until the
    component is stored or loaded.
    """

    kind: ClassVar[str] = "component"
    class_source: ClassVar[ClassSource]

    identifier: str
    version: int | None = dataclasses.field(init=False, default=None, compare=False, repr=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.class_source = ClassSource(cls)
        # @dataclass keeps a __repr__ that the class already has: every subclass hides its secrets.
        if "__repr__" not in vars(cls):
            cls.__repr__ = Component.__repr__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        check_identifier(self.identifier)

    def content(self) -> dict[str, Any]:
        """The fields that make this version what it is, by name; literal secrets are left out."""
        return {
            field.name: value
            for field in content_fields(type(self))
            if not is_literal_secret(field, value := getattr(self, field.name))
        }

    def learn(self, fields: Mapping[str, Any]) -> None:
        """Take over what was learned; a class that has loaded something of it overrides this to let go of it."""
        for name, value in fields.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in content_fields(type(self))
            if field.repr and not field.metadata.get("secret") and not _is_default(field, getattr(self, field.name))
        ]
        return f"{type(self).__name__}({', '.join([repr(self.identifier), *shown])})"


def secret(default: str | None = None) -> Any:
    """A dataclass field that is never stored or shown, but for the name in ``"env:NAME"``."""
    return dataclasses.field(default=default, repr=False, metadata={"secret": True, "operational": True})


def operational(default: Any, **options: Any) -> Any:
    """A dataclass field that says how a component is run and not what it computes.

    It is stored, and a change of it alone makes no new version: nothing is computed again for it.
    """
    return dataclasses.field(default=default, metadata={"operational": True}, **options)


def learned(default: Any = None, **options: Any) -> Any:
    """A dataclass field that `fit` fills in.

    A new component that has learned nothing yet is the same as a stored version of it that has: adding it, or
    predicting on rows with it, takes over what that version learned.
    """
    return dataclasses.field(default=default, metadata={"learned": True}, **options)


def is_learned(field: dataclasses.Field[Any]) -> bool:
    """Whether `fit` fills a field in."""
    return bool(field.metadata.get("learned"))


def is_operational(field: dataclasses.Field[Any]) -> bool:
    """Whether a field says how a component is run, and not what it computes."""
    return bool(field.metadata.get("operational"))


def resolved_secret(value: str | None, where: str) -> str | None:
    """A secret itself: what an ``"env:NAME"`` stands for. ConfigError where that variable is not set."""
    if value is None or not value.startswith(SECRET_PREFIX):
        return value
    name = value.removeprefix(SECRET_PREFIX)
    if name not in os.environ:
        raise ConfigError(f"{where} takes its key from the environment variable {name}, which is not set here")
    return os.environ[name]


def content_fields(cls: type[Component]) -> list[dataclasses.Field[Any]]:
    """The dataclass fields that are content, in the order of their declaration."""
    return [field for field in dataclasses.fields(cls) if field.init and field.name not in ("identifier", "version")]


def is_literal_secret(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field marked as secret holds the secret itself, and not where to find it."""
    if not field.metadata.get("secret") or value is None:
        return False
    return not (isinstance(value, str) and value.startswith(SECRET_PREFIX))


def keep_secrets(component: Component, of: Component) -> None:
    """Give ``component`` the literal secrets of another version of it: they are stored with none."""
    for field in content_fields(type(component)) if type(component) is type(of) else ():
        value = getattr(of, field.name)
        if is_literal_secret(field, value) and getattr(component, field.name) is None:
            setattr(component, field.name, value)


def check_identifier(identifier: Any) -> None:
    """Raise ConfigError for an identifier that some database could not keep."""
    if not isinstance(identifier, str) or not identifier.strip():
        raise ConfigError(f"identifier must be a non-empty string, not {identifier!r}")
    if len(identifier) > MAX_IDENTIFIER_LENGTH:
        raise ConfigError(f"identifier {identifier[:40]!r}... is longer than {MAX_IDENTIFIER_LENGTH} characters")
    if "\x00" in identifier or any("\ud800" <= character <= "\udfff" for character in identifier):
        raise ConfigError(f"identifier {identifier!r} holds a NUL or a lone surrogate, which no database keeps")


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        default: Any = field.default_factory()
    else:
        default = field.default
    # Arrays answer == with an array; only what is plainly equal is left out of a repr.
    return type(default) is type(value) and isinstance(value, (type(None), bool, int, float, str)) and default == value
