"""Takes a component apart into what is stored: its type, its fields as JSON, its artifacts."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from pinnacle.base.errors import ComponentError
from pinnacle.base.rows import Record
from pinnacle.catalog import pickles
from pinnacle.catalog.bodies import Hooks, canonical, digest_of, encode
from pinnacle.catalog.references import (
    Reference,
    reference_to_class,
    reference_to_function,
    reference_to_schema_class,
    remember,
)
from pinnacle.components.artifact import Artifact
from pinnacle.components.component import Component, content_fields, is_learned, is_operational
from pinnacle.components.function import FunctionModel
from pinnacle.components.source import FunctionSource, SchemaSource


@dataclasses.dataclass
class Draft:
    """A component that is ready to be stored under the next version."""

    component: Component
    type: Reference
    fields: dict[str, Any]
    artifacts: dict[str, Artifact]
    pickles: dict[str, str]
    local_code: list[tuple[Reference, Any]]
    defaults: Mapping[str, Any]
    operational: frozenset[str]
    learned: frozenset[str]

    @property
    def digest(self) -> str:
        """A hash of the content; pickles do not count, the source they were made from does."""
        return digest_of({"type": self.type.name, "fields": self.content, "source": self.type.digest})

    @property
    def content(self) -> dict[str, Any]:
        """The fields that make this version what it is, encoded."""
        return self._content(self.fields)

    def is_stored_as(self, record: Record) -> bool:
        """Whether ``record`` has this content already; fields it lacks count as their defaults."""
        if record.type != self.type.name or (self.pickles and not record.body.get("pickles")):
            return False
        if record.digest == self.digest:
            return True
        stored = self._content({**self.defaults, **record.body["fields"]})
        return record.body.get("source") == self.type.digest and canonical(stored) == canonical(
            self._content(self.fields)
        )

    def is_untaught(self, record: Record) -> bool:
        """Whether ``record`` differs only by what it has learned, and this draft has learned nothing."""
        if record.type != self.type.name or record.body.get("source") != self.type.digest:
            return False
        if any(self.fields[name] is not None for name in self.learned):
            return False
        stored = {**self.defaults, **record.body["fields"]}
        if all(stored.get(name) is None for name in self.learned):
            return False
        same = [
            canonical({name: value for name, value in self._content(fields).items() if name not in self.learned})
            for fields in (stored, self.fields)
        ]
        return same[0] == same[1]

    def amended(self, record: Record) -> Record | None:
        """``record``, which has this content, with the operational fields of now; None where these are as stored."""
        news = {name: value for name, value in self.fields.items() if name in self.operational}
        fields = record.body["fields"]
        if canonical({name: fields.get(name, self.defaults.get(name)) for name in news}) == canonical(news):
            return None
        return dataclasses.replace(record, body={**record.body, "fields": {**fields, **news}})

    def _content(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name not in self.operational}

    def record(self, version: int) -> Record:
        body = {
            "fields": self.fields,
            "source": self.type.digest,
            "local": self.type.is_local,
            "distribution": self.type.distribution,
            "pickles": self.pickles,
            "python": pickles.PYTHON if self.pickles else None,
            "purpose": getattr(self.component, "purpose", None),
        }
        body = {name: value for name, value in body.items() if name == "fields" or value}
        component = self.component
        return Record(
            component.kind, component.identifier, version, self.type.name, body, self.digest,
            artifacts=tuple(sorted(self.artifacts)),
        )  # fmt: skip

    def remember(self) -> None:
        """Keep code that only this process has within its reach."""
        for reference, code in self.local_code:
            remember(reference, code)


def draft_of(component: Component, *, nested: Callable[[Component], int], allow_pickle: bool) -> Draft:
    """Take ``component`` apart; ``nested`` stores a component in one of its fields and returns its version.

    Raises ComponentError naming the field that cannot be stored, and what to do instead.
    """
    return _Drafting(component, nested, allow_pickle).draft()


class _Drafting:
    def __init__(self, component: Component, nested: Callable[[Component], int], allow_pickle: bool) -> None:
        self.component, self.nested, self.allow_pickle = component, nested, allow_pickle
        self.artifacts: dict[str, Artifact] = {}
        self.pickles: dict[str, str] = {}
        self.local_code: list[tuple[Reference, Any]] = []
        self.hooks = Hooks(self._component, self._artifact, self._function, self._schema_class, self._other)

    def draft(self) -> Draft:
        cls = type(self.component)
        reference = reference_to_class(cls)
        if reference.is_local:
            self._keep_local(reference, cls, f"the class {cls.__qualname__}")
        fields = {name: self._field(name, value) for name, value in self.component.content().items()}
        return Draft(
            self.component, reference, fields, self.artifacts, self.pickles, self.local_code, self._defaults(cls),
            frozenset(field.name for field in content_fields(cls) if is_operational(field)),
            frozenset(field.name for field in content_fields(cls) if is_learned(field)),
        )  # fmt: skip

    def _field(self, name: str, value: Any) -> Any:
        path = f"{self.component.kind} {self.component.identifier!r}: field {name!r}"
        if isinstance(self.component, FunctionModel) and name == "function":
            return {"@function": self._function(value, path)}
        try:
            return encode(value, self.hooks, path)
        except RecursionError as error:
            raise ComponentError(f"{path} holds itself, or is nested too deeply to be stored") from error

    def _defaults(self, cls: type[Component]) -> dict[str, Any]:
        """The encoded defaults of fields with plain ones."""
        plain = {f.name: f.default for f in content_fields(cls)}
        return {
            n: encode(d, self.hooks, n) for n, d in plain.items() if d is None or type(d) in (bool, int, float, str)
        }

    def _component(self, component: Component, path: str) -> Any:
        version = self.nested(component)
        return {"kind": component.kind, "identifier": component.identifier, "version": version}

    def _artifact(self, artifact: Artifact, path: str) -> Any:
        self.artifacts[artifact.sha256] = artifact
        return {"sha256": artifact.sha256, "size": artifact.size}

    def _function(self, function: Any, path: str) -> Any:
        is_own = isinstance(self.component, FunctionModel) and function is self.component.function
        source = self.component.source if is_own else FunctionSource(function)  # type: ignore[attr-defined]
        reference = reference_to_function(function, source.digest)
        if reference.is_local:
            self._keep_local(reference, function, path)
        stored = {"reference": reference.name, "digest": source.digest, "local": reference.is_local}
        return stored | ({"text": source.text} if source.text else {})

    def _schema_class(self, cls: type, path: str) -> Any:
        source = SchemaSource.of(cls)
        reference = reference_to_schema_class(cls, source)
        if reference.is_local:
            self._keep_local(reference, cls, path)
        schema = encode(source.schema, self.hooks, path)
        return {"reference": reference.name, "schema": schema, "digest": source.digest, "local": reference.is_local}

    def _other(self, value: Any, path: str) -> Any:
        if self.allow_pickle:
            return {"@pickle": self._pickle(value, path, key=None)}
        raise ComponentError(f"{path} holds a {type(value).__name__}, which cannot be stored; {_remedy(value)}")

    def _keep_local(self, reference: Reference, code: Any, path: str) -> None:
        self.local_code.append((reference, code))
        if self.allow_pickle:
            self._pickle(code, path, key=reference.key)

    def _pickle(self, value: Any, path: str, key: str | None) -> str:
        artifact = Artifact(pickles.dump(value, path))
        self.artifacts[artifact.sha256] = artifact
        self.pickles[key or artifact.sha256] = artifact.sha256
        return artifact.sha256


def _remedy(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return "store its .value and look the member up when it is used"
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        return "keep numbers as a list, or large ones as Artifact(...)"
    if dataclasses.is_dataclass(value):
        return "make it a Component, or keep its fields in a dict"
    return (
        "create it when it is first used and keep it out of the fields (field(init=False)), "
        "or pass allow_pickle=True to add and to load"
    )
