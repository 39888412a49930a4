"""The short way of few changed rows: folded, claimed and read in one transaction of two round trips."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from pinnacle.backends.postgres.connections import COMMIT, PLANNED, WRITING, begin_parts, forget_plans
from pinnacle.backends.postgres.outbox import Folded, Outbox
from pinnacle.backends.postgres.session import PostgresSession
from pinnacle.backends.postgres.target import PostgresTarget
from pinnacle.backends.sql.changes import FEW_ROWS
from pinnacle.backends.sql.schema import WORK_PREFIX, lease, listener, output
from pinnacle.base.failpoints import failpoint
from pinnacle.base.listeners import NOTHING, Claim, Taken, new_sweep
from pinnacle.base.rows import Page
from pinnacle.base.told import logger

log = logger(__name__)

LONG_LOCK_MS = 100
BRIEF = {"synchronous_commit": "off", "lock_timeout": f"{LONG_LOCK_MS}ms"}
"""A power failure may undo what is taken, and no lock is waited for for long."""
FEW = {**WRITING, "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off", **BRIEF}
"""Statements about so few rows go by indexes, whatever the tables hold: they are planned once, not for each row."""
AS_THEY_COME = {**PLANNED, **BRIEF}
"""For a select that looks at other tables as well."""


@dataclass(frozen=True)
class Wanted:
    """What is to be taken, at most ``most`` rows; see `Feed.take`. No row of work is at a place below ``lowest``."""

    owner: str
    most: int
    ttl_s: float
    version: int
    lowest: int


class Looked(NamedTuple):
    """The driver's cursors of a fold, of what waits after it, and of whether there is any lease."""

    folded: Any
    waiting: Any
    leased: Any


class FewRows:
    """Takes all rows that wait for one listener, where these are few and nobody holds any of them.

    All statements that need no answer of each other go to the server together. The listener is locked first, so that
    no finish and no fold is between any two of them, and the output before its leases, by all. The inputs are read by
    the last statement, so with a newer snapshot than what the rows are known by.
    """

    def __init__(self, session: PostgresSession, target: PostgresTarget, outbox: Outbox) -> None:
        self._session, self._target, self._outbox = session, target, outbox
        number, own = target.info.id, session.own
        work, leases = own(f"{WORK_PREFIX}{number}"), own(lease.name)
        self._registry, self._number = own(listener.name), number
        self._lock = f"SELECT position, version, paused FROM {self._registry} WHERE output_id = {number} FOR UPDATE"
        waits = f"EXISTS (SELECT FROM {work} WHERE place >= %s)"
        self._lock_output = f"SELECT FROM {own(output.name)} WHERE id = {number} AND {waits} FOR NO KEY UPDATE"
        self._leased = f"SELECT 1 FROM {leases} WHERE output_id = {number} LIMIT 1"
        keys = ", ".join(f"k{i}" for i in range(target.width))
        self._waiting = f"SELECT {keys}, place, revision FROM {work} WHERE place >= %s ORDER BY place LIMIT %s"
        self._begin = begin_parts(FEW if target.is_by_key_alone else AS_THEY_COME)
        self._position: str | None = None
        """As the registry had it last; another worker may have moved it since."""

    def take(self, wanted: Wanted) -> Taken:
        """See `Feed.take`. Who has locked the whole table, or the listener, for long is waited for by `claim` and what
        comes after; and a table that is another since its statements were planned is read by statements that are
        planned anew."""
        import psycopg

        with self._session.writing_both() as (connection, raw):
            try:
                return self._take(connection, raw, wanted) or self._take(connection, raw, wanted) or Taken(claim=None)
            except psycopg.errors.LockNotAvailable:
                raw.rollback()
            except psycopg.errors.FeatureNotSupported as error:
                log.debug("the statements for few rows are planned anew: %s", error)
                raw.rollback()
                forget_plans(raw)
        return Taken(claim=None)

    def _take(self, connection: sa.Connection, raw: Any, wanted: Wanted) -> Taken | None:
        """None, and nothing is done, where another worker has moved the position since."""
        looked = None
        with raw.pipeline():
            for statement in self._begin:
                raw.execute(statement)
            entry = raw.execute(self._lock)
            if self._position is not None:
                looked = self._look(raw, self._position, wanted)
        position, version, paused = entry.fetchone() or ("", None, None)
        if version != wanted.version or paused is not None:
            raw.rollback()
            return Taken(is_current=False)
        if looked is not None and position != self._position:
            self._position = None
            raw.rollback()
            return None
        if looked is None:
            with raw.pipeline():
                looked = self._look(raw, position, wanted)
        folded = self._outbox.folded(position, looked.folded.fetchone())
        failpoint("in-fold")
        claim = self._claim(connection, folded, looked, wanted)
        page = self._end(raw, folded, claim, wanted)
        self._position = position if folded.position is None else folded.position
        return Taken(folded=folded.count, claim=claim, page=page)

    def _look(self, raw: Any, position: str, wanted: Wanted) -> Looked:
        """Fold, and ask what waits and whether anybody holds rows."""
        folded = raw.execute(*self._outbox.fold(position))
        raw.execute(self._lock_output, (wanted.lowest,))
        waiting = raw.execute(self._waiting, (wanted.lowest, wanted.most + 1))
        return Looked(folded, waiting, raw.execute(self._leased))

    def _claim(self, connection: sa.Connection, folded: Folded, looked: Looked, wanted: Wanted) -> Claim | None:
        """The claim that is to be recorded; see `Taken`."""
        rows = self._target.rows_of(looked.waiting)
        if folded.count > FEW_ROWS or len(rows) > wanted.most:
            return None
        if not rows:
            return NOTHING
        keys = self._target._keys(rows)
        if looked.leased.fetchone() is not None and not self._target.queue.are_free(connection, keys):
            return None
        places, revisions = [row[-2] for row in rows], [row[-1] for row in rows]
        return Claim(lease=uuid.uuid4().hex, keys=keys, places=places, revisions=revisions)

    def _end(self, raw: Any, folded: Folded, claim: Claim | None, wanted: Wanted) -> Page | None:
        """Record what was done and commit it; the rows of the claim as they were read after that."""
        found = None
        with raw.pipeline():
            if folded.position is not None:
                self._note(raw, position=folded.position, folded_at=time.time())
            if folded.has_marker:
                self._note(raw, sweep=new_sweep())
            if claim is not None and claim.keys:
                self._target.queue.put_lease(raw, claim.lease, wanted.owner, claim.keys, wanted.ttl_s)
                failpoint("in-claim")
                found = raw.execute(*self._target.few_page(claim.keys))
            raw.execute(COMMIT)
        return None if found is None else self._target.page_of(found)

    def _note(self, raw: Any, **values: Any) -> None:
        changes = ", ".join(f"{name} = %s" for name in values)
        raw.execute(f"UPDATE {self._registry} SET {changes} WHERE output_id = {self._number}", tuple(values.values()))
