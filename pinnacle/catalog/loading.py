"""Puts a component together again from its record."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from pinnacle.backends.protocol import CatalogStore
from pinnacle.base.errors import ComponentError, ConfigError, ModelUnavailable, NotAuthenticated
from pinnacle.base.rows import Record
from pinnacle.base.settings import Settings
from pinnacle.catalog import pickles
from pinnacle.catalog.bodies import MALFORMED, Readers, decode
from pinnacle.catalog.references import MAIN_MODULES, Reference, Resolver
from pinnacle.components.artifact import Artifact
from pinnacle.components.component import Component, Origin, content_fields, loading
from pinnacle.components.run import Checkpoint, TrainingState
from pinnacle.components.source import SchemaSource

MAX_TOLD = 600
_SHA256 = re.compile("[0-9a-f]{64}")
_LOCAL = "which lives only in the process that added it; move it to a module and add it again"


class Loading:
    """One record on its way back to a component; ``nested`` loads the components in its fields."""

    def __init__(
        self,
        record: Record,
        store: CatalogStore,
        resolver: Resolver,
        settings: Settings,
        nested: Callable[[Mapping[str, Any]], Component],
        *,
        allow_pickle: bool,
    ) -> None:
        self.record, self.store, self.resolver, self.cache_dir = record, store, resolver, settings.cache_dir
        self.allow_pickle = allow_pickle
        self.origin = Origin(settings.grants, settings.allows_code_of(_owner(record)))
        self.label = f"{record.kind} {record.identifier!r} version {record.version}"
        self.readers = Readers(nested, self._artifact, self._function, self._schema_class, self._pickled)

    def component(self) -> Component:
        """A new object of the stored class with the stored fields and version.

        ComponentError, naming it, for a value of another type or shape than the class writes.
        """
        try:
            return self._made()
        except (NotAuthenticated, ModelUnavailable):
            raise
        except ComponentError as error:
            if self.record.identifier in str(error):
                raise
            raise type(error)(f"{self.label}: {error}") from error
        except (*MALFORMED, ConfigError) as error:
            told = str(error)[:MAX_TOLD] or type(error).__name__
            raise ComponentError(f"{self.label} cannot be made of what is stored: {told}") from error

    def _made(self) -> Component:
        if not isinstance(self.record.version, int):
            raise TypeError("its version is no number")
        cls = self._class()
        stored = self.record.body["fields"]
        self._check_fields(cls, stored)
        fields = {name: decode(value, self.readers) for name, value in stored.items()}
        with loading(self.origin):  # which its constructor may ask for
            component = cls(self.record.identifier, **fields)
        component.stored_origin, component.version = self.origin, self.record.version
        return component

    def _class(self) -> type[Component]:
        body = self.record.body
        reference = Reference(
            self.record.type, body.get("source"), body.get("local", False), body.get("distribution"),
            is_earlier="form" not in body,
        )  # fmt: skip
        cls = self.resolver.component_class(reference) or self._code(reference)
        if not (isinstance(cls, type) and issubclass(cls, Component)) or cls.kind != self.record.kind:
            raise ComponentError(
                f"{self.label} is stored as {self.record.type}, which is no class of {self.record.kind}s"
            )
        declared = getattr(cls, "version", None)
        if declared is not None and declared != body["fields"].get("code_version"):
            raise ComponentError(
                f"{self.label} is not of version {declared!r}, which {cls.__name__} has; run db.add(...) to store it "
                "as it is now as a new version"
            )
        return cls

    def _check_fields(self, cls: type[Component], stored: Mapping[str, Any]) -> None:
        fields = {field.name: field for field in content_fields(cls)}
        if unknown := sorted(set(stored) - set(fields)):
            raise ComponentError(
                f"{self.label} was stored with {', '.join(unknown)}, which {cls.__name__} no longer has; "
                "load it with the release that stored it, or add it again"
            )
        missing = dataclasses.MISSING
        lacking = [n for n, f in fields.items() if n not in stored and f.default is missing is f.default_factory]
        if lacking:
            raise ComponentError(
                f"{self.label} was stored without {', '.join(lacking)}, which {cls.__name__} needs "
                '(a secret is stored only as "env:NAME"); give the field a default, or add the component again'
            )

    def _artifact(self, stored: Mapping[str, Any]) -> Artifact:
        sha256 = stored["sha256"]
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ValueError("an artifact is named by no SHA-256")
        return Artifact.stored(
            sha256, int(stored["size"]), lambda: self.store.get_artifact(sha256), self.cache_dir,
            may_be_code=self.origin.may_run_code,
        )  # fmt: skip

    def _function(self, stored: Mapping[str, Any]) -> Any:
        older_text = None if "parts" in stored else stored.get("text")
        reference = Reference(
            stored["reference"], stored["digest"], stored["local"], older_text=older_text,
            is_earlier="form" not in stored,
        )  # fmt: skip
        return self.resolver.function(reference) or self._code(reference, _why_no_function(reference))

    def _schema_class(self, stored: Mapping[str, Any]) -> type:
        source = SchemaSource(decode(stored["schema"], self.readers), stored["digest"])
        reference = Reference(stored["reference"], source.identity, stored["local"])
        if (found := self.resolver.schema_class(reference)) is None:
            found = self._code(reference)
            source.keep_for(found)
        return found

    def _code(self, reference: Reference, why: str = _LOCAL) -> Any:
        """Code that this process cannot import: its pickle, where there is one and it is allowed."""
        sha256 = self.record.body.get("pickles", {}).get(reference.key)
        if sha256 is not None:
            return self._pickled(sha256)
        raise ComponentError(
            f"{self.label} was made from {reference.name}, {why}, or pass allow_pickle=True both to add and to load"
        )

    def _pickled(self, sha256: str) -> Any:
        if not self.allow_pickle:
            raise ComponentError(
                f"{self.label} holds pickled code, which runs when it is loaded; "
                "pass allow_pickle=True to load if you trust whoever can write to this database"
            )
        if self.resolver.trusted_modules is not None:
            raise ComponentError(f"{self.label} holds pickled code, which is never loaded while trusted_modules is set")
        content = Artifact.stored(sha256, 0, lambda: self.store.get_artifact(sha256), self.cache_dir).read()
        return pickles.load(content, self.record.body.get("python"))


def _owner(record: Record) -> str:
    """Whose consent counts: of what a fit saved, its model's."""
    is_saved = record.kind in (Checkpoint.kind, TrainingState.kind)
    return record.identifier.rpartition("/")[0] if is_saved else record.identifier


def _why_no_function(reference: Reference) -> str:
    """Why a local function cannot be imported, and what to do: it has no name, or none that leads to a component."""
    module_name, _, qualname = reference.name.partition(":")
    if module_name in MAIN_MODULES or not all(part.isidentifier() for part in qualname.split(".")):
        return _LOCAL
    return (
        f"a function that is reached through no component of {module_name}, and only components are loaded; "
        f"make the model itself a module-level variable of {module_name} (name = Model.from_function(...)), "
        "or decorate the function with @model, and add it again"
    )
