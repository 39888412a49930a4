"""Capture on SQLite: triggers made of built-in functions alone, so that any program can still write.

A comparison tells apart all that differs in bytes or in type. An own write-back is known
by a mark in the registry that is set and taken back inside its transaction.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.changes import FEW_ROWS, SqlFeed
from pinnacle.backends.sql.schema import CHANGED_AT, WORK_PREFIX, lease, listener, outbox_name, output, state_name
from pinnacle.backends.sqlite.keyless import stored_key
from pinnacle.backends.sqlite.session import SqliteSession
from pinnacle.backends.sqlite.target import SqliteTarget
from pinnacle.backends.sqlite.text import bound, is_escaped
from pinnacle.base.failpoints import failpoint
from pinnacle.base.listeners import NOTHING, Claim, Taken
from pinnacle.base.rows import Key, OutputBatch

TRIGGERS = ("insert", "update", "move", "delete", "clear", "side_insert", "side_update", "side_delete")


def trigger_name(number: int, kind: str) -> str:
    """The name of one of a listener's triggers."""
    return f"pinnacle_{number}_{kind}"


def capture_drops(session: SqliteSession, number: int) -> list[str]:
    """The statements that take a listener's triggers away, whether or not they are there."""
    return [f"DROP TRIGGER IF EXISTS {session.quote(trigger_name(number, kind))}" for kind in TRIGGERS]


class SqliteFeed(SqlFeed):
    """See `SqlFeed`."""

    session: SqliteSession
    target: SqliteTarget
    fold_rows = 5_000

    def tables(self) -> list[str]:
        kinds = [f"k{i} {self._declared(name)}" for i, name in enumerate(self.key)]
        filled = [f"{kind} NOT NULL" for kind in kinds]
        listed = ", ".join(f"k{i}" for i in range(len(kinds)))
        work = self._work_name
        return [
            f"CREATE TABLE IF NOT EXISTS {self.outbox} (id INTEGER PRIMARY KEY, {', '.join(kinds)}, "
            f"{CHANGED_AT} REAL NOT NULL DEFAULT (julianday('now')))",
            f"CREATE TABLE IF NOT EXISTS {work} "
            f"(place INTEGER PRIMARY KEY, {', '.join(filled)}, revision INTEGER NOT NULL, at REAL NOT NULL, "
            f"UNIQUE ({listed}))",
        ]

    def _declared(self, name: str) -> str:
        column = self.table.c[name]
        kind = str(column.type.compile(dialect=self.session.dialect)).strip()
        collation = getattr(column.type, "collation", None)
        return f"{kind} COLLATE {collation}" if collation else kind

    # -- capture -----------------------------------------------------------------------------------

    def triggers(self) -> dict[str, list[str]]:
        quote = self.session.quote
        keys = ", ".join(f"k{i}" for i in range(len(self.key)))
        rows = {
            which: f"INSERT INTO {self.outbox} ({keys}) VALUES "
            f"({', '.join(f'{which}.{quote(name)}' for name in self.key)});"
            for which in ("old", "new")
        }
        registry = self.session.own(listener.name)
        by_others = f"NOT EXISTS (SELECT 1 FROM {registry} WHERE output_id = {self.number} AND is_writing)"
        inputs = self._changed(self.inputs)
        output = f" OR ({self._changed([self.info.name])} AND {by_others})" if self.side is None else ""
        moved = self._changed(self.key)
        on = {
            "insert": ("INSERT", "", rows["new"]),
            "update": ("UPDATE", f"WHEN {inputs} OR {moved}{output} ", rows["new"]),
            "move": ("UPDATE", f"WHEN {moved} ", rows["old"]),
            "delete": ("DELETE", "", rows["old"]),
        }
        if self.watch.clears and self.side is not None:
            same_row = " AND ".join(
                f"{quote(own)} IS new.{quote(name)}" for own, name in zip(self.side_key(), self.key, strict=True)
            )
            on["clear"] = ("UPDATE", f"WHEN {inputs} ", f"DELETE FROM {quote(self.side.name)} WHERE {same_row};")
        elif self.watch.clears:
            same_row = " AND ".join(f"{quote(name)} IS new.{quote(name)}" for name in self.key)
            blank = f"UPDATE {quote(self.table.name)} SET {quote(self.info.name)} = NULL WHERE {same_row};"
            on["clear"] = ("UPDATE", f"WHEN {inputs} ", blank)
        return {
            self._name(kind): [
                f"CREATE TRIGGER {quote(self._name(kind))} AFTER {event} ON {quote(self.table.name)} "
                f"{condition}BEGIN {body} END"
            ]
            for kind, (event, condition, body) in on.items()
        } | self._side_triggers(by_others)

    def _side_triggers(self, by_others: str) -> dict[str, list[str]]:
        """Changes of the side rows by others count as changes of their source row."""
        if self.side is None:
            return {}
        quote, keys = self.session.quote, ", ".join(f"k{i}" for i in range(len(self.key)))
        made = {}
        for event, sides in (("INSERT", ["new"]), ("UPDATE", ["old", "new"]), ("DELETE", ["old"])):
            name = self._name(f"side_{event.lower()}")
            of = [", ".join(f"{side}.{quote(column)}" for column in self.side_key()) for side in sides]
            values = ", ".join(f"({key})" for key in of)
            made[name] = [
                f"CREATE TRIGGER {quote(name)} AFTER {event} ON {quote(self.side.name)} WHEN {by_others} "
                f"BEGIN INSERT INTO {self.outbox} ({keys}) VALUES {values}; END"
            ]
        return made

    def drops(self) -> list[str]:
        return capture_drops(self.session, self.number)

    def present(self, connection: sa.Connection, wanted: Mapping[str, Sequence[str]]) -> set[str]:
        tables = [table.name.lower() for table in (self.table, self.side) if table is not None]
        query = "SELECT name, lower(tbl_name), type FROM sqlite_master WHERE type IN ('trigger', 'table')"
        found = connection.exec_driver_sql(query).all()
        own = {outbox_name(self.number), f"{WORK_PREFIX}{self.number}", state_name(self.number)}
        if not own.issubset(row.name for row in found if row.type == "table"):
            return set()
        return {name for name, table, kind in found if table in tables and kind == "trigger" and name in wanted}

    def _name(self, kind: str) -> str:
        return trigger_name(self.number, kind)

    def _changed(self, columns: Sequence[str]) -> str:
        quote = self.session.quote
        tests = [
            f"old.{c} IS NOT new.{c} COLLATE BINARY OR typeof(old.{c}) <> typeof(new.{c})" for c in map(quote, columns)
        ]
        return f"({' OR '.join(tests)})"

    def _shape(self, connection: sa.Connection) -> dict[str, str]:
        query = "SELECT name, type FROM pragma_table_xinfo(?, ?)"
        rows = connection.exec_driver_sql(query, (self.table.name, "main"))
        return {name: kind for name, kind in rows if name in self.watched}

    def _key_now(self, connection: sa.Connection) -> list[str]:
        query = "SELECT name FROM pragma_table_xinfo(?, ?) WHERE pk ORDER BY pk"
        return [row[0] for row in connection.exec_driver_sql(query, (self.table.name, "main"))]

    # -- work --------------------------------------------------------------------------------------

    def fold(self) -> int:
        if not self._has_changes():
            return 0
        count = super().fold()  # twice, so that a claim is worth its round, and the file's lock is held briefly
        return count if count < self.fold_rows else count + super().fold()

    def _has_changes(self) -> bool:
        """An empty outbox needs no lock of the file."""
        with self.session.reading() as connection:
            return connection.exec_driver_sql(f"SELECT 1 FROM {self.outbox} LIMIT 1").first() is not None

    def _has_news(self) -> bool:
        """Whether there is anything to take, by no lock of the file."""
        work = self._work_name
        query = f"SELECT 1 WHERE EXISTS (SELECT 1 FROM {self.outbox}) OR EXISTS (SELECT 1 FROM {work})"
        with self.session.reading() as connection, self.session.driver(connection) as raw:
            return raw.execute(query).fetchone() is not None

    def take(self, owner: str, limit: int, ttl_s: float, version: int) -> Taken:
        if not self._has_news():
            return Taken()
        with self.session.writing(durable=False) as connection, self.session.driver(connection) as raw:
            position, found, paused = self._locked(raw) or ("", None, None)
            if found != version or paused is not None:
                return Taken(is_current=False)
            folded = self._fold(connection, raw, position)
            claim = self._claim_few(connection, raw, owner, limit, ttl_s) if folded <= FEW_ROWS else None
            page = self.target.reread_within(connection, claim.keys) if claim is not None and claim.keys else None
        return Taken(folded=folded, claim=claim, page=page)

    def _claim_few(self, connection: sa.Connection, raw: Any, owner: str, limit: int, ttl_s: float) -> Claim | None:
        """All rows that wait, where these are few and nobody holds any of them. No finish and no fold is between
        this and the end of the transaction, as the listener is locked."""
        most = min(limit, FEW_ROWS)
        columns, mark = ", ".join(column.name for column in self.work_key), self.session.mark
        first = f"WHERE place >= {mark} ORDER BY place LIMIT {mark}"
        query = f"SELECT {columns}, place, revision FROM {self._work_name} {first}"
        rows = self.target.fetch_raw(raw, query, (self._lowest(connection), most + 1))
        if not rows:
            return NOTHING
        keys = self.target._keys(rows)
        lease = self.target.queue.lease_few(connection, raw, owner, keys, ttl_s) if len(rows) <= most else None
        if lease is None:
            return None
        failpoint("in-claim")
        return Claim(lease=lease, keys=keys, places=[row[-2] for row in rows], revisions=[row[-1] for row in rows])

    def _fold_some(self, connection: sa.Connection, raw: Any, position: str) -> tuple[int, bool]:
        """``position`` holds the last place given out. Places are counted here, as the outbox's own
        numbers begin anew when it is empty: AUTOINCREMENT would cost the user's insert a sixth of its time."""
        run, outbox = raw.execute, self.outbox
        first, last = run(
            f"SELECT (SELECT min(id) FROM {outbox}), coalesce((SELECT id FROM {outbox} ORDER BY id LIMIT 1 "
            f"OFFSET {self.fold_rows - 1}), (SELECT max(id) FROM {outbox}))"
        ).fetchone()
        if last is None:
            return 0, False
        ahead = int(position or 0) + 1 - first
        work = self._work_name
        names = [f"k{i}" for i in range(len(self.key))]
        keys, has_key = ", ".join(names), " AND ".join(f"{name} IS NOT NULL" for name in names)
        run(
            f"INSERT INTO {work} (place, {keys}, revision, at) SELECT max(id) + {ahead}, {keys}, 0, "
            f"{self.session.epoch_s(f'min({CHANGED_AT})')} "
            f"FROM {outbox} WHERE id <= {last} AND {has_key} GROUP BY {keys} "
            f"ON CONFLICT ({keys}) DO UPDATE SET revision = excluded.place"
        )
        if run(f"SELECT 1 FROM {outbox} WHERE id <= {last} AND NOT ({has_key}) LIMIT 1").fetchone() is not None:
            self.target.settle_keyless(connection)
        count = run(f"DELETE FROM {outbox} WHERE id <= {last}").rowcount
        self._note(raw, position=str(last + ahead), folded_at=time.time())
        return count, False

    def _append(self, connection: sa.Connection, keys: Sequence[Key]) -> None:
        raw: Any = connection.connection.driver_connection
        listed, marks = ", ".join(f"k{i}" for i in range(len(self.key))), ", ".join("?" * len(self.key))
        rows = [tuple(stored_key(key)) for key in keys]
        escaped = [row for row in rows if any(map(is_escaped, row))]
        plain = [row for row in rows if row not in escaped] if escaped else rows
        raw.executemany(f"INSERT INTO {self.outbox} ({listed}) VALUES ({marks})", plain)
        for row in escaped:
            casts, values = bound(row)
            raw.execute(f"INSERT INTO {self.outbox} ({listed}) VALUES ({', '.join(casts)})", values)

    def _clear_work(self, connection: sa.Connection, places: Sequence[int], newest: int, *, is_range: bool) -> None:
        work = self._work_name
        values: list[Any]
        chosen, values = "place IN (SELECT value FROM json_each(?))", [json.dumps(list(places))]
        if is_range:
            chosen, values = "place BETWEEN ? AND ?", [places[0], places[-1]]
        connection.exec_driver_sql(f"DELETE FROM {work} WHERE {chosen} AND revision <= {newest}", tuple(values))

    def _settle(self, claim: Claim, batch: OutputBatch) -> bool:
        own, work = self.session.own, self._work_name
        places = json.dumps(list(claim.places))
        return self.target.write_all(
            batch,
            after=[
                (f"UPDATE {own(listener.name)} SET processed = processed + ? WHERE output_id = ?",
                 (len(claim.keys), self.number)),
                (f"DELETE FROM {work} WHERE place IN (SELECT value FROM json_each(?)) AND revision <= ?",
                 (places, claim.newest)),
                (f"UPDATE {own(output.name)} SET released = released + 1 WHERE id = ?", (self.number,)),
                (f"DELETE FROM {own(lease.name)} WHERE id = ?", (claim.lease,)),
            ],
        )  # fmt: skip

    def _requeue(self, connection: sa.Connection, places: Sequence[int]) -> None:
        mine = listener.c.output_id == self.number
        given_out = int(connection.scalar(sa.select(listener.c.position).where(mine)) or 0)
        work = self._work_name
        moves = [(given_out + n, place) for n, place in enumerate(places, 1)]
        connection.exec_driver_sql(f"UPDATE {work} SET place = ? WHERE place = ?", moves)
        connection.execute(self._update(position=str(given_out + len(places))))
