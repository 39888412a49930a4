"""Components and artifacts at rest in the user's MongoDB."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pinnacle.backends.mongodb.stores.artifacts import MongoArtifacts
from pinnacle.backends.mongodb.stores.seals import COMPONENTS, MongoSeals
from pinnacle.backends.mongodb.wire.clock import ServerClock
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.refusals import artifact_removed
from pinnacle.base.rows import Record
from pinnacle.base.stored_body import StoredBody


@dataclass(frozen=True)
class MongoCatalog:
    """The CatalogStore of one database."""

    wire: Wire
    clock: ServerClock
    migrate: Callable[[], None]
    seals: MongoSeals

    def save(self, record: Record) -> bool:
        self.migrate()
        signed = _signed(record)
        entry = {
            "_id": _identifier(record), **signed, "created_at": record.created_at or datetime.now(UTC),
            "artifacts": list(record.artifacts), "mac": self.seals.sign(COMPONENTS, signed),
        }  # fmt: skip
        if not self._components.insert_new(entry):
            return False
        missing = self._kept.keep(record.artifacts)
        if missing is not None:
            self._components.delete_one({"_id": _identifier(record)})
            raise artifact_removed(missing)
        return True

    def amend(self, record: Record) -> None:
        signed = _signed(record)
        change = {"body": signed["body"], "mac": self.seals.sign(COMPONENTS, signed)}
        this = _named(record.kind, record.identifier, record.version)
        self._components.update_one({**this, "type": record.type, "digest": record.digest}, {"$set": change})

    def get(self, kind: str, identifier: str, version: int | None = None) -> Record | None:
        found = self._find(kind, identifier, version)
        return found[-1] if found else None

    def versions(self, kind: str, identifier: str) -> list[Record]:
        return self._find(kind, identifier, None)

    def newest(self, kind: str, identifiers: Collection[str]) -> dict[str, int]:
        if not identifiers:
            return {}
        named = {"kind": {"$eq": kind, **_IS_TEXT}, "identifier": {"$in": list(identifiers), **_IS_TEXT}}
        greatest = {"_id": "$identifier", "version": {"$max": "$version"}}
        found = self._components.aggregate([{"$match": named}, {"$group": greatest}])
        return {entry["_id"]: entry["version"] for entry in found if isinstance(entry["version"], int)}

    def identifiers(self, kind: str | None = None) -> list[tuple[str, str]]:
        found = self._components.find({} if kind is None else {"kind": kind}, {"kind": 1, "identifier": 1})
        return sorted({(str(entry.get("kind")), str(entry.get("identifier"))) for entry in found})

    def delete(self, kind: str, identifier: str, version: int | None = None) -> int:
        removed = 0
        for entry in self._components.find(_named(kind, identifier, version)):
            removed += int(self._components.delete_one({"_id": entry["_id"]}))
            for sha256 in set(_artifacts(entry)):
                if not self._is_used(sha256):
                    self._kept.drop(sha256)
        return removed

    def _is_used(self, sha256: str) -> bool:
        return self._components.find_one({"artifacts": sha256}, {"_id": 1}) is not None

    def has_artifact(self, sha256: str) -> bool:
        return self._kept.has(sha256)

    def put_artifact(self, sha256: str, chunks: Iterable[bytes]) -> None:
        self.migrate()
        self._kept.put(sha256, chunks)

    def get_artifact(self, sha256: str) -> Iterator[bytes]:
        yield from self._kept.get(sha256)

    @property
    def _components(self) -> StoredCollection:
        return self.wire.collection(COMPONENTS)

    @property
    def _kept(self) -> MongoArtifacts:
        return MongoArtifacts(self.wire, self.clock, self._is_used)

    def _find(self, kind: str, identifier: str, version: int | None) -> list[Record]:
        entries = self._components.find(_named(kind, identifier, version), sort=[("version", 1)])
        return [self._record(entry) for entry in entries]

    def _record(self, entry: Mapping[str, Any]) -> Record:
        version = entry.get("version")
        name = f"{entry['kind']} {entry['identifier']!r} version {version}"
        return Record(
            kind=entry["kind"],
            identifier=entry["identifier"],
            version=version,  # type: ignore[arg-type]  # what is no number is refused when it is loaded
            type=str(entry.get("type")),
            body=StoredBody(name, entry.get("body"), self.seals.refusal(COMPONENTS, entry)),
            digest=str(entry.get("digest")),
            created_at=_created(entry),
            artifacts=_artifacts(entry),
        )


def _identifier(record: Record) -> str:
    return json.dumps([record.kind, record.identifier, record.version])


_IS_TEXT = {"$not": {"$type": "array"}}
"""Else a text equals each list that it is in."""


def _created(entry: Mapping[str, Any]) -> datetime | None:
    created = entry.get("created_at")
    if not isinstance(created, datetime):
        return None
    return created if created.tzinfo else created.replace(tzinfo=UTC)


def _artifacts(entry: Mapping[str, Any]) -> tuple[str, ...]:
    stored = entry.get("artifacts")
    return tuple(each for each in stored if isinstance(each, str)) if isinstance(stored, list) else ()


def _named(kind: str, identifier: str, version: int | None) -> dict[str, Any]:
    name: dict[str, Any] = {"kind": {"$eq": kind, **_IS_TEXT}, "identifier": {"$eq": identifier, **_IS_TEXT}}
    return name if version is None else {**name, "version": version}


def _signed(record: Record) -> dict[str, Any]:
    """What a record says and where, as it is signed."""
    return {
        "kind": record.kind, "identifier": record.identifier, "version": record.version, "type": record.type,
        "body": json.dumps(dict(record.body), ensure_ascii=False), "digest": record.digest,
    }  # fmt: skip
