"""Components and artifacts at rest in the user's MongoDB."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from pinnacle.backends.mongodb.driver import driver_errors
from pinnacle.backends.mongodb.wire import Wire
from pinnacle.base.errors import BackendError, NotFound
from pinnacle.base.rows import Record

COMPONENTS, ARTIFACTS, CHUNKS = "pinnacle_component", "pinnacle_artifact", "pinnacle_artifact_chunk"
CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class MongoCatalog:
    """The CatalogStore of one database."""

    wire: Wire
    server: str

    def save(self, record: Record) -> bool:
        entry = {
            "_id": json.dumps([record.kind, record.identifier, record.version]),
            "kind": record.kind, "identifier": record.identifier, "version": record.version, "type": record.type,
            "body": _body(record), "digest": record.digest,
            "created_at": record.created_at or datetime.now(UTC), "artifacts": list(record.artifacts),
        }  # fmt: skip
        with driver_errors(self.server):
            try:
                self._components.insert_one(entry)
            except DuplicateKeyError:
                return False
        return True

    def amend(self, record: Record) -> None:
        with driver_errors(self.server):
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
        with driver_errors(self.server):
            found = self._components.aggregate([{"$match": named}, {"$group": greatest}])
            return {entry["_id"]: entry["version"] for entry in found}

    def identifiers(self, kind: str | None = None) -> list[tuple[str, str]]:
        with driver_errors(self.server):
            found = self._components.find({} if kind is None else {"kind": kind}, {"kind": 1, "identifier": 1})
            return sorted({(entry["kind"], entry["identifier"]) for entry in found})

    def delete(self, kind: str, identifier: str, version: int | None = None) -> int:
        doomed = self._find(kind, identifier, version)
        with driver_errors(self.server):
            deleted = self._components.delete_many(_named(kind, identifier, version)).deleted_count
            for sha256 in {artifact for record in doomed for artifact in record.artifacts}:
                if self._components.find_one({"artifacts": sha256}, {"_id": 1}) is None:
                    self._artifacts.delete_one({"_id": sha256})
                    self._chunks.delete_many({"sha256": sha256})
        return int(deleted)

    def has_artifact(self, sha256: str) -> bool:
        with driver_errors(self.server):
            return self._artifacts.find_one({"_id": sha256}, {"_id": 1}) is not None

    def put_artifact(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """Store a blob under its hash; it is there only once its last chunk is."""
        if self.has_artifact(sha256):
            return
        digest, count = hashlib.sha256(), 0
        with driver_errors(self.server):
            for piece in _pieces(chunks):
                digest.update(piece)
                entry = {"_id": f"{sha256}:{count}", "sha256": sha256, "number": count, "data": piece}
                self._chunks.replace_one({"_id": entry["_id"]}, entry, upsert=True)
                count += 1
            if digest.hexdigest() != sha256:
                self._chunks.delete_many({"sha256": sha256})
                raise BackendError(f"the artifact's content hashes to {digest.hexdigest()}, not to {sha256}")
            self._artifacts.replace_one({"_id": sha256}, {"_id": sha256, "chunks": count}, upsert=True)

    def get_artifact(self, sha256: str) -> Iterator[bytes]:
        with driver_errors(self.server):
            entry = self._artifacts.find_one({"_id": sha256})
            if entry is None:
                raise NotFound(f"there is no artifact {sha256}")
            for number in range(entry["chunks"]):
                chunk = self._chunks.find_one({"_id": f"{sha256}:{number}"})
                if chunk is None:
                    raise NotFound(f"artifact {sha256} has lost its chunk {number}; add its component again")
                yield bytes(chunk["data"])

    @property
    def _components(self) -> Any:
        return self.wire.collection(COMPONENTS)

    @property
    def _artifacts(self) -> Any:
        return self.wire.collection(ARTIFACTS)

    @property
    def _chunks(self) -> Any:
        return self.wire.collection(CHUNKS)

    def _find(self, kind: str, identifier: str, version: int | None) -> list[Record]:
        with driver_errors(self.server):
            entries = self._components.find(_named(kind, identifier, version)).sort("version", 1)
            return [_record(entry) for entry in entries]


def _named(kind: str, identifier: str, version: int | None) -> dict[str, Any]:
    name = {"kind": kind, "identifier": identifier}
    return name if version is None else {**name, "version": version}


def _record(entry: Mapping[str, Any]) -> Record:
    created = entry["created_at"]
    return Record(
        entry["kind"], entry["identifier"], entry["version"], entry["type"], json.loads(entry["body"]),
        entry["digest"], created if created.tzinfo else created.replace(tzinfo=UTC), tuple(entry["artifacts"]),
    )  # fmt: skip


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]


def _body(record: Record) -> str:
    return json.dumps(dict(record.body), ensure_ascii=False)
