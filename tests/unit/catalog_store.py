"""A CatalogStore in memory: the whole protocol, for tests of the catalog alone."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

from pinnacle.base.errors import NotFound
from pinnacle.base.rows import Record


class MemoryStore:
    """Keeps bodies as JSON text, as a database would, so that nothing but JSON comes back."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], dict[int, Record]] = {}
        self.artifacts: dict[str, list[bytes]] = {}
        self.lock = threading.Lock()

    def save(self, record: Record) -> bool:
        stored = dataclasses.replace(
            record, body=json.loads(json.dumps(record.body, allow_nan=False)), created_at=datetime.now(UTC)
        )
        with self.lock:
            if missing := [sha for sha in record.artifacts if sha not in self.artifacts]:
                raise NotFound(f"no artifact {missing[0]}")
            versions = self.records.setdefault((record.kind, record.identifier), {})
            return versions.setdefault(record.version, stored) is stored

    def amend(self, record: Record) -> None:
        with self.lock:
            self.records[record.kind, record.identifier][record.version] = record

    def get(self, kind: str, identifier: str, version: int | None = None) -> Record | None:
        versions = self.records.get((kind, identifier), {})
        return versions.get(max(versions, default=-1) if version is None else version)

    def versions(self, kind: str, identifier: str) -> list[Record]:
        return [record for _, record in sorted(self.records.get((kind, identifier), {}).items())]

    def newest(self, kind: str, identifiers: Collection[str]) -> dict[str, int]:
        return {name: max(self.records[kind, name]) for name in identifiers if self.records.get((kind, name))}

    def identifiers(self, kind: str | None = None) -> list[tuple[str, str]]:
        return sorted(key for key, versions in self.records.items() if versions and kind in (None, key[0]))

    def delete(self, kind: str, identifier: str, version: int | None = None) -> int:
        versions = self.records.get((kind, identifier), {})
        gone = [number for number in versions if version in (None, number)]
        for number in gone:
            del versions[number]
        used = {sha for kept in self.records.values() for record in kept.values() for sha in record.artifacts}
        self.artifacts = {sha: chunks for sha, chunks in self.artifacts.items() if sha in used}
        return len(gone)

    def has_artifact(self, sha256: str) -> bool:
        return sha256 in self.artifacts

    def put_artifact(self, sha256: str, chunks: Iterable[bytes]) -> None:
        self.artifacts.setdefault(sha256, list(chunks))

    def get_artifact(self, sha256: str) -> Iterator[bytes]:
        if sha256 not in self.artifacts:
            raise NotFound(f"no artifact {sha256}")
        yield from self.artifacts[sha256]
