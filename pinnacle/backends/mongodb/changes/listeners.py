"""The listeners of a database: their registry, and what waits for each."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pinnacle.backends.mongodb.changes.backlogs import Backlogs
from pinnacle.backends.mongodb.changes.listener_registry import ListenerRegistry
from pinnacle.backends.mongodb.changes.queue import WorkQueue
from pinnacle.backends.mongodb.changes.reader import ChangeReader
from pinnacle.backends.mongodb.target.output_registry import OutputRegistry
from pinnacle.base.listeners import Backlog, ListenerRecord, WorkerStatus, new_sweep
from pinnacle.base.processes import is_gone, place_of, this_process

WORKERS = "pinnacle_worker"


@dataclass(frozen=True)
class MongoListeners:
    """See `Listeners`."""

    registry: ListenerRegistry
    outputs: OutputRegistry
    backlogs: Backlogs
    reader: ChangeReader

    def all(self) -> list[ListenerRecord]:
        return self.registry.records(self.outputs.all())

    def register(self, output: int, identifier: str, version: int) -> bool:
        return self.registry.register(output, identifier, version)

    def move(self, output: int, seen: int, version: int) -> bool:
        return self.registry.move(output, seen, version)

    def remove(self, output: int) -> None:
        """See `Listeners.remove`. The registry first: nothing is queued for a listener that is not in it."""
        self.registry.remove(output)
        self.reader.forget_routes()
        WorkQueue(self.registry.wire, self.registry, output).drop()

    def pause(self, output: int, reason: str) -> None:
        self.registry.set(output, paused=reason)

    def resume(self, output: int) -> None:
        self.registry.set(output, paused=None, sweep=new_sweep(), asked_at=time.time())

    def request_sweep(self, output: int) -> None:
        self.registry.request_sweeps([output])

    def advance_sweep(self, output: int, seen: str, now: str | None) -> bool:
        return self.registry.advance_sweep(output, seen, now)

    def record_error(self, output: int, message: str) -> None:
        self.registry.set(output, error=message, error_at=time.time())

    def clear_error(self, output: int) -> None:
        self.registry.set(output, error=None, error_at=None)

    def attend(self, worker: str, since: float, ttl_s: float) -> None:
        entry = {"process": this_process(), "since": since, "expires_at": time.time() + ttl_s}
        workers = self.registry.wire.collection(WORKERS)
        if ttl_s:
            workers.replace_one({"_id": worker}, entry, upsert=True)
            workers.delete_many({"expires_at": {"$lt": time.time()}})
        else:
            workers.delete_one({"_id": worker})

    def workers(self) -> list[WorkerStatus]:
        found = self.registry.wire.collection(WORKERS).find({"expires_at": {"$gte": time.time()}}, sort=[("since", 1)])
        living = [entry for entry in found if not is_gone(entry["process"])]
        return [WorkerStatus(*place_of(entry["process"]), entry["since"]) for entry in living]

    def has_work(self, output: int) -> bool:
        return self.backlogs.has_work(output)

    def backlog(self, output: int) -> Backlog:
        return self.backlogs.backlog(output)
