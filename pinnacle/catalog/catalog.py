"""The catalog: adds components as versions, loads, lists and removes them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pinnacle.backends.protocol import CatalogStore
from pinnacle.base.errors import ComponentError, ConfigError, Conflict, NotFound
from pinnacle.base.near import did_you_mean
from pinnacle.base.rows import Record
from pinnacle.base.settings import Settings
from pinnacle.base.told import logger
from pinnacle.base.types import output_type_from_json
from pinnacle.catalog.bodies import MALFORMED
from pinnacle.catalog.drafts import OLDER_FORM, Draft, draft_of
from pinnacle.catalog.loading import Loading
from pinnacle.catalog.references import Resolver, reference_to_class
from pinnacle.components.component import Component, content_fields, is_learned
from pinnacle.components.model import PURPOSES, Model
from pinnacle.components.run import Run, RunReader
from pinnacle.components.stored_model import StoredModel

KINDS = (
    "model", "listener", "vector_index", "knowledge_bank", "dataset", "tool", "pipeline", "run",
    "training_configuration", "checkpoint", "training_state",
)  # fmt: skip
SAVE_ATTEMPTS = 100
_NAMED = {"kind": str, "identifier": str, "version": int}

log = logger(__name__)

C = TypeVar("C", bound=Component)


class Catalog:
    """Components at rest in one database; knows nothing of which database it is."""

    def __init__(self, store: CatalogStore, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.run_reader: RunReader | None = None
        self.resolver = Resolver(settings.trusted_modules)

    def add(self, component: C, *, allow_pickle: bool = False, keeps: Component | None = None) -> C:
        """Store ``component`` and those in its fields, and set its ``version``; return it.

        The same content as the newest version is a no-op, operational fields alone are changed in place, and changed
        content, a function's source included, is the next version. A new component that differs from the newest version
        only by what that has learned takes this over. Raises Conflict when the identifier belongs to a
        component of another class, and ComponentError for a field that cannot be stored. Safe beside other processes
        that add the same component. ``keeps``: a component in its fields that is stored in the version that it
        carries: it stays in that, whether or not it is the newest, and only operational fields of it are changed.
        """
        return self._save(component, (), allow_pickle=allow_pickle, may_retype=False, keeps=keeps)

    def put(self, component: C, version: int) -> C:
        """Store ``component`` as a version that its caller chose, in place of one that is there."""
        draft = draft_of(component, nested=self._held_version, allow_pickle=False)
        record = draft.record(version)
        there = self.store.get(record.kind, record.identifier, version)
        if there is not None and there.digest == record.digest:
            self.store.amend(record)
        else:
            if there is not None:
                self.store.delete(record.kind, record.identifier, version)
            self._store(draft, record)
        component.version = version
        return component

    def amend(self, component: Component) -> None:
        """Bring the operational fields of a stored version, whose content is that of ``component``, up to its own."""
        record = self.record(component.kind, component.identifier, component.version)
        draft = self._draft_like(record, component)
        if draft is not None and (amended := draft.amended(record)) is not None:
            self.store.amend(amended)

    def check_class(self, component: Component) -> None:
        """Conflict when the identifier belongs to a component of another class."""
        _check_class(self.store.get(component.kind, component.identifier), reference_to_class(type(component)).name)

    def plain(self, component: Component) -> dict[str, Any]:
        """What makes a component what it is, as plain values: its class, its code and its content."""

        def version(nested: Component) -> int:
            is_settled = isinstance(nested, Run) and self.holds(nested)
            return (nested if is_settled else self.add(nested)).version or 0

        draft = draft_of(component, nested=version, allow_pickle=False)
        return {"type": draft.type.name, "source": draft.type.digest, "fields": draft.content}

    def versions(self, kind: str, identifier: str) -> list[int]:
        """The stored versions of a component, oldest first; none where there is no such component."""
        return [record.version for record in self.store.versions(kind, identifier)]

    def holds(self, component: Component) -> bool:
        """Whether the version that ``component`` carries is stored, with the content it has now."""
        version = component.version
        record = None if version is None else self.store.get(component.kind, component.identifier, version)
        return record is not None and self._draft_like(record, component) is not None

    def version_of(self, component: Component) -> int | None:
        """The newest stored version with the content that ``component`` has now; None where there is none."""
        stored = reversed(self.store.versions(component.kind, component.identifier))
        return next((record.version for record in stored if self._draft_like(record, component)), None)

    def changes(self, component: Component) -> tuple[int, list[str]]:
        """The version that adding ``component`` would give it, and by what it differs from the newest one.

        Changes nothing. The differences are names: of fields, and of what its code uses.
        """
        newest = self.store.get(component.kind, component.identifier)
        if newest is None:
            return 0, []
        try:
            draft = draft_of(component, nested=self._held_version, allow_pickle=bool(newest.body.get("pickles")))
        except _NotHeld:
            return newest.version + 1, ["a component in its fields"]
        found = [] if draft.is_stored_as(newest) else draft.changes(newest)
        return newest.version + bool(found), found

    def _draft_like(self, record: Record, component: Component) -> Draft | None:
        """``component`` ready to be stored, where that would store what ``record`` has."""
        try:
            draft = draft_of(component, nested=self._held_version, allow_pickle=bool(record.body.get("pickles")))
        except (_NotHeld, ComponentError):
            return None
        return draft if draft.is_stored_as(record) else None

    def _held_version(self, component: Component) -> int:
        if component.version is None or not self.holds(component):
            raise _NotHeld
        return component.version

    def replace(self, component: C, *, allow_pickle: bool = False) -> C:
        """Store ``component`` as the newest version of an identifier that exists, whatever its class was.

        Older versions still load by number. Raises NotFound where there is nothing to replace.
        """
        self.record(component.kind, component.identifier)
        return self._save(component, (), allow_pickle=allow_pickle, may_retype=True)

    def load(self, kind: str, identifier: str, version: int | None = None, *, allow_pickle: bool = False) -> Component:
        """A new object of one version, by default the newest; runs no code from the database unless allowed.

        Raises NotFound naming near identifiers or the versions there are, ComponentError where this process does not
        have the component's code as it was stored, UntrustedReference where it may not import it.
        """
        return self._load(self.record(kind, identifier, version), (), allow_pickle=allow_pickle)

    def load_with(self, part: Component, record: Record) -> Component:
        """A new object of a stored version, with ``part`` in the place of the component of that name in its fields.

        That one is not loaded, so that it need not be loadable here. Raises what `load` raises.
        """
        return self._load(record, (), allow_pickle=False, part=part)

    def outlined(self, identifier: str) -> StoredModel | None:
        """The newest version of a model without its class; None where what it returns is not told by its record."""
        record = self.record(Model.kind, identifier)
        declared, told = record.body["fields"].get("output_type"), record.body.get("returns")
        stored = declared.get("@output_type") if isinstance(declared, Mapping) else told
        if stored is None:
            return None
        try:
            return StoredModel.of(identifier, record.version, output_type_from_json(stored))
        except (*MALFORMED, ConfigError) as error:
            raise ComponentError(f"what model {identifier!r} returns is stored in no form of now: {error}") from error

    def record(self, kind: str, identifier: str, version: int | None = None) -> Record:
        """One version as it is stored, by default the newest; NotFound as for `load`."""
        record = self.store.get(kind, identifier, version)
        if record is not None:
            return record
        if versions := [r.version for r in self.store.versions(kind, identifier)]:
            raise NotFound(f"{kind} {identifier!r} has no version {version}; it has {', '.join(map(str, versions))}")
        known = self.store.identifiers()
        if kind not in KINDS and kind not in {k for k, _ in known}:
            raise NotFound(f"there is no kind {kind!r}; {did_you_mean(kind, KINDS, none='')}")
        if other := [k for k, name in known if name == identifier]:
            raise NotFound(f"there is no {kind} {identifier!r}, but a {' and a '.join(other)} of that name")
        raise NotFound(
            f"there is no {kind} {identifier!r}; "
            + did_you_mean(identifier, [n for k, n in known if k == kind], none=f"there is none yet{_storing(kind)}")
        )

    def newest(self, kind: str, identifiers: Collection[str]) -> dict[str, int]:
        """The newest version of each of these components that is stored; one small query."""
        return self.store.newest(kind, identifiers)

    def show(self, kind: str | None = None, identifier: str | None = None) -> Any:
        """What there is: (kind, identifier) pairs; of one kind the identifiers; of one component its versions.

        A component's entry is a dict with ``kind``, ``identifier`` and ``versions``, oldest first.
        """
        if kind is None:
            return self.store.identifiers()
        if identifier is None:
            found = [name for _, name in self.store.identifiers(kind)]
            if not found and kind not in KINDS:
                raise NotFound(f"there is no kind {kind!r}; {did_you_mean(kind, KINDS, none='')}")
            return found
        self.record(kind, identifier)
        versions = [_describe(record) for record in self.store.versions(kind, identifier)]
        return {"kind": kind, "identifier": identifier, "versions": versions}

    def models(self, purpose: str | None = None) -> list[ModelInfo]:
        """The newest version of each model, all or those for one purpose; needs none of their code."""
        if purpose is not None and purpose not in PURPOSES:
            raise ConfigError(f"there is no purpose {purpose!r}; there are {', '.join(PURPOSES)}")
        newest = [self.store.get(*pair) for pair in self.store.identifiers(Model.kind)]
        found = [_model_info(record) for record in newest if record is not None and _trouble_of(record) is None]
        return [info for info in found if purpose in (None, info.purpose)]

    def remove(self, kind: str, identifier: str, version: int | None = None) -> int:
        """Remove one version or all of them, with artifacts nothing else uses; return how many.

        Raises NotFound, or Conflict while another component refers to what would go.
        """
        self.check_removable(kind, identifier, version)
        return self.store.delete(kind, identifier, version)

    def check_removable(self, kind: str, identifier: str, version: int | None = None) -> None:
        """NotFound, or Conflict while another component refers to it."""
        self.record(kind, identifier, version)
        if users := self.dependents(kind, identifier, version):
            named = ", ".join(sorted({f"{r.kind} {r.identifier!r} version {r.version}" for r in users}))
            raise Conflict(f"{kind} {identifier!r} is part of {named}; remove that first")

    def dependents(self, kind: str, identifier: str, version: int | None = None) -> list[Record]:
        """Stored versions of other components that have this one in a field."""

        def is_it(used: Mapping[str, Any]) -> bool:
            return (used["kind"], used["identifier"]) == (kind, identifier) and version in (None, used["version"])

        others = [other for other in self.store.identifiers() if other != (kind, identifier)]
        records = (record for other in others for record in self.store.versions(*other))
        sound = (record for record in records if _trouble_of(record) is None)  # no other is ever loaded
        return [record for record in sound if any(map(is_it, _components_in(record.body["fields"])))]

    def _save(
        self, component: C, outer: tuple[Component, ...], *, allow_pickle: bool, may_retype: bool,
        keeps: Component | None = None,
    ) -> C:  # fmt: skip
        if not isinstance(component, Component):
            raise ComponentError(
                f"only components can be stored, and {component!r} is none; make a model of a function with @model"
            )
        inner: tuple[Component, ...] = (*outer, component)
        if any(component is other for other in outer):
            circle = " -> ".join(c.identifier for c in inner)
            raise ComponentError(f"{component.kind} {component.identifier!r} refers to itself: {circle}")

        def save_nested(nested: Component) -> int:
            if nested is keeps:
                self.amend(nested)
            elif not (isinstance(nested, Run) and self.holds(nested)):  # how far a run is, its fit alone tells
                self._save(nested, inner, allow_pickle=allow_pickle, may_retype=False, keeps=keeps)
            return nested.version or 0

        draft = draft_of(component, nested=save_nested, allow_pickle=allow_pickle)
        if component.version is None and self._teach(draft):
            draft = draft_of(component, nested=save_nested, allow_pickle=allow_pickle)
        component.vouch()
        component.version = self._save_draft(draft, may_retype)
        draft.remember()
        return component

    def teach(self, component: Component) -> None:
        """Have a new component take over what the newest version has learned, where it differs by nothing else."""
        if component.version is None and any(is_learned(field) for field in content_fields(type(component))):
            with contextlib.suppress(_NotHeld, ComponentError):
                self._teach(draft_of(component, nested=self._held_version, allow_pickle=False))

    def _teach(self, draft: Draft) -> bool:
        """Whether the newest version differs from the draft only by what it has learned, which is taken over."""
        component = draft.component
        newest = self.store.get(component.kind, component.identifier) if draft.learned else None
        if newest is None or not draft.is_untaught(newest):
            return False
        taught = self._load(newest, (), allow_pickle=False)
        component.learn({name: getattr(taught, name) for name in draft.learned})
        component.version = newest.version
        return True

    def _store(self, draft: Draft, record: Record) -> bool:
        """Store a record after its artifacts; False where there is one of that version."""
        for _ in range(SAVE_ATTEMPTS):
            for sha256, artifact in draft.artifacts.items():
                if not self.store.has_artifact(sha256):
                    self.store.put_artifact(sha256, artifact.chunks())
            try:
                return self.store.save(record)
            except NotFound as error:  # an artifact that was there went with the last other component that used it
                log.info("%s", error)
        raise _too_busy(draft)

    def _save_draft(self, draft: Draft, may_retype: bool) -> int:
        """The version that holds the draft's content, stored now or before, here or by another process."""
        kind, identifier = draft.component.kind, draft.component.identifier
        for _ in range(SAVE_ATTEMPTS):
            newest = self.store.get(kind, identifier)
            if not may_retype:
                _check_class(newest, draft.type.name)
            if newest is not None and draft.is_stored_as(newest):
                if (amended := draft.amended(newest)) is not None:
                    self.store.amend(amended)
                return newest.version
            record = draft.record(0 if newest is None else newest.version + 1)
            if self._store(draft, record):
                if newest is not None:
                    _tell(record, draft.changes(newest))
                return record.version
        raise _too_busy(draft)

    def _load(
        self, record: Record, outer: tuple[tuple[str, str, int], ...], *, allow_pickle: bool,
        part: Component | None = None,
    ) -> Component:  # fmt: skip
        here = (record.kind, record.identifier, record.version)
        if here in outer:
            raise ComponentError(f"{record.kind} {record.identifier!r} refers to itself in the catalog; add it again")

        def load_nested(stored: Mapping[str, Any]) -> Component:
            kind, identifier, version = component_named({"@component": stored})
            if part is not None and (part.kind, part.identifier) == (kind, identifier):
                return part
            return self._load(self.record(kind, identifier, version), (*outer, here), allow_pickle=allow_pickle)

        component = Loading(
            record, self.store, self.resolver, self.settings, load_nested, allow_pickle=allow_pickle
        ).component()
        if isinstance(component, Run):
            component.reader = self.run_reader
        return component


@dataclass(frozen=True)
class ModelInfo:
    """A stored model: its identifier, a line for people, its class, and what it is for."""

    id: str
    description: str
    type: str
    purpose: str | None


def _model_info(record: Record) -> ModelInfo:
    description = record.body["fields"].get("description") or ""
    return ModelInfo(record.identifier, description, record.type.rpartition(":")[2], record.body.get("purpose"))


def _too_busy(draft: Draft) -> Conflict:
    component = draft.component
    return Conflict(
        f"{component.kind} {component.identifier!r} is changed by others all the time; {SAVE_ATTEMPTS} attempts to add "
        "it failed"
    )


def _tell(record: Record, changes: Collection[str]) -> None:
    log.log(
        logging.WARNING if OLDER_FORM in changes else logging.INFO,
        "%s %s is stored as version %d: what changed is %s",
        record.kind, record.identifier, record.version, ", ".join(changes),
    )  # fmt: skip


def _check_class(newest: Record | None, name: str) -> None:
    if newest is not None and newest.type != name:
        raise Conflict(
            f"{newest.kind} {newest.identifier!r} is a {newest.type} and not a {name}; "
            "choose another identifier, or use db.replace to change its class"
        )


class _NotHeld(Exception):
    """A nested component is not stored as it is now."""


def _storing(kind: str) -> str:
    return ": fit(...) stores one" if kind == Run.kind else ": db.add(...) stores one"


def _trouble_of(record: Record) -> ComponentError | None:
    """Why nothing of a record can be used: it is not authenticated, or broken; None where it can."""
    try:
        record.body["fields"]
    except ComponentError as error:
        return error
    return None


def _describe(record: Record) -> dict[str, Any]:
    """A version as `Catalog.show` lists it; of one that cannot be used, why, in place of its fields."""
    trouble = _trouble_of(record)
    return {
        "version": record.version,
        "type": record.type,
        "created_at": record.created_at,
        "fields": {} if trouble else dict(record.body["fields"]),
        "digest": record.digest,
        "artifacts": list(record.artifacts),
        **({"error": str(trouble)} if trouble else {}),
    }


def component_named(stored: Any) -> tuple[str, str, int]:
    """Kind, identifier and version of the component that a stored field holds; ComponentError where it holds none."""
    named = next(_components_in(stored), None)
    if named is None:
        raise ComponentError("what is stored names no component where there is to be one; add it again")
    return named["kind"], named["identifier"], named["version"]


def _components_in(stored: Any) -> Iterator[Mapping[str, Any]]:
    """Every reference to a component inside stored fields; what has not the form of one is none."""
    waiting = [stored]
    while waiting:  # and no recursion, which ends at some depth
        found = waiting.pop()
        if isinstance(found, Mapping) and "@component" in found:
            named = found["@component"]
            if isinstance(named, Mapping) and _NAMED.items() <= {k: type(v) for k, v in named.items()}.items():
                yield named
        elif isinstance(found, (Mapping, list)):
            waiting += found.values() if isinstance(found, Mapping) else found
