"""The listeners of a database: their registry, and what waits for each."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pinnacle.backends.mongodb.changes.backlogs import Backlogs
from pinnacle.backends.mongodb.changes.listener_registry import ListenerRegistry
from pinnacle.backends.mongodb.changes.queue import WorkQueue
from pinnacle.backends.mongodb.changes.reader import ChangeReader
from pinnacle.backends.mongodb.target.output_registry import OutputRegistry
from pinnacle.base.listeners import Backlog, ListenerRecord, new_sweep


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
        WorkQueue(self.registry.wire, self.registry, output).drop()
        self.reader.forget_routes()

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

    def has_work(self, output: int) -> bool:
        return self.backlogs.has_work(output)

    def backlog(self, output: int) -> Backlog:
        return self.backlogs.backlog(output)
