"""Leases that keep concurrent owners off each other's rows."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.schema import lease, output
from pinnacle.backends.sql.session import SqlSession
from pinnacle.base.encoding import dump_keys, load_keys
from pinnacle.base.failpoints import failpoint
from pinnacle.base.processes import is_gone, this_process
from pinnacle.base.rows import Key, Page


class SqlQueue:
    """Leases of one output. A lease lists the keys it covers, so that any two selects can
    be compared whatever their conditions, key types and collations.

    The output's row of the registry is locked before any lease, by all: in another order
    two would wait for each other. This object's own lock makes this owner's releases and
    their count one step for the thread that reads pages, which would else take them for
    another owner's. Whoever waits for it holds no connection, as the pool may have no other.
    """

    def __init__(self, session: SqlSession, output_id: int) -> None:
        self._session, self._output = session, output_id
        self._own_releases, self._lock = 0, threading.Lock()

    def generation(self) -> int:
        """How often others released rows of this output so far."""
        query = sa.select(output.c.released).where(output.c.id == self._output)
        with self._lock, self._session.reading() as connection:
            return _counted(connection.scalar(query)) - self._own_releases

    def claim(self, owner: str, page: Page, done: Sequence[str], ttl_s: float) -> tuple[str, Sequence[int], bool]:
        """See `Target.claim`. Claims of one output are serialised by its registry row."""
        identifier = uuid.uuid4().hex
        with self._lock, self._write() as connection:
            released = connection.scalar(
                sa.update(output)
                .where(output.c.id == self._output)
                .values(released=output.c.released + (1 if done else 0))
                .returning(output.c.released)
            )
            if done:
                connection.execute(sa.delete(lease).where(lease.c.id.in_(done)))
                self._own_releases += 1
            others, freed = self._live_keys(connection, owner)
            granted: Sequence[int] = range(len(page.keys))
            if others:
                granted = [i for i, key in enumerate(page.keys) if key not in others]
            if granted:
                keys = page.keys if len(granted) == len(page.keys) else [page.keys[i] for i in granted]
                self._insert(connection, identifier, owner, keys, ttl_s)
        released_by_others = _counted(released) - self._own_releases
        return identifier, granted, freed or released_by_others != page.generation

    def _live_keys(self, connection: sa.Connection, owner: str) -> tuple[set[Any], bool]:
        """Keys that other live runs hold, and whether leases of the dead were removed on the way."""
        query = sa.select(lease.c.id, lease.c.process, lease.c.expires_at).where(
            lease.c.output_id == self._output, lease.c.owner != owner
        )
        live: list[str] = []
        void: list[str] = []
        for identifier, process, expires_at in connection.execute(query):
            (void if expires_at < time.time() or is_gone(process) else live).append(identifier)
        if void:
            connection.execute(sa.delete(lease).where(lease.c.id.in_(void)))
        if not live:
            return set(), bool(void)
        texts = connection.scalars(sa.select(lease.c["keys"]).where(lease.c.id.in_(live)))
        return {key for text in texts for key in load_keys(text)}, bool(void)

    def lease_work(self, owner: str, choose: Callable[[sa.Connection, set[Any]], list[Key]], ttl_s: float) -> str:
        """Lease the keys that ``choose`` finds, given the keys that all live leases hold; the lease's id.

        Claims of one output are serialised by its registry row.
        """
        identifier = uuid.uuid4().hex
        with self._write() as connection:
            connection.execute(sa.update(output).where(output.c.id == self._output).values(released=output.c.released))
            others, freed = self._live_keys(connection, "")
            keys = choose(connection, others)
            if keys:
                self._insert(connection, identifier, owner, keys, ttl_s)
                failpoint("in-claim")
            if freed:
                self._count_release(connection)
        return identifier

    def lease_few(
        self, connection: sa.Connection, raw: Any, owner: str, keys: Sequence[Key], ttl_s: float
    ) -> str | None:
        """Lease these keys inside an open transaction, of which ``raw`` is the driver's connection; None where a live
        lease holds one of them."""
        registry, leases = self._session.own(output.name), self._session.own(lease.name)
        raw.execute(f"UPDATE {registry} SET released = released WHERE id = {self._output}")
        any_lease = raw.execute(f"SELECT 1 FROM {leases} WHERE output_id = {self._output} LIMIT 1").fetchone()
        if any_lease is not None and not self.are_free(connection, keys):
            return None
        return self.put_lease(raw, uuid.uuid4().hex, owner, keys, ttl_s)

    def are_free(self, connection: sa.Connection, keys: Sequence[Key]) -> bool:
        """Whether no live lease holds any of these keys; asked in a transaction that has locked the output. Leases of
        the dead are removed."""
        others, freed = self._live_keys(connection, "")
        if freed:
            self._count_release(connection)
        return others.isdisjoint(keys)

    def put_lease(self, raw: Any, identifier: str, owner: str, keys: Sequence[Key], ttl_s: float) -> str:
        """Lease keys that are free, by the driver's connection; the lease."""
        entry = self._entry(identifier, owner, keys, ttl_s)
        marks = ", ".join([self._session.mark] * len(entry))
        statement = f"INSERT INTO {self._session.own(lease.name)} ({', '.join(entry)}) VALUES ({marks})"
        raw.execute(statement, tuple(entry.values()))
        return identifier

    def release_work(self, connection: sa.Connection, identifier: str, kept: Sequence[Key] = ()) -> None:
        """Give up one lease inside an open transaction, but for the keys that are ``kept``."""
        self._count_release(connection)
        if kept:
            connection.execute(sa.update(lease).where(lease.c.id == identifier).values(keys=dump_keys(kept)))
        else:
            connection.execute(sa.delete(lease).where(lease.c.id == identifier))

    def _count_release(self, connection: sa.Connection) -> None:
        connection.execute(sa.update(output).where(output.c.id == self._output).values(released=output.c.released + 1))

    def _insert(
        self, connection: sa.Connection, identifier: str, owner: str, keys: Sequence[Key], ttl_s: float
    ) -> None:
        connection.execute(sa.insert(lease).values(self._entry(identifier, owner, keys, ttl_s)))

    def _entry(self, identifier: str, owner: str, keys: Sequence[Key], ttl_s: float) -> dict[str, Any]:
        return {
            "id": identifier, "output_id": self._output, "owner": owner, "process": this_process(),
            "expires_at": time.time() + ttl_s, "keys": dump_keys(keys),
        }  # fmt: skip

    def renew(self, owner: str, ttl_s: float) -> None:
        with self._write() as connection:
            connection.execute(sa.update(lease).where(lease.c.owner == owner).values(expires_at=time.time() + ttl_s))

    def release(self, owner: str) -> None:
        with self._lock, self._write() as connection:
            if connection.scalar(sa.select(sa.literal(1)).where(lease.c.owner == owner).limit(1)) is not None:
                self._count_release(connection)
                self._own_releases += 1
                connection.execute(sa.delete(lease).where(lease.c.owner == owner))

    def _write(self) -> AbstractContextManager[sa.Connection]:
        return self._session.writing(durable=False)


def _counted(value: Any) -> int:
    """A count of the registry's; 0 for what somebody put there that is none."""
    return value if isinstance(value, int) else 0
