"""Leases on rows, so that two runs over one output do not make the same model calls twice.

Leases save work; they do not make writes right (that is the condition on each write).
A lease is void when it has expired, or when its process is gone from this machine.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pinnacle.backends.mongodb.target.output_registry import REGISTRY
from pinnacle.backends.mongodb.wire.clock import ServerClock
from pinnacle.backends.mongodb.wire.keys import key_bytes, key_identity
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Update, Wire
from pinnacle.base.errors import Conflict
from pinnacle.base.failpoints import failpoint
from pinnacle.base.processes import is_gone, this_process
from pinnacle.base.refusals import output_removed
from pinnacle.base.rows import Key

LEASES = "pinnacle_lease"
LOCK_TTL_S = 5.0
LOCK_RETRY_S = 0.005
HELD_RETRY_S = 0.02
MAX_LEASE_BYTES = 8 * 1024 * 1024


@dataclass
class Lock:
    """What a registry entry says: its model's version as the lock was taken, and how often rows had been given up as it
    was left."""

    version: int
    released: int = 0


@dataclass
class Leases:
    """The leases on one output's rows; claimed by one thread at a time."""

    wire: Wire
    output: int
    clock: ServerClock
    _own_releases: int = field(default=0, init=False)
    _counting: threading.Lock = field(default_factory=threading.Lock, init=False)

    def generation(self) -> int:
        """How often others have given up rows of this output so far."""
        with self._counting:
            entry = self._registry.find_one({"_id": self.output}, {"released": 1})
            return int(entry["released"]) - self._own_releases if entry else 0

    def claim(
        self, owner: str, keys: Sequence[Any], seen: int, done: Sequence[str], ttl_s: float
    ) -> tuple[str, list[int], bool]:
        """Lease what no other owner holds: the lease, its positions, and whether others released since ``seen``."""
        lease = uuid.uuid4().hex
        if not keys and not done:
            return lease, [], False
        with self._counting:
            with self._lock(released=bool(done)) as lock:
                if done:
                    self._leases.delete_many({"lease": {"$in": list(done)}})
                    self._own_releases += 1
                taken = self._taken({"run": {"$ne": owner}})
                positions = [p for p, key in enumerate(keys) if not taken or key_identity(key) not in taken]
                self._insert(lease, owner, [keys[p] for p in positions], ttl_s)
            foreign = lock.released - self._own_releases
        return lease, positions, foreign != seen

    def lease_work(self, owner: str, choose: Callable[[set[Any]], list[Key]], ttl_s: float, *, version: int) -> str:
        """Lease the keys that ``choose`` finds, given the identities of all that live leases hold; the lease.

        Conflict for a ``version`` of the model that is no longer the newest: it would take for
        fresh what the newer has yet to compute.
        """
        lease = uuid.uuid4().hex
        with self._lock(released=False) as lock:
            if lock.version > version:
                raise Conflict(f"a newer version of the model, {lock.version}, has taken over from version {version}")
            self._insert(lease, owner, choose(self._taken({})), ttl_s)
            failpoint("in-claim")
        return lease

    def lease_ahead(self, owner: str, keys: Sequence[Key], ttl_s: float) -> str:
        """Lease keys without a look at who else holds them, which is to follow; the lease."""
        lease = uuid.uuid4().hex
        self._insert(lease, owner, keys, ttl_s)
        return lease

    def release_work(self, lease: str, kept: Sequence[Any] = ()) -> None:
        """Give up one lease, but for the keys that are ``kept``; counted first, as in `release`."""
        self.wire.update(REGISTRY, [Update({"_id": self.output}, {"$inc": {"released": 1}})], durable=False)
        parts = [part["_id"] for part in self._leases.find({"lease": lease}, {"_id": 1})] if kept else []
        if parts:
            self._leases.update_one({"_id": parts[0]}, {"$set": {"keys": list(map(key_identity, kept))}})
        self.wire.delete(LEASES, {"lease": lease, "_id": {"$nin": parts[:1]}}, durable=False)

    def in_flight(self) -> int:
        """How many rows live leases hold."""
        leases = self._leases.find({"output": self.output})
        return sum(len(lease["keys"]) for lease in leases if not self._is_void(lease))

    def await_none(self, most_s: float) -> bool:
        """Wait until nobody holds rows; whether that came to be. Who is about to lease has the lock and comes first."""
        until = time.monotonic() + most_s
        while True:
            with self._lock(released=False):
                is_held = bool(self._taken({}))
            if not is_held or time.monotonic() > until:
                return not is_held
            time.sleep(HELD_RETRY_S)

    def _taken(self, condition: Mapping[str, Any]) -> set[Any]:
        """What live leases hold: identities of keys. Void ones are dropped, which is counted."""
        others = list(self._leases.find({"output": self.output, **condition}))
        void = [other for other in others if self._is_void(other)]
        self._drop(void)
        return {key for other in others if other not in void for key in other["keys"]}

    def renew(self, owner: str, ttl_s: float) -> None:
        self._leases.update_many({"output": self.output, "run": owner}, {"$set": {"expires": self._after(ttl_s)}})

    def release(self, owner: str) -> None:
        held = {"output": self.output, "run": owner}
        with self._counting:
            if self._leases.find_one(held, {"_id": 1}) is not None:
                # Counted first: a claim meanwhile, which looks at the count last, finds the rows leased still, or knows
                # that it must read them again.
                self._registry.update_one({"_id": self.output}, {"$inc": {"released": 1}})
                self._own_releases += 1
                self._leases.delete_many(held)

    @property
    def _leases(self) -> StoredCollection:
        """Leases may be lost with a server: they save calls, and keep nothing right."""
        return self.wire.collection(LEASES, durable=False)

    @property
    def _registry(self) -> StoredCollection:
        return self.wire.collection(REGISTRY, durable=False)

    def _after(self, seconds: float) -> datetime:
        return self.clock.now() + timedelta(seconds=seconds)

    def _is_void(self, lease: Mapping[str, Any]) -> bool:
        return self.clock.has_passed(lease["expires"]) or is_gone(lease["owner"])

    def _drop(self, void: Sequence[Mapping[str, Any]]) -> None:
        if void:
            self._leases.delete_many({"_id": {"$in": [lease["_id"] for lease in void]}})
            self._registry.update_one({"_id": self.output}, {"$inc": {"released": len(void)}})

    def _insert(self, lease: str, owner: str, keys: Sequence[Any], ttl_s: float) -> None:
        for part in _parts(list(map(key_identity, keys))):
            entry = {
                "lease": lease, "output": self.output, "run": owner, "owner": this_process(),
                "expires": self._after(ttl_s), "keys": part,
            }  # fmt: skip
            self.wire.insert(LEASES, [entry], durable=False)

    @contextmanager
    def _lock(self, *, released: bool) -> Iterator[Lock]:
        """Hold the output's lock, which expires by itself should this process die.

        ``released``: rows are being given up, which is counted as the lock is taken.
        """
        token = uuid.uuid4().hex
        entry = self._try_lock(token, int(released))
        while entry is None:
            held = self._entry()
            is_void = is_gone(held.get("locked_by", ""))
            if not is_void:
                time.sleep(LOCK_RETRY_S)
            entry = self._try_lock(token, int(released), held["lock"] if is_void else None)
        lock = Lock(entry["version"])
        try:
            yield lock
        finally:
            mine = {"_id": self.output, "lock": token}
            left = self._registry.update_and_get(mine, {"$set": {"locked_until": None}})
        lock.released = int((left or self._entry())["released"])

    def _entry(self) -> Mapping[str, Any]:
        entry: Mapping[str, Any] | None = self._registry.find_one({"_id": self.output})
        if entry is None:
            raise output_removed(f"output number {self.output}")
        return entry

    def _try_lock(self, token: str, releases: int, void: str | None = None) -> Mapping[str, Any] | None:
        """Take the lock where nobody has it, or where it still is the ``void`` one of a process that is gone."""
        free: list[Mapping[str, Any]] = [{"locked_until": None}, {"locked_until": {"$lt": self.clock.now()}}]
        is_free = {"$or": [*free, {"lock": void}] if void else free}
        mine = {"locked_until": self._after(LOCK_TTL_S), "lock": token, "locked_by": this_process()}
        change = {"$set": mine, "$inc": {"released": releases}}
        return self._registry.update_and_get({"_id": self.output, **is_free}, change)


def _parts(keys: list[Any]) -> Iterator[list[Any]]:
    if len(keys) > 1 and len(key_bytes(keys)) > MAX_LEASE_BYTES:
        middle = len(keys) // 2
        yield from _parts(keys[:middle])
        yield from _parts(keys[middle:])
    elif keys:
        yield keys
