"""The base of everything `db.add` stores: a typed, versioned dataclass with an identifier."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pinnacle.base import destinations, redaction
from pinnacle.base.destinations import SECRET_PREFIX, Destination, Grants
from pinnacle.base.errors import ConfigError
from pinnacle.components.source import ClassSource

MAX_IDENTIFIER_LENGTH = 255


@dataclasses.dataclass(frozen=True)
class Origin:
    """Of what came from a database: where the process lets its secrets go, and whether it lets it run code."""

    granted: Grants
    may_run_code: bool = False


@dataclasses.dataclass
class Component:
    """Something with a name that can be stored, versioned and loaded again.

    Subclass it as a dataclass; every field that ``__init__`` takes is content, but for
    `operational` ones, and changed content is a new version. ``version`` is None until the
    component is stored or loaded.

    ``stored_origin`` is set on what came from a database, and a copy that `dataclasses.replace` makes of it has it too;
    None: code of this process made it.
    """

    kind: ClassVar[str] = "component"
    class_source: ClassVar[ClassSource]
    identifier: str
    version: int | None = dataclasses.field(init=False, default=None, compare=False, repr=False)
    stored_origin: Origin | None = dataclasses.field(default=None, compare=False, repr=False, kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.class_source = ClassSource(cls)
        # @dataclass keeps a __repr__ that the class already has: every subclass hides its secrets.
        if "__repr__" not in vars(cls):
            cls.__repr__ = Component.__repr__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        check_identifier(self.identifier)
        self.stored_origin = origin_of(self)

    @property
    def granted(self) -> Grants | None:
        """Where the secrets of one that came from a database may go; None: wherever it says."""
        return None if (origin := origin_of(self)) is None else origin.granted

    def content(self) -> dict[str, Any]:
        """The fields that make this version what it is, by name; literal secrets are left out."""
        return {
            field.name: value
            for field in content_fields(type(self))
            if not is_literal_secret(field, value := getattr(self, field.name))
        }

    def destination(self) -> Destination:
        """Where what is secret goes: here the code of the class, with all that it is given."""
        return code_of(type(self), self.content())

    def secret_names(self) -> set[str]:
        """The environment variables that hold what is secret."""
        held = [getattr(self, field.name) for field in content_fields(type(self)) if field.metadata.get("secret")]
        return {value.removeprefix(SECRET_PREFIX) for value in held if is_secret_name(value)}

    def vouch(self) -> None:
        """Have it known that this process sends its secrets there, so that a loaded copy of it may too."""
        if self.granted is None and (names := self.secret_names()):
            with contextlib.suppress(ConfigError):  # an address that only its author can mean
                destination = self.destination()
                for name in names:
                    destinations.say(name, destination)

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


def code_of(code: Any, given: Mapping[str, Any]) -> Destination:
    """A class or function as a destination, with what it is given that may decide where it goes: no number does."""
    named = code if hasattr(code, "__qualname__") else type(code)
    told = repr(_leading(given))
    digest = hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()
    return Destination(f"{named.__module__}:{named.__qualname__}", digest)


def _leading(value: Any) -> Any:
    """A value without its numbers, and in one order, whatever the order of its keys."""
    if isinstance(value, Mapping):
        return sorted(((str(name), _leading(item)) for name, item in value.items()), key=lambda pair: pair[0])
    if isinstance(value, (list, tuple)):
        return [_leading(item) for item in value]
    return None if isinstance(value, (int, float)) else value


@contextlib.contextmanager
def loading(origin: Origin) -> Iterator[None]:
    """Components that are made meanwhile came from a database."""
    token = _loading.set(origin)
    try:
        yield
    finally:
        _loading.reset(token)


_loading: contextvars.ContextVar[Origin | None] = contextvars.ContextVar("loading", default=None)


def resolved_secret(value: str | None, component: Component) -> str | None:
    """A secret itself: what an ``"env:NAME"`` of a component stands for.

    ConfigError where that variable is not set, or where the component came from a database and this process does not
    allow it to send this variable there: it names the setting that would.
    """
    if value is None or not is_secret_name(value):
        redaction.know(value or "")
        return value
    name, where = value.removeprefix(SECRET_PREFIX), f"{component.kind} {component.identifier!r}"
    if component.granted is not None and not component.granted.allows(name, there := component.destination()):
        raise ConfigError(
            f"{where} was loaded from the database, which alone does not decide that {name} is sent to "
            f"{there.setting}: set {destinations.setting_for(name, there)} in this process if that is meant"
        )
    if name not in os.environ:
        raise ConfigError(f"{where} takes its key from the environment variable {name}, which is not set here")
    redaction.know(held := os.environ[name])
    return held


def with_secrets(value: Any, component: Component) -> Any:
    """A value, however nested, with what its ``"env:NAME"`` stand for; raises what `resolved_secret` does."""
    if isinstance(value, Mapping):
        return {name: with_secrets(item, component) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(with_secrets(item, component) for item in value)
    return resolved_secret(value, component) if is_secret_name(value) else value


def secret_names_in(value: Any) -> set[str]:
    """The variables that a value names, however nested."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return {name for item in value for name in secret_names_in(item)}
    return {value.removeprefix(SECRET_PREFIX)} if is_secret_name(value) else set()


def is_secret_name(value: Any) -> bool:
    """Whether a value says which environment variable holds a secret."""
    return isinstance(value, str) and value.startswith(SECRET_PREFIX)


_NO_CONTENT = ("identifier", "version", "stored_origin")


def content_fields(cls: type[Component]) -> list[dataclasses.Field[Any]]:
    """The dataclass fields that are content, in the order of their declaration."""
    return [field for field in dataclasses.fields(cls) if field.init and field.name not in _NO_CONTENT]


def origin_of(component: Component) -> Origin | None:
    """Its ``stored_origin``, which its constructor may ask for too; None where code of this process makes it."""
    return component.stored_origin or _loading.get()


def is_literal_secret(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field marked as secret holds the secret itself, and not where to find it."""
    if not field.metadata.get("secret") or value is None:
        return False
    return not is_secret_name(value)


def literal_secrets(component: Component) -> dict[str, Any]:
    """The fields that hold a secret itself, by name."""
    held = {field: getattr(component, field.name) for field in content_fields(type(component))}
    return {field.name: value for field, value in held.items() if is_literal_secret(field, value)}


def keep_secrets(component: Component, of: Component) -> None:
    """Give ``component`` the literal secrets of another version of it, which sends them to the same place: they are
    stored with none."""
    if type(component) is not type(of) or (component.granted is not None and not _go_to_one_place(component, of)):
        return
    for field in content_fields(type(component)):
        value = getattr(of, field.name)
        if is_literal_secret(field, value) and getattr(component, field.name) is None:
            setattr(component, field.name, value)


def _go_to_one_place(component: Component, other: Component) -> bool:
    try:
        return component.destination() == other.destination()
    except ConfigError:
        return False


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
