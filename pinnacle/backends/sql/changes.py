"""The feed of one listener: changes that triggers captured, folded into work, claimed and cleared.

Triggers append keys to an outbox inside the user's transaction. `fold` moves them into one
row of work a key, which keeps its place in the queue and gets a new revision: folds of
one listener are serialised, so that what is folded later has the greater number. A claim
lists its keys in a lease, which bulk runs respect as well; finished rows are taken out of
the work where their revision is still the one that was claimed.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from pinnacle.backends.sql.outputs import create_state
from pinnacle.backends.sql.schema import WORK_PREFIX, listener, outbox_name, work_table
from pinnacle.backends.sql.session import SqlSession
from pinnacle.backends.sql.side import SideTarget
from pinnacle.backends.sql.source import input_columns
from pinnacle.backends.sql.target import SqlTarget
from pinnacle.base.failpoints import failpoint
from pinnacle.base.listeners import NOTHING, Claim, Taken, Watch, new_sweep
from pinnacle.base.rows import Key, OutputBatch

GONE = "is gone: it was renamed or dropped; resume the listener when it is there again, or remove it"

FLOOR_S = 5.0
"""How long the lowest place seen may serve as the start of claims: rows that were cleared since are skipped."""
FEW_ROWS = 100
"""So many rows are folded, claimed and read in one transaction, and written and finished in another."""


class SqlFeed(ABC):
    """See `Feed`. Subclasses know the triggers, and how rows move from the outbox to the work."""

    fold_rows: ClassVar[int]

    def __init__(self, session: SqlSession, target: SqlTarget, reads: Sequence[str], watch: Watch) -> None:
        self.session, self.target, self.watch = session, target, watch
        self.source, self.info, self.number = target.source, target.info, target.info.id
        self.table = target.source.actual
        self.key = [column.name for column in target.source.key]
        self.inputs = list(dict.fromkeys([*input_columns(target.source), *reads]))
        self.work = work_table(self.number, [self.table.c[name] for name in self.key])
        self.work_key = [self.work.c[f"k{i}"] for i in range(len(self.key))]
        self.side = target.side if isinstance(target, SideTarget) else None
        self.outbox = session.own(outbox_name(self.number))
        self._floor, self._floor_at = 0, float("-inf")

    # -- what the dialects say differently ---------------------------------------------------------

    @abstractmethod
    def triggers(self) -> dict[str, list[str]]:
        """The statements that make each trigger, by the trigger's name, in order."""

    @abstractmethod
    def drops(self) -> list[str]:
        """The statements that take the triggers and what they need away, whether or not they are there."""

    @abstractmethod
    def tables(self) -> list[str]:
        """The statements that make the outbox and the work, unless they are there."""

    @abstractmethod
    def present(self, connection: sa.Connection, wanted: Mapping[str, Sequence[str]]) -> set[str]:
        """The names of those of the ``wanted`` `triggers` that are there, switched on, and have what they write to."""

    @abstractmethod
    def _fold_some(self, connection: sa.Connection, raw: Any, position: str) -> tuple[int, bool]:
        """Move up to ``fold_rows`` changes into the work, given the ``position`` in the registry; how many, and
        whether one asks for a sweep."""

    @abstractmethod
    def _append(self, connection: sa.Connection, keys: Sequence[Key]) -> None:
        """Put keys into the outbox."""

    @abstractmethod
    def _clear_work(self, connection: sa.Connection, places: Sequence[int], newest: int, *, is_range: bool) -> None:
        """Take the rows at these places out of the work, unless their revision is above ``newest``.

        ``is_range``: the places are all between the first and the last.
        """

    @abstractmethod
    def _requeue(self, connection: sa.Connection, places: Sequence[int]) -> None:
        """Put rows of work behind all others."""

    @abstractmethod
    def _shape(self, connection: sa.Connection) -> dict[str, str]:
        """The declared types of the watched columns that are there, by name."""

    @abstractmethod
    def _key_now(self, connection: sa.Connection) -> list[str]:
        """The columns of the table's primary key as it is now."""

    @property
    def watched(self) -> list[str]:
        """The columns of the table that decide whether its output is fresh."""
        output = [] if self.side is not None else [self.info.name]
        return list(dict.fromkeys([*self.key, *self.inputs, *output]))

    def side_key(self) -> list[str]:
        """The columns of the side table that hold the key of the source row."""
        return [] if self.side is None else [column.name for column in list(self.side.primary_key.columns)[:-1]]

    # -- capture -----------------------------------------------------------------------------------

    def plan(self) -> list[str]:
        return [*self.tables(), *(statement for statements in self.triggers().values() for statement in statements)]

    def install(self) -> None:
        """Make the tables and triggers, replacing triggers of another form; remember the columns' types."""
        with self.session.writing() as connection:
            for statement in self.tables():
                self.session.run_text(connection, statement)
        self._make_triggers(self.drops())
        with self.session.reading() as connection:
            shape = json.dumps(self._shape(connection))
        self._set(shape=shape)

    def _make_triggers(self, before: Sequence[str], *, only_lost: bool = False) -> None:
        """Make the triggers anew; ``only_lost`` with tables that were lost as well, and a sweep, unless the listener is
        paused or being removed."""
        made = [statement for statements in self.triggers().values() for statement in statements]
        running = self._update(sweep=new_sweep()).where(listener.c.paused.is_(None)) if only_lost else None
        self.session.alter_all(self.table, [*before, *made], guard=running)

    def verify(self) -> str | None:
        """Why the listener cannot go on; lost triggers are made again, and a sweep is asked for."""
        with self.session.reading() as connection:
            now = self._shape(connection)
            then = json.loads(
                connection.scalar(sa.select(listener.c.shape).where(listener.c.output_id == self.number)) or "{}"
            )
            key = self._key_now(connection)
            has_side = self.side is None or sa.inspect(connection).has_table(self.side.name, schema=self.side.schema)
        if not has_side:
            return f"the table {self.info.name!r} of {self.info.table}'s outputs {GONE}"
        if not now:
            return f"table {self.info.table} {GONE}"
        for name, kind in then.items():
            if name not in now:
                return f"column {name!r} of {self.info.table} {GONE}"
            if now[name] != kind:
                return (
                    f"column {name!r} of {self.info.table} was {kind} and is {now[name]} now; resume the listener "
                    "to go on with that"
                )
        if not key:
            return f"table {self.info.table} has no primary key now: it was renamed or dropped, or lost its key"
        if key != self.key:
            return (
                f"the primary key of {self.info.table} was ({', '.join(self.key)}) and is ({', '.join(key)}) now; "
                "resume the listener to go on with that"
            )
        wanted = self.triggers()
        with self.session.reading() as connection:
            is_whole = self.present(connection, wanted).issuperset(wanted)
        if not is_whole:
            state = create_state(self.session, self.source, self.number, if_lost=True)
            self._make_triggers([state, *self.tables(), *self.drops()], only_lost=True)
        return None

    # -- work --------------------------------------------------------------------------------------

    def fold(self) -> int:
        with self.session.writing(durable=False) as connection, self.session.driver(connection) as raw:
            entry = self._locked(raw)
            return self._fold(connection, raw, "" if entry is None else entry[0])

    def _locked(self, raw: Any) -> Any:
        """The listener's position, version and pause, for which its folds and claims' ends wait from now on; None where
        it was removed."""
        query = f"SELECT position, version, paused FROM {self._registry} WHERE output_id = {self.number}"
        return raw.execute(query + self.session.locking).fetchone()

    def _fold(self, connection: sa.Connection, raw: Any, position: str) -> int:
        count, wants_sweep = self._fold_some(connection, raw, position)
        failpoint("in-fold")
        if wants_sweep:
            self._note(raw, sweep=new_sweep())
        return count

    def _note(self, raw: Any, **values: Any) -> None:
        """Set values of the listener in the registry."""
        changes = ", ".join(f"{name} = {self.session.mark}" for name in values)
        raw.execute(f"UPDATE {self._registry} SET {changes} WHERE output_id = {self.number}", tuple(values.values()))

    @property
    def _registry(self) -> str:
        return self.session.own(listener.name)

    @property
    def _work_name(self) -> str:
        return self.session.own(f"{WORK_PREFIX}{self.number}")

    def enqueue(self, keys: Sequence[Key]) -> None:
        with self.session.writing() as connection:
            self._append(connection, keys)

    def claim(self, owner: str, limit: int, ttl_s: float) -> Claim:
        """The longest-waiting rows that nobody else holds."""
        with self.session.reading() as connection:  # no write, and so nothing that wakes others, without work
            if connection.execute(self._work_from(connection, self.work.c.place).limit(1)).first() is None:
                return NOTHING
        chosen: list[Key] = []
        places: list[int] = []
        revisions: list[int] = []
        is_range = False

        def choose(connection: sa.Connection, others: set[Any]) -> list[Key]:
            nonlocal is_range
            query = self._work_from(connection, *self.work_key, self.work.c.place, self.work.c.revision)
            query = query.order_by(self.work.c.place)
            rows = self.target._fetch(connection, query.limit(limit + len(others)))
            free = [n for n, key in enumerate(self.target._keys(rows)) if key not in others][:limit]
            is_range = bool(free) and free[-1] - free[0] == len(free) - 1
            mine = [rows[n] for n in free]
            chosen.extend(self.target._keys(mine))
            places.extend(row[-2] for row in mine)
            revisions.extend(row[-1] for row in mine)
            return chosen

        lease = self.target.queue.lease_work(owner, choose, ttl_s)
        return Claim(lease=lease, keys=chosen, places=places, revisions=revisions, is_range=is_range)

    @abstractmethod
    def take(self, owner: str, limit: int, ttl_s: float, version: int) -> Taken:
        """The rows are read by a statement of their own, so with a newer snapshot than what they are known by."""

    def _work_from(self, connection: sa.Connection, *columns: Any) -> sa.Select[Any]:
        return sa.select(*columns).where(self.work.c.place >= self._lowest(connection))

    @property
    def _is_floor_due(self) -> bool:
        return time.monotonic() - self._floor_at > FLOOR_S

    def _lowest(self, connection: sa.Connection) -> int:
        """A place that no row of work is below: what was cleared lately is not walked over again."""
        if self._is_floor_due:
            with self.session.driver(connection) as raw:
                self._floor = raw.execute(f"SELECT min(place) FROM {self._work_name}").fetchone()[0] or 0
            self._floor_at = time.monotonic()
        return self._floor

    def settle(self, claim: Claim, batch: OutputBatch) -> bool:
        return self.side is None and len(claim.keys) <= FEW_ROWS and self._settle(claim, batch)

    @abstractmethod
    def _settle(self, claim: Claim, batch: OutputBatch) -> bool:
        """See `Feed.settle`, for outputs in a column. The registry's row first, as in `finish`."""

    def finish(self, claim: Claim, done: Sequence[int], deferred: Sequence[int], kept: Sequence[int] = ()) -> None:
        """The registry's row first, as a fold does: in another order the two would wait for each other."""
        with self.session.writing(durable=False) as connection:
            connection.execute(self._update(processed=listener.c.processed + len(done)))
            if done:
                is_range = claim.is_range and len(done) == len(claim.keys)
                self._clear_work(connection, [claim.places[i] for i in done], claim.newest, is_range=is_range)
            if deferred:
                self._requeue(connection, [claim.places[i] for i in deferred])
            if claim.keys:
                self.target.queue.release_work(connection, claim.lease, [claim.keys[i] for i in kept])
            failpoint("in-finish")

    # -- the registry ------------------------------------------------------------------------------

    def _set(self, **values: Any) -> None:
        with self.session.writing() as connection:
            connection.execute(self._update(**values))

    def _update(self, **values: Any) -> Any:
        return sa.update(listener).where(listener.c.output_id == self.number).values(**values)
