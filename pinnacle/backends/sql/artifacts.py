"""The contents of artifacts, in chunks, for every SQL database."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from typing import ClassVar

import sqlalchemy as sa

from pinnacle.backends.sql.schema import artifact, artifact_chunk, component_artifact, upload
from pinnacle.backends.sql.session import SqlSession
from pinnacle.base import limits
from pinnacle.base.chunks import pieces, read_ahead
from pinnacle.base.errors import BackendError, NotFound
from pinnacle.base.processes import is_gone, this_process
from pinnacle.base.refusals import no_artifact, upload_given_up

CHUNKS_AT_ONCE = 4
NOBODY = ""
"""The process of an upload that was given up: whoever comes along clears it."""


class SqlArtifacts:
    """The tables artifact, artifact_chunk and upload of one database.

    An artifact's chunks are put under a key of that upload alone, in short transactions, and become the artifact's in
    the last one: two who store the same content do not meet. The upload is over when a record uses the artifact: what
    a crash left before that belongs to nobody and is cleared by the next upload. Older versions put chunks under the
    hash itself, of any size.
    """

    pause_s: ClassVar[float] = 0.005
    """After each transaction of an upload, where a database has one writer: who waits for it asks now and then."""

    def __init__(self, session: SqlSession) -> None:
        self._session = session

    def has(self, sha256: str) -> bool:
        return self._find(sha256) is not None

    def put(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """See `CatalogStore.put_artifact`. Reads ahead of what it writes: a few chunks are in memory at a time."""
        if self.has(sha256):
            return
        self._session.migrate()
        self.clear_given_up()
        key = f"{sha256}:{uuid.uuid4().hex}"
        with closing(read_ahead(pieces(chunks, limits.CHUNK_BYTES))) as ahead:
            first = list(islice(ahead, CHUNKS_AT_ONCE))
            if len(first) < CHUNKS_AT_ONCE:
                self._put_small(sha256, key, first)
            else:
                self._upload(sha256, key, chain(first, ahead))

    def get(self, sha256: str) -> Iterator[bytes]:
        """See `CatalogStore.get_artifact`. Reads ahead of what is taken, in short statements."""
        found = self._find(sha256)
        if found is None:
            raise no_artifact(sha256)
        (key, whole), size = found, 0
        for chunk in read_ahead(self._read_all(key)):
            size += len(chunk)
            yield chunk
        if size != whole:
            raise NotFound(
                f"artifact {sha256} ended after {size} of {whole} bytes: it was removed while it was read, or "
                "damaged; add its component again"
            )

    def drop(self, connection: sa.Connection, artifacts: Collection[str]) -> list[str]:
        """Take artifacts away inside an open transaction; the keys that `clear` takes after it."""
        gone = sa.delete(artifact).where(artifact.c.sha256.in_(artifacts)).returning(artifact.c.sha256, artifact.c.key)
        keys = [key or sha256 for sha256, key in connection.execute(gone)]
        if keys:
            given_up = [{"key": key, "process": NOBODY, "expires_at": 0.0} for key in keys]
            connection.execute(sa.insert(upload), given_up)
        return keys

    def use(self, connection: sa.Connection, artifacts: Collection[str]) -> None:
        """End the uploads of artifacts that a record uses from now on, inside the transaction that stores it."""
        keys = sa.select(artifact.c.key).where(artifact.c.sha256.in_(artifacts))
        in_order = sa.select(upload.c.key).where(upload.c.key.in_(keys)).order_by(upload.c.key).with_for_update()
        if over := connection.scalars(in_order).all():
            connection.execute(sa.delete(upload).where(upload.c.key.in_(over)))

    def clear_given_up(self) -> None:
        """Erase what uploads left whose process is gone or silent, and what removals left that were cut short."""
        with self._session.reading() as connection:
            rows = connection.execute(
                sa.select(upload, (upload.c.expires_at <= self._session.now()).label("late"))
            ).all()
        for row in rows:
            if row.process != NOBODY and (row.late or is_gone(row.process)):
                self._give_up(row.key, upload.c.process == row.process, upload.c.expires_at == row.expires_at)
        self.clear([row.key for row in rows])

    # -- writing ------------------------------------------------------------------------------

    def _put_small(self, sha256: str, key: str, chunks: Sequence[bytes]) -> None:
        """What goes into one transaction needs no upload."""
        with self._session.writing() as connection:
            if self._add(connection, sha256, key, sum(map(len, chunks))):
                self._insert(connection, key, 0, chunks)
                self._begin(connection, key, limits.UNUSED_TTL_S)

    def _upload(self, sha256: str, key: str, chunks: Iterator[bytes]) -> None:
        """Write chunks and make them the artifact; what failed is cleared, by the next upload if not at once."""
        with self._session.writing() as connection:
            self._begin(connection, key, limits.UPLOAD_TTL_S)
        is_kept = False
        try:
            is_kept = self._finish(sha256, key, self._write_all(key, chunks))
        finally:
            if not is_kept:
                with suppress(BackendError):
                    self._give_up(key)
                    self.clear([key])

    def _begin(self, connection: sa.Connection, key: str, ttl_s: float) -> None:
        values = {"key": key, "process": this_process(), "expires_at": self._session.now() + ttl_s}
        connection.execute(sa.insert(upload).values(values))

    def _write_all(self, key: str, chunks: Iterator[bytes]) -> int:
        """Write chunks, some a transaction, which waits for none to be made; how many bytes they were."""
        size = position = 0
        while waiting := deque(islice(chunks, CHUNKS_AT_ONCE)):
            size += sum(map(len, waiting))
            while waiting:
                with self._session.writing() as connection:
                    self._keep(connection, key, limits.UPLOAD_TTL_S)
                    position += self._write_some(connection, key, position, waiting)
                time.sleep(self.pause_s)
        return size

    def _write_some(self, connection: sa.Connection, key: str, position: int, waiting: deque[bytes]) -> int:
        """Write as many of the waiting chunks as half the time for a transaction allows: the rest is for its commit."""
        began, written = time.monotonic(), 0
        while waiting and time.monotonic() - began < self._session.settings.write_target_s / 2:
            self._insert(connection, key, position + written, [waiting.popleft()])
            written += 1
        return written

    def _insert(self, connection: sa.Connection, key: str, position: int, chunks: Sequence[bytes]) -> None:
        rows = [{"sha256": key, "position": place, "data": chunk} for place, chunk in enumerate(chunks, position)]
        if rows:
            connection.execute(sa.insert(artifact_chunk), rows)

    def _keep(self, connection: sa.Connection, key: str, ttl_s: float) -> None:
        """Go on with an upload, which nobody clears from now on for a while."""
        mine = (upload.c.key == key, upload.c.process == this_process())
        later = self._session.now() + ttl_s
        if not connection.execute(sa.update(upload).where(*mine).values(expires_at=later)).rowcount:
            raise upload_given_up()

    def _finish(self, sha256: str, key: str, size: int) -> bool:
        """Make the upload the artifact, unless another was faster."""
        with self._session.writing() as connection:
            if not self._add(connection, sha256, key, size):
                return False
            self._keep(connection, key, limits.UNUSED_TTL_S)
        return True

    def _add(self, connection: sa.Connection, sha256: str, key: str, size: int) -> bool:
        new = self._session.insert(artifact).values(sha256=sha256, size=size, key=key)
        return connection.scalar(new.on_conflict_do_nothing().returning(artifact.c.sha256)) is not None

    # -- clearing -----------------------------------------------------------------------------

    def _give_up(self, key: str, *conditions: sa.ColumnElement[bool]) -> None:
        """Let an upload be cleared, with the artifact that it has become where no record uses that: it is locked, so
        that a record which is stored meanwhile is found, or finds it gone."""
        this = upload.c.key == key
        with self._session.writing() as connection:
            sha256 = connection.scalar(sa.select(artifact.c.sha256).where(artifact.c.key == key).with_for_update())
            if not connection.execute(sa.update(upload).where(this, *conditions).values(process=NOBODY)).rowcount:
                return
            users = sa.select(sa.literal(1)).where(component_artifact.c.sha256 == sha256).limit(1)
            if sha256 is not None and connection.scalar(users) is not None:
                connection.execute(sa.delete(upload).where(this))
            elif sha256 is not None:
                connection.execute(sa.delete(artifact).where(artifact.c.sha256 == sha256))

    def clear(self, keys: Sequence[str]) -> None:
        """Erase the chunks of those keys that were given up, some a transaction, and then the keys."""
        given_up = sa.select(upload.c.key).where(upload.c.key.in_(keys), upload.c.process == NOBODY)
        with self._session.reading() as connection:
            found = connection.scalars(given_up).all()
        for key in found:
            while self._clear_some(key):
                pass

    def _clear_some(self, key: str) -> bool:
        """Erase some chunks of a key, or the key that has none."""
        c = artifact_chunk.c
        first = sa.select(c.position).where(c.sha256 == key).order_by(c.position).limit(CHUNKS_AT_ONCE).subquery()
        with self._session.writing() as connection:
            last = connection.scalar(sa.select(sa.func.max(first.c.position)))
            if last is None:
                connection.execute(sa.delete(upload).where(upload.c.key == key))
                return False
            connection.execute(sa.delete(artifact_chunk).where(c.sha256 == key, c.position <= last))
            return True

    # -- reading ------------------------------------------------------------------------------

    def _find(self, sha256: str) -> tuple[str, int] | None:
        """The key of an artifact's chunks, and its size."""
        if not self._session.is_migrated():
            return None
        query = sa.select(artifact.c.key, artifact.c.size).where(artifact.c.sha256 == sha256)
        with self._session.reading() as connection:
            found = connection.execute(query).first()
        return None if found is None else (found.key or sha256, found.size)

    def _read_all(self, key: str) -> Iterator[bytes]:
        position = 0
        while chunks := self._read_some(key, position, CHUNKS_AT_ONCE):
            yield from chunks
            position += len(chunks)

    def _read_some(self, key: str, position: int, count: int) -> list[bytes]:
        """The next chunks; the numbers of a key's chunks are those from 0 on."""
        c = artifact_chunk.c
        query = sa.select(c.data).where(c.sha256 == key, c.position >= position, c.position < position + count)
        with self._session.reading() as connection:
            return list(connection.scalars(query.order_by(c.position)))
