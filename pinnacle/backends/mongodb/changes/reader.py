"""The one reader of a database's changes: leased and fenced, it turns events into work.

Work is written first, durably, and only then the position in the stream, where the lease's
epoch is still ours: a crash in between, or a reader that was taken for dead, turns some
events into work twice, and a row that is fresh already costs a look. Until then few rows are
kept in memory, and those that are done by then are never written as work. There is no
transaction over both: one that a killed process leaves open keeps its locks for a minute.

Changes may only be lost with the server's history, or with a collection that is dropped or
renamed: then all rows are looked at, from a position that was taken before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bson.timestamp import Timestamp

from pinnacle.backends.mongodb.changes.listener_registry import ListenerRegistry
from pinnacle.backends.mongodb.changes.queue import WorkDocument, WorkQueue
from pinnacle.backends.mongodb.changes.routes import Route, Routes, Touch, route_of
from pinnacle.backends.mongodb.target.canonical_rows import rows_of
from pinnacle.backends.mongodb.target.output_registry import OutputRegistry, state_table
from pinnacle.backends.mongodb.target.own_writes import OwnWrites
from pinnacle.backends.mongodb.target.side_collection import SideCollection, parent_field, parent_named
from pinnacle.backends.mongodb.wire.change_stream import OF_DOCUMENTS, ChangeStream, HistoryLost, StreamEnded
from pinnacle.backends.mongodb.wire.clock import ServerClock
from pinnacle.backends.mongodb.wire.encoding import keys_of
from pinnacle.backends.mongodb.wire.keys import key_identity
from pinnacle.backends.mongodb.wire.row_bytes import stale_among
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base import forks
from pinnacle.base.errors import PinnacleError
from pinnacle.base.failpoints import failpoint
from pinnacle.base.processes import is_gone, this_process
from pinnacle.base.rows import Key
from pinnacle.base.told import logger

log = logger(__name__)

READERS, THE_READER = "pinnacle_reader", "changes"
TTL_S = 5.0
TRY_S = 0.1
ROUTES_S = 1.0
OWN_WRITES, REST_S = 50, 0.25
"""After this many events of outputs alone, which are ours as a rule, the next are let gather: one look serves many."""
BRIEF_REST_S = 0.003
"""While few rows are worked off, their outputs have the interpreter and the server to themselves."""
SAVE_S, IDLE_SAVE_S = 0.05, 1.0
WAITS_FOR_WORK = 3
"""So many times as long the position is not saved while rows are worked on that are in memory alone."""
FEW_ROWS = RESERVED = 100
"""So many rows of an output are in memory at most, and are worked off before they are durable as work."""


@dataclass
class _Keys:
    """The keys of one listener's rows, each once."""

    of_work: dict[Any, Key] = field(default_factory=dict)
    to_check: dict[Any, Key] = field(default_factory=dict)
    of_items: list[Any] = field(default_factory=list)
    """The ``_id`` of items of which it is not known whose they are."""


class ChangeReader:
    """Reads the changes for all listeners of a database, while this process holds the lease."""

    def __init__(self, wire: Wire, clock: ServerClock, outputs: OutputRegistry, listeners: ListenerRegistry) -> None:
        self._wire, self._clock = wire, clock
        self._outputs, self._listeners = outputs, listeners
        self.own_writes = OwnWrites()
        self._turn, self._putting, self._counting = forks.lock(), forks.lock(), forks.lock()
        self._stream: ChangeStream | None = None
        self._epoch: int | None = None
        self._position = self._passed = Timestamp(0, 0)
        self._covered: dict[str, Timestamp] = {}
        self._routes = Routes(())
        self._routed_at = self._tried_at = self._saved_at = float("-inf")
        self._folded: dict[int, int] = {}
        self._at_hand: dict[int, dict[Any, tuple[Key, int]]] = {}
        self._in_memory: dict[int, dict[int, WorkDocument]] = {}
        self._put_in: dict[int, int] = {}
        self._reserved: dict[int, tuple[int, float]] = {}
        self._unsaved = 0
        self._has_read = self._has_news = self._is_idle = False
        self._rests_until = 0.0

        forks.renew_in_child(self._renew)

    def _renew(self) -> None:
        """The stream and the lease are the parent's."""
        forks.leave_to_parent(self._stream)
        self._stream, self._epoch = None, None
        self.own_writes.begin_era(is_reading=False)
        self._at_hand, self._in_memory, self._put_in, self._reserved = {}, {}, {}, {}

    # -- what feeds and wakes ask for ----------------------------------------------------------------

    def fold(self, output: int) -> int:
        """Turn a batch of events into work, unless another thread is at it; how many concerned this output."""
        was_more = False
        if self._turn.acquire(blocking=False):
            try:
                was_more = bool(self._pump(1))
            finally:
                self._turn.release()
        with self._counting:
            return self._folded.pop(output, 0) or int(was_more)

    def at_hand(self, output: int) -> Sequence[tuple[Key, int]]:
        """Rows of an output that changed since this was asked last, with their places, which are in memory alone; none
        where these were many."""
        with self._counting:
            rows = list(self._at_hand.pop(output, {}).values())
            if rows:
                self._folded.pop(output, None)
        return rows

    def reserve(self, output: int, first: int | None) -> None:
        """`RESERVED` revisions from ``first`` on may be given to rows of an output; None: it has no listener."""
        with self._counting:
            if first is None:
                self._reserved.pop(output, None)
            else:
                self._reserved[output] = first, time.monotonic()

    def _reserved_for(self, output: int, count: int) -> int | None:
        """The first of so many revisions, where these were reserved lately; what is left of them is not given."""
        with self._counting:
            first, at = self._reserved.pop(output, (0, float("-inf")))
        return first if count <= RESERVED and time.monotonic() - at < ROUTES_S else None

    def note_done(self, output: int, places: Sequence[int]) -> set[int]:
        """Rows have been done, durably, and need not be put into the work any more; the places of those that were."""
        with self._putting, self._counting:
            documents = self._in_memory.get(output, {})
            return {place for place in places if documents.pop(place, None) is None}

    def put_in(self, output: int) -> None:
        """Have the rows of an output that are in memory alone be in the work, durably."""
        with self._putting:
            with self._counting:
                self._at_hand.pop(output, None)
                documents = list(self._in_memory.get(output, {}).values())
            if not documents:
                return
            if self._listeners.entry(output) is not None:
                WorkQueue(self._wire, self._listeners, output).put(documents)
            with self._counting:
                in_memory, places = self._in_memory.get(output, {}), [int(document["s"]) for document in documents]
                for place in places:
                    in_memory.pop(place, None)
                self._put_in[output] = min([*places, self._put_in.get(output, places[0])])

    def lowest_put_in(self, output: int) -> int | None:
        """The lowest place of rows that `put_in` has put into the work of an output since this was asked last."""
        with self._counting:
            return self._put_in.pop(output, None)

    def listen(self, wait_s: float) -> bool | None:
        """Wait for events and turn them into work; whether there may be any, None where another process reads."""
        with self._turn:
            self._is_idle = False
            was_told = self._pump(max(1, int(wait_s * 1000)))
            return was_told and not self._is_idle

    def folds(self) -> int:
        """How often any process turned events into work."""
        entry = self._entry()
        return int(entry["folded"]) if entry else 0

    def has_passed(self, time: Timestamp) -> bool:
        """Whether all that was committed up to a time of the server is turned into work."""
        if self._epoch is not None:
            return self._passed >= time and not self._has_rows_in_memory()
        entry = self._entry()
        return entry is not None and entry["passed"] is not None and entry["passed"] >= time

    def forget_routes(self) -> None:
        """Look at the registry of listeners before the next event."""
        self._routed_at = float("-inf")
        with self._counting:
            self._reserved.clear()

    def close(self) -> None:
        """Give the lease up, so that another process may read at once."""
        with self._turn:
            if self._epoch is not None:
                try:
                    self._save(owner=None)
                except PinnacleError as error:  # it expires by itself
                    log.warning("the lease on the changes could not be given up: %s", error)
            self._let_go()

    # -- one batch ---------------------------------------------------------------------------------

    def _pump(self, wait_ms: int) -> bool | None:
        try:
            return self._read_batch(wait_ms) if self._holds_lease() else None
        except StreamEnded as error:
            log.info("%s; opening another", error)
            self._close_stream()
            return True
        except HistoryLost as error:
            log.warning("%s; all rows are swept", error)
            self._start_over([route.output for route in self._routes.all])
            return True
        except Exception:  # whatever it is, the stream is closed and opened anew; raised again
            self._close_stream()
            raise

    def _read_batch(self, wait_ms: int) -> bool | None:
        pause_s = SAVE_S * (WAITS_FOR_WORK if self._has_rows_in_memory() else 1) if self._has_news else IDLE_SAVE_S
        is_due = time.monotonic() - self._saved_at > pause_s
        if self._stream is not None and is_due and not self._keep():  # whoever was told is at work meanwhile
            return None
        if self._stream is None or time.monotonic() - self._routed_at > ROUTES_S:
            self._find_routes()
        if self._stream is None:
            return False
        time.sleep(max(0.0, self._rests_until - time.monotonic()))
        batch = self._stream.next(1 if self._has_read else wait_ms)
        if batch.events:
            folds = self._unsaved
            self._fold(batch.events)
            self._is_idle = folds == self._unsaved
            if self._is_idle and len(batch.events) >= OWN_WRITES:
                self._rests_until = time.monotonic() + REST_S
            elif self._has_rows_in_memory():
                self._rests_until = time.monotonic() + BRIEF_REST_S
        else:
            self._passed = batch.position
        self._position = batch.position
        self._has_news |= self._has_read or bool(batch.events)
        self._has_read = bool(batch.events)
        return self._has_read

    def _fold(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Write the work that events make."""
        found: dict[int, _Keys] = {}
        routes: dict[int, Route] = {}
        lost: dict[int, None] = {}
        for event in events:
            table = event.get("table") or ""
            if event["kind"] not in OF_DOCUMENTS:
                for name in (table, event.get("renamed") or ""):
                    lost.update(dict.fromkeys(r.output for r in (*self._routes.on(name), *self._routes.kept_in(name))))
                continue
            for route, touch in self._routes.concerned(table, event.get("names")):
                key, identity = event["key"], key_identity(event["key"])
                if self.own_writes.meet(route.output, identity) and touch is Touch.OUTPUT:
                    continue
                keys = found.setdefault(route.output, _Keys())
                routes[route.output] = route
                (keys.of_work if touch is Touch.INPUT else keys.to_check)[identity] = key
            for route in self._routes.kept_in(table):
                if route.touches_item(event.get("names")):
                    routes[route.output] = route
                    self._note_item(event, route, found.setdefault(route.output, _Keys()))
        self._listeners.request_sweeps(list(lost))
        for output, keys in found.items():
            self._queue(routes[output], keys)

    @staticmethod
    def _note_item(event: Mapping[str, Any], route: Route, keys: _Keys) -> None:
        """Whose item was changed: the one that its ``_id`` names, and the one that it says it is of, if others
        wrote it. One of theirs that is deleted has been looked at when it came."""
        parent = parent_named(event["key"], parent_field(route.table))
        if parent is not None:
            keys.to_check[key_identity(parent)] = parent
        is_own = parent is not None and (event["kind"] == "insert" or not route.moves_item(event.get("names")))
        if not is_own and event["kind"] != "delete":
            keys.of_items.append(event["key"])

    def _queue(self, route: Route, keys: _Keys) -> None:
        if keys.of_items and route.side is not None:
            side = SideCollection(self._wire, route.table, route.side)
            keys.to_check |= {key_identity(parent): parent for parent in side.parents(keys.of_items)}
        unsure = [key for identity, key in keys.to_check.items() if identity not in keys.of_work]
        todo = [*keys.of_work.values(), *(self._stale(route, unsure) if unsure else ())]
        if todo:
            queue = WorkQueue(self._wire, self._listeners, route.output)
            if len(todo) <= FEW_ROWS:
                self._hand_over(route.output, queue.numbered(todo, self._reserved_for(route.output, len(todo))))
            else:
                queue.add(todo)
                self.put_in(route.output)
            failpoint("in-fold")
            self._unsaved += 1
            with self._counting:
                self._folded[route.output] = self._folded.get(route.output, 0) + len(todo)

    def _hand_over(self, output: int, documents: Sequence[WorkDocument]) -> None:
        """Keep rows in memory, at hand for who works them off; of a row that is at hand already the newer change."""
        with self._counting:
            in_memory, at_hand = self._in_memory.setdefault(output, {}), self._at_hand.setdefault(output, {})
            for document in documents:
                identity, place = key_identity(document["_id"]), int(document["s"])
                in_memory.pop(at_hand.pop(identity, (None, -1))[1], None)
                in_memory[place], at_hand[identity] = document, (document["_id"], place)
            is_few = len(in_memory) <= FEW_ROWS
        if not is_few:
            self.put_in(output)

    def _has_rows_in_memory(self) -> bool:
        with self._counting:
            return any(self._in_memory.values())

    def _put_all_in(self) -> None:
        """Who works rows off need not wait until they are durable as work, only the position must."""
        with self._counting:
            outputs = list(self._in_memory)
        for output in outputs:
            self.put_in(output)

    def _stale(self, route: Route, keys: Sequence[Key]) -> Iterable[Key]:
        """Of rows whose output was written, those that are not fresh: written by others, or in other hands still."""
        rows = rows_of(self._wire, route.table, route.shape, route.side).at(keys, {})
        hashes = self._wire.hashes_at(state_table(route.output), keys)
        stale = set(stale_among(rows, route.computed_by, hashes))
        if len(rows) == len(keys):
            return keys_of(list(stale), self._wire.codec)
        fresh = {key_identity(key) for key in keys_of([row for row in rows if row not in stale], self._wire.codec)}
        return [key for key in keys if key_identity(key) not in fresh]

    # -- the stream --------------------------------------------------------------------------------

    def _find_routes(self) -> None:
        """Look which listeners there are; for those that the position does not cover, go back to their beginning."""
        infos = {info.id: info for info in self._outputs.all()}
        entries = [entry for entry in self._listeners.entries() if entry["_id"] in infos]
        found = [route for entry in entries if (route := route_of(entry, infos[entry["_id"]])) is not None]
        wanted = {str(route.output): route.since for route in found}
        before, self._routes, self._routed_at = self._routes.tables, Routes(found), time.monotonic()
        is_same = before == self._routes.tables and wanted == self._covered
        if self._stream is not None and is_same:
            return
        self._close_stream()
        self.own_writes.begin_era(is_reading=bool(found))
        if not found:
            self._covered = {}
            return
        unmet = [since for number, since in wanted.items() if self._covered.get(number) != since]
        self._position = min(unmet if len(unmet) == len(wanted) else [self._position, *unmet])
        self._covered = wanted
        self._stream = self._wire.changes(self._routes.tables, self._position)
        self._keep()

    def _start_over(self, outputs: Sequence[int]) -> None:
        """Go on from now, and have all rows looked at: in this order, so that no change is between the two."""
        self._close_stream()
        self.own_writes.begin_era(is_reading=True)
        self._position = self._now()
        self._listeners.request_sweeps(outputs)
        self._keep()

    def _now(self) -> Timestamp:
        now = self._wire.operation_time()
        if now is None:
            raise HistoryLost("the server is no member of a replica set any more, and tells of no changes")
        return now

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    # -- the lease ---------------------------------------------------------------------------------

    def _holds_lease(self) -> bool:
        """Whether the lease is ours; taken over where it is free, expired, or its process gone from this machine."""
        if self._epoch is None and time.monotonic() - self._tried_at > TRY_S:
            self._tried_at = time.monotonic()
            entry = self._entry() or self._created()
            if entry["owner"] is None or self._clock.has_passed(entry["expires"]) or is_gone(entry["owner"]):
                self._take_over(entry)
        return self._epoch is not None

    def _take_over(self, entry: Mapping[str, Any]) -> None:
        mine = {"owner": this_process(), "expires": self._expiry()}
        is_as_seen = {"_id": THE_READER, "epoch": entry["epoch"]}
        taken = self._readers.update_and_get(is_as_seen, {"$set": mine, "$inc": {"epoch": 1}})
        if taken is not None:
            self._epoch, self._position, self._covered = taken["epoch"], taken["position"], taken["covered"]
            self._passed, self._unsaved, self._saved_at = Timestamp(0, 0), 0, time.monotonic()
            self.forget_routes()

    def _created(self) -> Mapping[str, Any]:
        entry: dict[str, Any] = {
            "_id": THE_READER, "owner": None, "epoch": 0, "expires": None, "position": self._now(), "passed": None,
            "covered": {}, "folded": 0,
        }  # fmt: skip
        if not self._readers.insert_new(entry):
            log.debug("another process began to read the changes at the same time")
        return self._entry() or entry

    def _save(self, owner: str | None = "") -> bool:
        """Record the position and renew the lease; False when another process has taken it over."""
        self._put_all_in()
        values = {
            "position": self._position, "covered": self._covered, "expires": self._expiry(), "passed": self._passed,
            "owner": this_process() if owner == "" else owner,
        }  # fmt: skip
        self._saved_at = time.monotonic()
        change = {"$set": values, "$inc": {"folded": self._unsaved}}
        self._unsaved, self._has_news = 0, False
        return self._readers.update_one({"_id": THE_READER, "epoch": self._epoch}, change)

    def _keep(self) -> bool:
        is_ours = self._save()
        if not is_ours:
            log.info("another process reads the changes now")
            self._let_go()
        return is_ours

    def _let_go(self) -> None:
        self._close_stream()
        self.own_writes.begin_era(is_reading=False)
        self._epoch = None
        with self._counting:
            self._in_memory.clear()
            self._at_hand.clear()

    def _expiry(self) -> Any:
        return self._clock.now() + timedelta(seconds=TTL_S)

    def _entry(self) -> Mapping[str, Any] | None:
        return self._readers.find_one({"_id": THE_READER})

    @property
    def _readers(self) -> StoredCollection:
        """A position may be lost with a server: the one before it gives the same events again."""
        return self._wire.collection(READERS, durable=False)
