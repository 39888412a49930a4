"""Takes a component apart into what is stored: its type, its fields as JSON, its artifacts."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pinnacle.base.errors import ComponentError
from pinnacle.base.rows import Record
from pinnacle.catalog import pickles
from pinnacle.catalog.bodies import FUNCTIONS, Hooks, canonical, digest_of, encode
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
from pinnacle.components.model import Model
from pinnacle.components.source import FORM, FunctionSource, SchemaSource

OLDER_FORM = "the code of its class, which an earlier pinnacle compared by its text"


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
    sources: Mapping[str, FunctionSource]
    renewed: Mapping[str, str]
    """The digests of its functions by those that an earlier form had of the same code."""

    @property
    def digest(self) -> str:
        """A hash of the content; pickles do not count, the source they were made from does."""
        return digest_of({"type": self.type.name, "fields": self.content, "source": self.type.digest})

    @property
    def content(self) -> dict[str, Any]:
        """The fields that make this version what it is, encoded; functions by their digests."""
        return self._content(self.fields)

    @property
    def code_version(self) -> str | None:
        """What the user calls the state of a model, where that alone decides whether it has changed."""
        return getattr(self.component, "code_version", None)

    def is_stored_as(self, record: Record) -> bool:
        """Whether ``record`` has this content already; fields it lacks count as their defaults."""
        if record.type != self.type.name or (self.pickles and not record.body.get("pickles")):
            return False
        return record.digest == self.digest or not self.changes(record)

    def changes(self, record: Record) -> list[str]:
        """What is another than in ``record``, a version of the same component, named for people."""
        if record.type != self.type.name:
            return [f"its class: {record.type} became {self.type.name}"]
        stored = {**self.defaults, **record.body["fields"]}
        before, now = self._content(stored), self._content(self.fields)
        names = [name for name in sorted(before | now) if canonical(before.get(name)) != canonical(now.get(name))]
        found = [] if self._is_of_class(record) else self._code_changes(record.body)
        for name in names:
            functions = [_function_in(fields.get(name)) for fields in (stored, self.fields)]
            if functions[0] is None or functions[1] is None:
                found.append(name)
            elif not self._is_older_form(functions[0], name):
                found += changed_parts(functions[0].get("parts", ()), functions[1]["parts"]) or [name]
        return found

    def _is_of_class(self, record: Record) -> bool:
        """Whether the code of the class is as it was; a digest of an earlier form is compared with such a one."""
        stored = record.body.get("source")
        return stored == (self.type.earlier_digest if self._is_earlier(record.body) else self.type.digest)

    def _is_earlier(self, stored: Mapping[str, Any]) -> bool:
        """Whether a class is stored with digests of an earlier form."""
        return stored.get("source") is not None and self.type.digest is not None and "form" not in stored

    def _code_changes(self, body: Mapping[str, Any]) -> list[str]:
        if self.code_version is not None:
            return []
        if "parts" not in body:
            return [OLDER_FORM]
        return changed_parts(body["parts"], sorted(self.type.parts.items())) or ["its class's code"]

    def _is_older_form(self, function: Mapping[str, Any], name: str) -> bool:
        """Whether a stored function is of a pinnacle that compared texts, and has the code of now."""
        source = self.sources.get(name)
        return "parts" not in function and source is not None and source.is_written_as(function.get("text"))

    def is_untaught(self, record: Record) -> bool:
        """Whether ``record`` differs only by what it has learned, and this draft has learned nothing."""
        if record.type != self.type.name or not self._is_of_class(record):
            return False
        if self.code_version is None and record.body["fields"].get("code_version") is not None:
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
        """``record``, which has this content, with what of now does not count as content; None where that is as stored.

        These are the operational fields, functions that were stored in an older form, and all of a model that has a
        ``code_version``.
        """
        fields = record.body["fields"]
        is_all = self.code_version is not None
        news = {
            name: value
            for name, value in self.fields.items()
            if is_all or name in self.operational or self._is_older_form(_function_in(fields.get(name)) or {}, name)
            or has_earlier_form(fields.get(name))
        }  # fmt: skip
        code = self._code() if self._is_earlier(record.body) else {}
        same = canonical({name: fields.get(name, self.defaults.get(name)) for name in news}) == canonical(news)
        if same and not code:
            return None
        pickled = {self._renewed_key(key): sha256 for key, sha256 in record.body.get("pickles", {}).items()}
        body = {**record.body, **code, "fields": {**fields, **news}, **({"pickles": pickled} if pickled else {})}
        return dataclasses.replace(record, body=body)

    def _renewed_key(self, key: str) -> str:
        """What a pickle is filed under, by the digest that its code has now."""
        name, mark, digest = key.rpartition("#")
        return f"{name}{mark}{self.renewed.get(digest, digest)}"

    def _code(self) -> dict[str, Any]:
        """What is stored of a class's code."""
        return {"source": self.type.digest, "parts": sorted(self.type.parts.items()), "form": FORM}

    def _content(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        content = {
            name: compared(value, self.renewed) for name, value in fields.items() if name not in self.operational
        }
        if self.code_version is None:
            return content
        return {
            name: value
            for name, value in content.items()
            if name == "code_version" or name in self.learned or '"@artifact"' in canonical(value)
        }

    def record(self, version: int) -> Record:
        body = {
            "fields": self.fields,
            **(self._code() if self.type.digest else {}),
            "local": self.type.is_local,
            "distribution": self.type.distribution,
            "pickles": self.pickles,
            "python": pickles.PYTHON if self.pickles else None,
            "purpose": getattr(self.component, "purpose", None),
            "returns": _returns(self.component),
        }
        body = {name: value for name, value in body.items() if name == "fields" or value}
        component = self.component
        return Record(
            kind=component.kind,
            identifier=component.identifier,
            version=version,
            type=self.type.name,
            body=body,
            digest=self.digest,
            artifacts=tuple(sorted(self.artifacts)),
        )

    def remember(self) -> None:
        """Keep code that only this process has within its reach."""
        for reference, code in self.local_code:
            remember(reference, code)


def _returns(component: Component) -> Any:
    """What a model returns, where that is told without loading anything."""
    told = component.told_output_type() if isinstance(component, Model) else None
    return None if told is None else told.to_json()


def compared(value: Any, renewed: Mapping[str, str]) -> Any:
    """An encoded value as it is compared: of functions what names them and their digests, not their texts.

    ``renewed`` has the digest of now for one of an earlier form.
    """
    if isinstance(value, list):
        return [compared(item, renewed) for item in value]
    if not isinstance(value, dict):
        return value
    if "@function" in value:
        function = value["@function"]
        digest = function.get("digest")
        digest = digest if "form" in function else renewed.get(digest, digest)
        return {"@function": {"reference": function.get("reference"), "digest": digest, "local": function.get("local")}}
    return {name: compared(item, renewed) for name, item in value.items()}


def has_earlier_form(value: Any) -> bool:
    """Whether an encoded value holds a function with a digest of an earlier form."""
    if isinstance(value, list):
        return any(map(has_earlier_form, value))
    if not isinstance(value, dict):
        return False
    if "@function" in value:
        return "form" not in value["@function"]
    return any(map(has_earlier_form, value.values()))


def changed_parts(before: Iterable[Sequence[str]], now: Iterable[Sequence[str]]) -> list[str]:
    """What of a function's or a class's code is another, or was there before, or is new."""
    old, new = ({str(name): digest for name, digest in parts} for parts in (before, now))
    return [name for name in sorted(old | new) if old.get(name) != new.get(name)]


def _function_in(value: Any) -> Mapping[str, Any] | None:
    return value["@function"] if isinstance(value, Mapping) and "@function" in value else None


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
        self.sources: dict[str, FunctionSource] = {}
        self.renewed: dict[str, str] = {}
        self.code_version: str | None = getattr(component, "code_version", None)
        self.hooks = Hooks(self._component, self._artifact, self._function, self._schema_class, self._other)

    def draft(self) -> Draft:
        cls = type(self.component)
        reference = reference_to_class(cls, self.code_version)
        if reference.is_local:
            self._keep_local(reference, cls, f"the class {cls.__qualname__}")
        if reference.digest is not None and reference.earlier_digest is not None:
            self.renewed[reference.earlier_digest] = reference.digest
        fields = {name: self._field(name, value) for name, value in self.component.content().items()}
        return Draft(
            self.component, reference, fields, self.artifacts, self.pickles, self.local_code, self._defaults(cls),
            frozenset(field.name for field in content_fields(cls) if is_operational(field)),
            frozenset(field.name for field in content_fields(cls) if is_learned(field)), self.sources, self.renewed,
        )  # fmt: skip

    def _field(self, name: str, value: Any) -> Any:
        path = f"{self.component.kind} {self.component.identifier!r}: field {name!r}"
        if isinstance(self.component, FunctionModel) and name == "function":
            return {"@function": self._function(value, path, name)}
        try:
            if isinstance(value, FUNCTIONS):
                return {"@function": self._function(value, path, name)}
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

    def _function(self, function: Any, path: str, name: str | None = None) -> Any:
        is_own = isinstance(self.component, FunctionModel) and function is self.component.function
        source = self.component.source if is_own else FunctionSource(function, self.code_version)  # type: ignore[attr-defined]
        if name is not None:
            self.sources[name] = source
        self.renewed[source.earlier_digest] = source.digest
        reference = reference_to_function(function, source.digest)
        if reference.is_local:
            self._keep_local(reference, function, path)
        stored = {
            "reference": reference.name, "digest": source.digest, "local": reference.is_local,
            "parts": sorted(source.parts.items()), "form": FORM,
        }  # fmt: skip
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
