"""Components and artifacts in two pairs of tables, for every SQL database."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.artifacts import SqlArtifacts
from pinnacle.backends.sql.schema import artifact, component, component_artifact
from pinnacle.backends.sql.seals import SqlSeals
from pinnacle.backends.sql.session import SqlSession
from pinnacle.base.refusals import artifact_removed
from pinnacle.base.rows import Record
from pinnacle.base.stored_body import StoredBody


class SqlCatalogStore:
    """See `CatalogStore`. The contents of artifacts are kept by `SqlArtifacts`."""

    def __init__(self, session: SqlSession, artifacts: SqlArtifacts, seals: SqlSeals) -> None:
        self._session, self._artifacts, self._seals = session, artifacts, seals

    def save(self, record: Record) -> bool:
        self._session.migrate()
        row = _row(record)
        try:
            with self._session.writing() as connection:
                mac = self._seals.sign(connection, component, row)
                connection.execute(sa.insert(component).values(**row, created_at=datetime.now(UTC), mac=mac))
                self._keep_artifacts(connection, record)
        except sa.exc.IntegrityError:
            return False
        return True

    def _keep_artifacts(self, connection: sa.Connection, record: Record) -> None:
        """Note that the record uses its artifacts; their rows stay locked to the end of the transaction, so that
        `delete` counts this user or is done before."""
        wanted = sorted(set(record.artifacts))
        there = set(connection.scalars(_locked(wanted, read=True)))
        if missing := [sha256 for sha256 in wanted if sha256 not in there]:
            raise artifact_removed(missing[0])
        version = {"kind": record.kind, "identifier": record.identifier, "version": record.version}
        if wanted:
            connection.execute(sa.insert(component_artifact), [{**version, "sha256": sha256} for sha256 in wanted])
            self._artifacts.use(connection, wanted)

    def amend(self, record: Record) -> None:
        row = _row(record)
        this = [column == row[column.name] for column in component.c if column.name in row and column.name != "body"]
        with self._session.writing() as connection:
            mac = self._seals.sign(connection, component, row)
            connection.execute(sa.update(component).where(*this).values(body=row["body"], mac=mac))

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
        if not identifiers or not self._session.is_migrated():
            return {}
        c = component.c
        query = sa.select(c.identifier, sa.func.max(c.version)).where(c.kind == kind, c.identifier.in_(identifiers))
        with self._session.reading() as connection:
            found = connection.execute(query.group_by(c.identifier)).all()
        return {identifier: version for identifier, version in found if isinstance(version, int)}

    def identifiers(self, kind: str | None = None) -> list[tuple[str, str]]:
        if not self._session.is_migrated():
            return []
        query = sa.select(component.c.kind, component.c.identifier).distinct()
        if kind is not None:
            query = query.where(component.c.kind == kind)
        with self._session.reading() as connection:
            return sorted((str(row.kind), str(row.identifier)) for row in connection.execute(query))

    def delete(self, kind: str, identifier: str, version: int | None = None) -> int:
        if not self._session.is_migrated():
            return 0
        c = component_artifact.c
        named = (c.kind == kind, c.identifier == identifier, *(() if version is None else (c.version == version,)))
        d = component.c
        these = (d.kind == kind, d.identifier == identifier, *(() if version is None else (d.version == version,)))
        with self._session.writing() as connection:
            used = set(connection.scalars(sa.delete(component_artifact).where(*named).returning(c.sha256)))
            connection.execute(
                _locked(used)
            ).all()  # a save that was faster is counted below, any other finds them gone
            still = set(connection.scalars(sa.select(c.sha256).where(c.sha256.in_(used))))
            loose = self._artifacts.drop(connection, used - still)
            deleted = connection.execute(sa.delete(component).where(*these)).rowcount
        self._artifacts.clear(loose)
        return deleted

    def has_artifact(self, sha256: str) -> bool:
        return self._artifacts.has(sha256)

    def put_artifact(self, sha256: str, chunks: Iterable[bytes]) -> None:
        self._artifacts.put(sha256, chunks)

    def get_artifact(self, sha256: str) -> Iterator[bytes]:
        return self._artifacts.get(sha256)

    def _records(self, query: sa.Select[Any]) -> list[Record]:
        if not self._session.is_migrated():
            return []
        with self._session.reading() as connection:
            rows = connection.execute(query).all()
            return [self._record(connection, row) for row in rows]

    def _record(self, connection: sa.Connection, row: Any) -> Record:
        c = component_artifact.c
        used = sa.select(c.sha256).where(c.kind == row.kind, c.identifier == row.identifier, c.version == row.version)
        return Record(
            kind=row.kind,
            identifier=row.identifier,
            version=row.version,
            type=row.type,
            body=StoredBody(
                f"{row.kind} {row.identifier!r} version {row.version}", row.body, self._seals.refusal(component, row)
            ),
            digest=row.digest,
            created_at=row.created_at,
            artifacts=tuple(connection.scalars(used)),
        )


def _locked(artifacts: Collection[str], *, read: bool = False) -> sa.Select[str]:
    """Those of the artifacts that are there, locked in one order by all: two never wait for each other."""
    query = sa.select(artifact.c.sha256).where(artifact.c.sha256.in_(artifacts)).order_by(artifact.c.sha256)
    return query.with_for_update(read=read)


def _row(record: Record) -> dict[str, Any]:
    """What a record says and where, as it is signed."""
    return {
        "kind": record.kind, "identifier": record.identifier, "version": record.version, "type": record.type,
        "body": json.dumps(dict(record.body), sort_keys=True), "digest": record.digest,
    }  # fmt: skip
