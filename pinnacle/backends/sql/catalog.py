"""Components and artifacts in two pairs of tables, for every SQL database."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pinnacle.backends.sql.schema import artifact, artifact_chunk, component, component_artifact
from pinnacle.base.errors import NotFound
from pinnacle.base.rows import Record

if TYPE_CHECKING:
    from pinnacle.backends.sql.backend import SqlBackend


class SqlCatalogStore:
    """See `CatalogStore`. Artifacts are written chunk by chunk, each chunk its own commit,
    and become visible with their size row."""

    def __init__(self, backend: SqlBackend) -> None:
        self._backend = backend

    def save(self, record: Record) -> bool:
        self._backend.migrate()
        row = {
            "kind": record.kind, "identifier": record.identifier, "version": record.version, "type": record.type,
            "body": _body(record), "digest": record.digest,
            "created_at": datetime.now(UTC),
        }  # fmt: skip
        try:
            with self._backend.writing() as connection:
                connection.execute(sa.insert(component).values(row))
                for sha256 in sorted(set(record.artifacts)):
                    if connection.scalar(sa.select(artifact.c.size).where(artifact.c.sha256 == sha256)) is None:
                        raise NotFound(f"artifact {sha256} was removed by another process; add the component again")
                    connection.execute(
                        sa.insert(component_artifact).values(
                            kind=record.kind, identifier=record.identifier, version=record.version, sha256=sha256
                        )
                    )
        except sa.exc.IntegrityError:
            return False
        return True

    def amend(self, record: Record) -> None:
        c = component.c
        this = (c.kind == record.kind, c.identifier == record.identifier, c.version == record.version)
        with self._backend.writing() as connection:
            connection.execute(sa.update(component).where(*this).values(body=_body(record)))

    def get(self, kind: str, identifier: str, version: int | None = None) -> Record | None:
        query = sa.select(component).where(component.c.kind == kind, component.c.identifier == identifier)
        if version is not None:
            query = query.where(component.c.version == version)
        found = self._records(query.order_by(component.c.version.desc()).limit(1))
        return found[0] if found else None

    def versions(self, kind: str, identifier: str) -> list[Record]:
        query = sa.select(component).where(component.c.kind == kind, component.c.identifier == identifier)
        return self._records(query.order_by(component.c.version))

    def newest(self, kind: str, identifiers: Collection[str]) -> dict[str, int]:
        if not identifiers or not self._backend.is_migrated():
            return {}
        c = component.c
        query = sa.select(c.identifier, sa.func.max(c.version)).where(c.kind == kind, c.identifier.in_(identifiers))
        with self._backend.reading() as connection:
            return dict(map(tuple, connection.execute(query.group_by(c.identifier))))

    def identifiers(self, kind: str | None = None) -> list[tuple[str, str]]:
        if not self._backend.is_migrated():
            return []
        query = sa.select(component.c.kind, component.c.identifier).distinct()
        if kind is not None:
            query = query.where(component.c.kind == kind)
        with self._backend.reading() as connection:
            return sorted((row.kind, row.identifier) for row in connection.execute(query))

    def delete(self, kind: str, identifier: str, version: int | None = None) -> int:
        if not self._backend.is_migrated():
            return 0
        c = component_artifact.c
        named = (c.kind == kind, c.identifier == identifier, *(() if version is None else (c.version == version,)))
        with self._backend.writing() as connection:
            used = set(connection.scalars(sa.delete(component_artifact).where(*named).returning(c.sha256)))
            still = set(connection.scalars(sa.select(c.sha256).where(c.sha256.in_(used))))
            for table in (artifact, artifact_chunk):
                connection.execute(sa.delete(table).where(table.c.sha256.in_(used - still)))
            d = component.c
            statement = sa.delete(component).where(d.kind == kind, d.identifier == identifier)
            return connection.execute(statement if version is None else statement.where(d.version == version)).rowcount

    def has_artifact(self, sha256: str) -> bool:
        if not self._backend.is_migrated():
            return False
        with self._backend.reading() as connection:
            return connection.scalar(sa.select(artifact.c.size).where(artifact.c.sha256 == sha256)) is not None

    def put_artifact(self, sha256: str, chunks: Iterable[bytes]) -> None:
        if self.has_artifact(sha256):
            return
        self._backend.migrate()
        with self._backend.writing() as connection:
            connection.execute(sa.delete(artifact_chunk).where(artifact_chunk.c.sha256 == sha256))
        size = 0
        for position, data in enumerate(chunks):
            with self._backend.writing() as connection:
                connection.execute(sa.insert(artifact_chunk).values(sha256=sha256, position=position, data=data))
            size += len(data)
        with self._backend.writing() as connection:
            connection.execute(sa.insert(artifact).values(sha256=sha256, size=size))

    def get_artifact(self, sha256: str) -> Iterator[bytes]:
        if not self.has_artifact(sha256):
            raise NotFound(f"artifact {sha256} is not in the database")
        position = 0
        while True:
            query = sa.select(artifact_chunk.c.data).where(
                artifact_chunk.c.sha256 == sha256, artifact_chunk.c.position == position
            )
            with self._backend.reading() as connection:
                data = connection.scalar(query)
            if data is None:
                return
            yield data
            position += 1

    def _records(self, query: sa.Select[Any]) -> list[Record]:
        if not self._backend.is_migrated():
            return []
        with self._backend.reading() as connection:
            rows = connection.execute(query).all()
            return [self._record(connection, row) for row in rows]

    def _record(self, connection: sa.Connection, row: Any) -> Record:
        c = component_artifact.c
        used = sa.select(c.sha256).where(c.kind == row.kind, c.identifier == row.identifier, c.version == row.version)
        return Record(
            row.kind, row.identifier, row.version, row.type, json.loads(row.body), row.digest, row.created_at,
            tuple(connection.scalars(used)),
        )  # fmt: skip


def _body(record: Record) -> str:
    return json.dumps(record.body, ensure_ascii=False, sort_keys=True)
