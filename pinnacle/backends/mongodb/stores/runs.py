"""Who may train a model, and the metrics of training runs, in MongoDB."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pinnacle.backends.mongodb.wire.clock import ServerClock
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Update, Wire
from pinnacle.base.processes import is_gone, shown, this_process

TRAINING, METRICS = "pinnacle_training", "pinnacle_metric"
LOGGED_AT_ONCE = 1_000


@dataclass(frozen=True)
class MongoRuns:
    """See `RunStore`. The collections training and metric of one database."""

    wire: Wire
    clock: ServerClock
    migrate: Callable[[], None]

    def lease(self, model: str, token: str, ttl_s: float) -> str | None:
        """See `RunStore.lease`. Each attempt changes one document where it is as it must be, or adds it."""
        self.migrate()
        void = ""
        while not self._take(model, token, void, ttl_s):
            holder = self._leases.find_one({"_id": model})
            if holder is None:
                continue  # given up just now
            if not is_gone(holder["owner"]):
                return shown(holder["owner"])
            void = holder["token"]
        return None

    def renew(self, model: str, token: str, ttl_s: float) -> bool:
        """See `RunStore.renew`."""
        change = {"$set": {"expires": self.clock.now() + timedelta(seconds=ttl_s)}}
        return self._leases.update_one({"_id": model, "token": token}, change)

    def leased(self) -> dict[str, str]:
        return {
            entry["_id"]: entry["token"]
            for entry in self._leases.find()
            if not (self.clock.has_passed(entry["expires"]) or is_gone(entry["owner"]))
        }

    def release(self, model: str, token: str) -> None:
        self._leases.delete_one({"_id": model, "token": token})

    def _take(self, model: str, token: str, void: str, ttl_s: float) -> bool:
        """Take a lease that nobody has, that has expired, or whose token is this one or the ``void`` one."""
        now = self.clock.now()
        mine = {"token": token, "owner": this_process(), "expires": now + timedelta(seconds=ttl_s)}
        is_free = {"$or": [{"token": {"$in": [token, void]}}, {"expires": {"$lte": now}}]}
        is_taken = self._leases.update_one({"_id": model, **is_free}, {"$set": mine})
        return is_taken or self._leases.insert_new({"_id": model, **mine})

    @property
    def _leases(self) -> StoredCollection:
        return self.wire.collection(TRAINING)

    # -- metrics -----------------------------------------------------------------------------------

    def log(self, run: str, position: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """See `RunStore.log`. Entry by entry, in order."""
        puts = [
            Update(
                {"_id": json.dumps([run, place])},
                {"run": run, "position": place, "entry": json.dumps(dict(entry))},
                upsert=True,
            )
            for place, entry in enumerate(entries, position)
        ]
        if puts:
            self.migrate()
        for start in range(0, len(puts), LOGGED_AT_ONCE):
            self.wire.update(METRICS, puts[start : start + LOGGED_AT_ONCE])

    def cut(self, run: str, position: int) -> None:
        self.wire.delete(METRICS, {"run": run, "position": {"$gte": position}})

    def forget(self, run: str) -> None:
        self.wire.delete(METRICS, {"run": run})

    def series(self, run: str) -> list[dict[str, Any]]:
        entries = self.wire.collection(METRICS).find({"run": run}, sort=[("position", 1)])
        return [json.loads(entry["entry"]) for entry in entries]
