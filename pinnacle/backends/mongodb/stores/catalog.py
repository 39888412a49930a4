"""Components and artifacts at rest in the user's MongoDB."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pinnacle.backends.mongodb.stores.artifacts import MongoArtifacts
from pinnacle.backends.mongodb.wire.clock import ServerClock
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.refusals import artifact_removed
from pinnacle.base.rows import Record

COMPONENTS = "pinnacle_component"


@dataclass(frozen=True)
class MongoCatalog:
    """The CatalogStore of one database."""

    wire: Wire
    clock: ServerClock
    migrate: Callable[[], None]

    def save(self, record: Record) -> bool:
        self.migrate()
        entry = {
            "_id": _identifier(record),
            "kind": record.kind, "identifier": record.identifier, "version": record.version, "type": record.type,
            "body": _body(record), "digest": record.digest,
            "created_at": record.created_at or datetime.now(UTC), "artifacts": list(record.artifacts),
        }  # fmt: skip
        if not self._components.insert_new(entry):
            return False
        missing = self._kept.keep(record.artifacts)
        if missing is not None:
            self._components.delete_one({"_id": _identifier(record)})
            raise artifact_removed(missing)
        return True

    def amend(self, record: Record) -> None:
        this = _named(record.kind, record.identifier, record.version)
        self._components.update_one(this, {"$set": {"body": _body(record)}})

    def get(self, kind: str, identifier: str, version: int | None = None) -> Record | None:
        found = self._find(kind, identifier, version)
        return found[-1] if found else None

    def versions(self, kind: str, identifier: str) -> list[Record]:
        return self._find(kind, identifier, None)

    def newest(self, kind: str, identifiers: Collection[str]) -> dict[str, int]:
        if not identifiers:
            return {}
        named = {"kind": kind, "identifier": {"$in": list(identifiers)}}
        greatest = {"_id": "$identifier", "version": {"$max": "$version"}}
        found = self._components.aggregate([{"$match": named}, {"$group": greatest}])
        return {entry["_id"]: entry["version"] for entry in found}

    def identifiers(self, kind: str | None = None) -> list[tuple[str, str]]:
        found = self._components.find({} if kind is None else {"kind": kind}, {"kind": 1, "identifier": 1})
        return sorted({(entry["kind"], entry["identifier"]) for entry in found})

    def delete(self, kind: str, identifier: str, version: int | None = None) -> int:
        removed = 0
        for record in self._find(kind, identifier, version):
            removed += int(self._components.delete_one({"_id": _identifier(record)}))
            for sha256 in set(record.artifacts):
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
        return [_record(entry) for entry in entries]


def _identifier(record: Record) -> str:
    return json.dumps([record.kind, record.identifier, record.version])


def _named(kind: str, identifier: str, version: int | None) -> dict[str, Any]:
    name = {"kind": kind, "identifier": identifier}
    return name if version is None else {**name, "version": version}


def _record(entry: Mapping[str, Any]) -> Record:
    created = entry["created_at"]
    return Record(
        kind=entry["kind"],
        identifier=entry["identifier"],
        version=entry["version"],
        type=entry["type"],
        body=json.loads(entry["body"]),
        digest=entry["digest"],
        created_at=created if created.tzinfo else created.replace(tzinfo=UTC),
        artifacts=tuple(entry["artifacts"]),
    )


def _body(record: Record) -> str:
    return json.dumps(dict(record.body), ensure_ascii=False)
