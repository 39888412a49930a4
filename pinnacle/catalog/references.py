"""Finds the classes and functions that stored components name, without running code from the database.

A class of pinnacle's own or of a plug-in goes by name; anything else by its import
reference ``module:qualname``, which must lead to a pinnacle component on this process's own
path. What no other process can import (``__main__``, lambdas, locals) is remembered here,
and found again in the process that added it.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Any

from pinnacle.base import forks
from pinnacle.base.entry_points import entry_points
from pinnacle.base.errors import ComponentError, MissingPlugin, UntrustedReference
from pinnacle.catalog.modules import import_module
from pinnacle.components.component import Component, content_fields
from pinnacle.components.function import FunctionModel
from pinnacle.components.source import FunctionSource, SchemaSource, is_schema_class

PLUGIN_GROUP = "pinnacle.models"
BUILT_IN = {"FunctionModel": "pinnacle.components.function:FunctionModel"}
MAIN_MODULES = ("__main__", "__mp_main__")

_live: dict[tuple[str, str], Any] = {}
_live_lock = forks.lock()


@dataclass(frozen=True)
class Reference:
    """How stored code is named. ``digest`` is None where its source is not the user's own.

    ``is_local``: no other process can import it. ``distribution``: the plug-in it comes with. ``parts``: digests of
    what the code consists of, by name. ``older_text``: the source of a function that was stored without these.
    ``earlier_digest``: what a pinnacle of an earlier form had as the digest. ``is_earlier``: ``digest`` is such a one.
    """

    name: str
    digest: str | None = None
    is_local: bool = False
    distribution: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    older_text: str | None = None
    earlier_digest: str | None = None
    is_earlier: bool = False

    @property
    def key(self) -> str:
        """What a pickle of this code is filed under."""
        return f"{self.name}#{self.digest}"


def reference_to_class(cls: type[Component], version: str | None = None) -> Reference:
    """How a component's class is stored; with a ``version`` that stands for its code, without that."""
    name = f"{cls.__module__}:{cls.__qualname__}"
    if _is_own(cls.__module__):
        return Reference(next((short for short, full in BUILT_IN.items() if full == name), name))
    if (plugin := _plugin_of(cls)) is not None:
        return Reference(plugin.name, distribution=plugin.dist.name if plugin.dist else None)
    is_local = cls.__module__ in MAIN_MODULES or _walk(sys.modules.get(cls.__module__), cls.__qualname__) is not cls
    if version is not None:
        return Reference(name, None, is_local)
    source = cls.class_source
    return Reference(name, source.digest, is_local, parts=source.parts, earlier_digest=source.earlier_digest)


def reference_to_function(function: Any, digest: str) -> Reference:
    """How a function is stored: by the name its module gives the component made of it, where there is one."""
    module_name = getattr(function, "__module__", None) or type(function).__module__
    qualname = getattr(function, "__qualname__", None) or f"{type(function).__qualname__}()"
    module = sys.modules.get(module_name)
    if module_name in MAIN_MODULES or module is None or "<lambda>" in qualname:
        return Reference(f"{module_name}:{qualname}", digest, is_local=True)
    if _is_made_of(_walk(module, qualname), function):
        return Reference(f"{module_name}:{qualname}", digest)
    for name, value in list(vars(module).items()):
        if _is_made_of(value, function):
            return Reference(f"{module_name}:{name}", digest)
    return Reference(f"{module_name}:{qualname}", digest, is_local=True)


def reference_to_schema_class(cls: type, source: SchemaSource) -> Reference:
    """How a Pydantic class is stored: by the name that its module gives it, where there is one."""
    module = sys.modules.get(cls.__module__)
    name = cls.__qualname__
    if module is not None and cls.__module__ not in MAIN_MODULES:
        names = [name, *(other for other, value in list(vars(module).items()) if value is cls)]
        if (found := next((each for each in names if _walk(module, each) is cls), None)) is not None:
            return Reference(f"{cls.__module__}:{found}", source.identity)
    return Reference(f"{cls.__module__}:{name}", source.identity, is_local=True)


def remember(reference: Reference, code: Any) -> None:
    """Keep local code reachable for `Resolver` for as long as this process lives."""
    with _live_lock:
        _live[reference.name, reference.digest or ""] = code


class Resolver:
    """Turns stored references back into code of this process."""

    def __init__(self, trusted_modules: tuple[str, ...] | None) -> None:
        self.trusted_modules = trusted_modules

    def component_class(self, reference: Reference) -> type[Component] | None:
        """The class of a component; None for local code that this process does not have.

        Raises MissingPlugin, UntrustedReference, or ComponentError when the class is gone or its source is not
        what was stored.
        """
        if ":" not in reference.name:
            found = self._by_name(reference)
        elif _is_own(reference.name):
            found = _attribute(_without_main(reference.name), is_trusted=True)
        elif (found := self._find(reference, lambda found: _class_digest(found, reference))) is None:
            return None
        if not (isinstance(found, type) and issubclass(found, Component)):
            raise _untrusted(reference.name, found)
        return found

    def function(self, reference: Reference) -> Callable[..., Any] | None:
        """The function inside the component that ``reference`` names; None and errors as for `component_class`."""
        found = self._find(reference, lambda found: _function_digest(found, reference))
        if isinstance(found, Component):
            return _function_for(found, reference)  # type: ignore[no-any-return]
        if found is None or reference.is_local:
            return found  # type: ignore[no-any-return]
        raise _untrusted(reference.name, found)

    def schema_class(self, reference: Reference) -> type | None:
        """The Pydantic class that ``reference`` names; None and errors as for `component_class`."""
        found = self._find(reference, _schema_identity, what="source or the schema")
        if found is None or is_schema_class(found):
            return found  # type: ignore[no-any-return]
        raise UntrustedReference(
            f"{reference.name} is {_what(found)} and no Pydantic model; only subclasses of pydantic.BaseModel are "
            "loaded as a schema"
        )

    def _by_name(self, reference: Reference) -> Any:
        if reference.name in BUILT_IN:
            return _attribute(BUILT_IN[reference.name], is_trusted=True)
        plugins = list(entry_points(group=PLUGIN_GROUP, name=reference.name))
        if not plugins:
            package = reference.distribution or reference.name
            raise MissingPlugin(package, package, purpose=f"components of type {reference.name}")
        same = [p for p in plugins if p.dist and p.dist.name == reference.distribution]
        return (same or plugins)[0].load()

    def _find(self, reference: Reference, digest_of: Callable[[Any], str | None], what: str = "source") -> Any:
        module_name, _, qualname = reference.name.partition(":")
        self._require_trust(module_name, reference.name)
        with _live_lock:
            live = _live.get((reference.name, reference.digest or ""))
        if live is not None:
            return live
        if reference.is_local:
            found = _walk(sys.modules.get("__main__"), qualname) if module_name in MAIN_MODULES else None
            return found if found is not None and reference.digest in (None, digest_of(found)) else None
        found = _attribute(reference.name, is_trusted=self.trusted_modules is not None)  # it would be refused above
        if reference.digest is not None and (digest := digest_of(found)) is not None and digest != reference.digest:
            raise ComponentError(
                f"the {what} of {reference.name} is not what this version was made from; "
                "run db.add(...) to store the code as it is now as a new version, and add again each listener that "
                "keeps to this one"
            )
        return found

    def _require_trust(self, module_name: str, reference: str) -> None:
        if self.trusted_modules is None:
            return
        if not any(module_name == trusted or module_name.startswith(f"{trusted}.") for trusted in self.trusted_modules):
            raise UntrustedReference(
                f"{reference} is outside of trusted_modules ({', '.join(self.trusted_modules) or 'none'}); "
                "add its module to PINNACLE_TRUSTED_MODULES to allow it"
            )


def _without_main(reference: str) -> str:
    """A reference into pinnacle itself; UntrustedReference for what runs when it is imported."""
    if "__main__" in reference.partition(":")[0].split("."):
        raise UntrustedReference(f"{reference} is in a module that is run and not imported")
    return reference


def _attribute(reference: str, *, is_trusted: bool) -> Any:
    """What a shared reference leads to; imports its module, and touches nothing else on the way."""
    module_name, _, qualname = reference.partition(":")
    found = _walk(import_module(module_name, reference, is_trusted=is_trusted), qualname)
    if found is None:
        raise ComponentError(
            f"{reference} is gone: {module_name} has no {qualname}; put it back, or remove the component"
        )
    return found


def _walk(holder: Any, qualname: str) -> Any:
    """Follow a dotted name through modules and classes by their own dictionaries: no code runs."""
    for part in qualname.split("."):
        if not isinstance(holder, (types.ModuleType, type)):
            return None
        holder = vars(holder).get(part)
    return holder


def _plugin_of(cls: type) -> EntryPoint | None:
    package = cls.__module__.partition(".")[0]
    for plugin in entry_points(group=PLUGIN_GROUP):
        if plugin.module.partition(".")[0] == package and plugin.attr == cls.__qualname__ and plugin.load() is cls:
            return plugin
    return None


def _is_own(name: str) -> bool:
    return name.partition(":")[0].partition(".")[0] == "pinnacle"


def _is_made_of(candidate: Any, function: Any) -> bool:
    return isinstance(candidate, Component) and any(value is function for value in _functions_in(candidate))


def _functions_in(component: Component) -> list[Any]:
    """The plain functions in a component's fields."""
    values = [getattr(component, field.name, None) for field in content_fields(type(component))]
    return [value for value in values if callable(value) and not isinstance(value, (type, Component))]


def _sources_of(component: Component) -> list[tuple[FunctionSource, Any]]:
    """The functions that a component is made of, each with its source."""
    if isinstance(component, FunctionModel):
        return [(component.source, component.function)]
    version = getattr(component, "code_version", None)
    return [(FunctionSource(function, version), function) for function in _functions_in(component)]


def _function_for(component: Component, reference: Reference) -> Any:
    """The function of a component that ``reference`` was made from; None where it has none with that code."""
    for source, function in _sources_of(component):
        if reference.digest == (source.earlier_digest if reference.is_earlier else source.digest):
            return function
        if reference.older_text is not None and source.is_written_as(reference.older_text):
            return function
    return None


def _class_digest(found: Any, reference: Reference) -> str | None:
    if not (isinstance(found, type) and issubclass(found, Component)):
        return None
    return found.class_source.earlier_digest if reference.is_earlier else found.class_source.digest


def _function_digest(found: Any, reference: Reference) -> str | None:
    """That of ``reference``, where the component has a function with its code; else the digest of one that it has."""
    if not isinstance(found, Component):
        return None
    if _function_for(found, reference) is not None:
        return reference.digest
    return next((source.digest for source, _ in _sources_of(found)), None)


def _schema_identity(found: Any) -> str | None:
    return SchemaSource.of(found).identity if is_schema_class(found) else None


def _what(found: Any) -> str:
    return "a function" if isinstance(found, types.FunctionType) else f"a {type(found).__name__}"


def _untrusted(reference: str, found: Any) -> UntrustedReference:
    return UntrustedReference(
        f"{reference} is {_what(found)} and no pinnacle component; only components are loaded "
        "(make a model of a function with @model)"
    )
