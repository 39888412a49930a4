"""The registry of listeners: one row each, beside the output that it keeps fresh."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.records import listener_record
from pinnacle.backends.sql.schema import CHANGED_AT, SCHEMA, WORK_PREFIX, lease, listener, outbox_name, output
from pinnacle.backends.sql.session import SqlSession
from pinnacle.base.encoding import load_keys
from pinnacle.base.errors import TableLost
from pinnacle.base.listeners import Backlog, ListenerRecord, WorkerStatus, new_sweep
from pinnacle.base.processes import is_gone, place_of, this_process
from pinnacle.base.refusals import require_listener

ATTENDANCE = "attends "
"""How the leases are named by which workers show that they live."""


class SqlListeners:
    """The listeners of one database."""

    def __init__(self, session: SqlSession, capture_drops: Callable[[int], list[str]]) -> None:
        self._session, self._capture_drops = session, capture_drops

    def all(self) -> list[ListenerRecord]:
        if not self._session.is_migrated():
            return []
        query = sa.select(
            listener, output.c.table_schema, output.c.table_name, output.c.name, output.c.fields, output.c.type
        ).join(output, output.c.id == listener.c.output_id)
        with self._session.reading() as connection:
            rows = connection.execute(query.order_by(listener.c.output_id)).all()
        return list(map(listener_record, rows))

    def register(self, output: int, identifier: str, version: int) -> bool:
        """Record a listener, or its new version; whether there was anything to record."""
        mine = listener.c.output_id == output
        with self._session.writing() as connection:
            found = connection.execute(sa.select(listener.c.identifier).where(mine)).first()
            if found is None:
                row = {"output_id": output, "identifier": identifier, "version": version, "shape": "{}"}
                connection.execute(sa.insert(listener).values(row))
                return True
            require_listener(found.identifier, identifier)
            changed = sa.update(listener).where(mine, listener.c.version != version)
            return bool(connection.execute(changed.values(version=version, paused=None)).rowcount)

    def move(self, output: int, seen: int, version: int) -> bool:
        """Put a version in the place of the one ``seen``, with a sweep due; whether that was still there."""
        mine = listener.c.output_id == output, listener.c.version == seen
        news = {"version": version, "sweep": new_sweep(), "error": None, "error_at": None}
        with self._session.writing() as connection:
            return bool(connection.execute(sa.update(listener).where(*mine).values(news)).rowcount)

    def pause(self, output: int, reason: str) -> None:
        self._change(output, paused=self._session.storable(reason))

    def resume(self, output: int) -> None:
        self._change(output, paused=None, sweep=new_sweep())

    def request_sweep(self, output: int) -> None:
        self._change(output, sweep=new_sweep())

    def record_error(self, output: int, message: str) -> None:
        self._change(output, error=self._session.storable(message), error_at=time.time())

    def clear_error(self, output: int) -> None:
        self._change(output, error=None, error_at=None)

    def advance_sweep(self, output: int, seen: str, now: str | None) -> bool:
        """Move a sweep on, or end it (None), unless another was asked for since it was ``seen``."""
        values: dict[str, Any] = {"sweep": now}
        if now is None:
            values["swept_at"] = time.time()
        statement = sa.update(listener).where(listener.c.output_id == output, listener.c.sweep == seen)
        with self._session.writing() as connection:
            return bool(connection.execute(statement.values(values)).rowcount)

    def attend(self, worker: str, since: float, ttl_s: float) -> None:
        if not self._session.is_migrated():  # its tables were dropped by hand
            return
        row = {
            "id": f"{ATTENDANCE}{worker}", "output_id": 0, "owner": worker, "process": this_process(),
            "expires_at": time.time() + ttl_s, "keys": json.dumps([since]),
        }  # fmt: skip
        dead = sa.and_(lease.c.id.like(f"{ATTENDANCE}%"), lease.c.expires_at < time.time())
        with self._session.writing() as connection:
            connection.execute(sa.delete(lease).where(sa.or_(lease.c.id == row["id"], dead)))
            if ttl_s:
                connection.execute(sa.insert(lease).values(row))

    def workers(self) -> list[WorkerStatus]:
        if not self._session.is_migrated():
            return []
        query = sa.select(lease.c.process, lease.c["keys"], lease.c.expires_at).where(lease.c.id.like(f"{ATTENDANCE}%"))
        with self._session.reading() as connection:
            rows = connection.execute(query).all()
        living = [row for row in rows if row.expires_at >= time.time() and not is_gone(row.process)]
        found = [WorkerStatus(*place_of(row.process), json.loads(row.keys)[0]) for row in living]
        return sorted(found, key=lambda worker: worker.since)

    def backlog(self, output: int) -> Backlog:
        """What waits for a listener, counted; see `Backlog`."""
        outbox, work = self._session.own(outbox_name(output)), self._session.own(f"{WORK_PREFIX}{output}")
        first = self._session.epoch_s(f"min({CHANGED_AT})")
        lost = self._lost(output)
        with self._session.reading() as connection:
            changes = waiting = newer = older = None
            if outbox not in lost:
                changes, newer = connection.exec_driver_sql(f"SELECT count(*), {first} FROM {outbox}").one()
            if work not in lost:
                waiting, older = connection.exec_driver_sql(f"SELECT count(*), min(at) FROM {work}").one()
            leases = sa.select(lease.c["keys"], lease.c.process, lease.c.expires_at).where(lease.c.output_id == output)
            held = connection.execute(leases).all()
        now = time.time()
        in_flight = sum(len(load_keys(row.keys)) for row in held if row.expires_at >= now and not is_gone(row.process))
        since = min((at for at in (newer, older) if at is not None), default=now)
        return Backlog(
            changes=changes or 0, work=waiting or 0, in_flight=in_flight, oldest_s=max(0.0, now - since),
            lost=tuple(sorted(lost)),
        )  # fmt: skip

    def _lost(self, output: int) -> set[str]:
        """Those of a listener's tables that somebody dropped; its worker makes them again, and looks at all rows."""
        with self._session.reading() as connection:
            found = self._session.own_tables.found(connection)
        mine = (outbox_name(output), f"{WORK_PREFIX}{output}")
        return {self._session.own(name) for name in mine if name not in found}

    def has_work(self, output: int) -> bool:
        """Whether anything waits, the cheap way; where a table is lost, nobody knows, and there may."""
        tables = (self._session.own(outbox_name(output)), self._session.own(f"{WORK_PREFIX}{output}"))
        try:
            with self._session.reading() as connection:
                return any(connection.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1").first() for table in tables)
        except TableLost:
            return True

    def remove(self, output: int) -> None:
        """Take away a listener's triggers, then its tables and its row in the registry.

        It is paused first, so that no worker takes its triggers for lost and makes them again.
        """
        self.pause(output, "being removed")
        self._session.alter_all(sa.table(f"the table of output {output}"), self._capture_drops(output))
        with self._session.writing() as connection:
            for name in (outbox_name(output), f"{WORK_PREFIX}{output}"):
                connection.execute(sa.schema.DropTable(sa.Table(name, sa.MetaData(schema=SCHEMA)), if_exists=True))
            connection.execute(sa.delete(listener).where(listener.c.output_id == output))

    def _change(self, output: int, **values: Any) -> None:
        with self._session.writing() as connection:
            connection.execute(sa.update(listener).where(listener.c.output_id == output).values(values))
