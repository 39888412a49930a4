"""The contents of artifacts in PostgreSQL: as bytes on the wire, where text would be twice as long."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import sqlalchemy as sa

from pinnacle.backends.postgres.session import PostgresSession
from pinnacle.backends.sql.artifacts import SqlArtifacts


class PostgresArtifacts(SqlArtifacts):
    """See `SqlArtifacts`. A transaction takes all chunks that wait: it keeps nobody from writing."""

    _session: PostgresSession
    pause_s = 0.0

    def _write_some(self, connection: sa.Connection, key: str, position: int, waiting: deque[bytes]) -> int:
        chunks = list(waiting)
        waiting.clear()
        self._insert(connection, key, position, chunks)
        return len(chunks)

    def _insert(self, connection: sa.Connection, key: str, position: int, chunks: Sequence[bytes]) -> None:
        rows = [(key, place, chunk) for place, chunk in enumerate(chunks, position)]
        with self._session.binary_cursor(connection) as cursor:
            cursor.executemany(f"INSERT INTO {self._chunks} (sha256, position, data) VALUES (%s, %s, %b)", rows)

    def _read_some(self, key: str, position: int, count: int) -> list[bytes]:
        query = (
            f"SELECT data FROM {self._chunks} WHERE sha256 = %s AND position >= %s AND position < %s ORDER BY position"
        )
        with self._session.reading() as connection, self._session.binary_cursor(connection) as cursor:
            return [data for (data,) in cursor.execute(query, (key, position, position + count))]

    @property
    def _chunks(self) -> str:
        return self._session.own("pinnacle_artifact_chunk")
