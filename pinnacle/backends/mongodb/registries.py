"""What a MongoDB backend keeps, each under its noun: outputs, listeners, rows set aside, the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinnacle.backends.mongodb.changes.backlogs import Pending
from pinnacle.backends.mongodb.changes.listeners import Listeners
from pinnacle.backends.mongodb.changes.queue import Work
from pinnacle.backends.mongodb.changes.reader import ChangeReader
from pinnacle.backends.mongodb.query import Collection, Find, Query
from pinnacle.backends.mongodb.stores.ledger import Ledger
from pinnacle.backends.mongodb.target import row_errors
from pinnacle.backends.mongodb.target.leases import LEASES
from pinnacle.backends.mongodb.target.outputs import Outputs
from pinnacle.backends.mongodb.target.side_collection import VALUE
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.listeners import Backlog, ListenerRecord, new_sweep
from pinnacle.base.rows import Fields, Key, OutputInfo, RowError
from pinnacle.base.usage import BatchJob, UsageRow


@dataclass(frozen=True)
class MongoOutputs:
    wire: Wire
    registry: Outputs
    listeners: Listeners
    ledger: Ledger

    def all(self) -> list[OutputInfo]:
        return self.registry.all()

    def of(self, model: str) -> list[OutputInfo]:
        return self.registry.all(model=model)

    def find(self, entity: Any, fields: Fields, model: str) -> OutputInfo | None:
        """The newest output of ``model`` on ``fields`` of a collection, given by name, Collection or query."""
        found = self.registry.find(_table_of(entity), fields, model)
        return found[0] if found else None

    def column(self, entity: Any, info: OutputInfo) -> str:
        """The output's path, as filters and projections take it; of a side output the one in its collection."""
        return VALUE if info.side else info.name

    def rows(self, info: OutputInfo) -> Find:
        return Collection(info.table).find()

    def forget(self, output: int, *, drop_column: bool) -> None:
        info = self.registry.get(output)
        if drop_column and info.created_column:
            self.registry.clear_values(info)
        self.listeners.remove(output)
        Work(self.wire, self.listeners, output).drop()
        for table in (LEASES, row_errors.ERRORS):
            self.wire.delete(table, {"output": output})
        self.ledger.forget_output(output)
        self.registry.remove(output)


@dataclass(frozen=True)
class MongoListeners:
    wire: Wire
    registry: Listeners
    outputs: Outputs
    pending: Pending
    reader: ChangeReader

    def all(self) -> list[ListenerRecord]:
        return self.registry.records(self.outputs.all())

    def register(self, output: int, identifier: str, version: int) -> bool:
        return self.registry.register(output, identifier, version)

    def move(self, output: int, seen: int, version: int) -> bool:
        return self.registry.move(output, seen, version)

    def remove(self, output: int) -> None:
        self.registry.remove(output)
        Work(self.wire, self.registry, output).drop()
        self.reader.forget_routes()

    def pause(self, output: int, reason: str) -> None:
        self._set(output, paused=reason)

    def resume(self, output: int) -> None:
        self._set(output, paused=None, sweep=new_sweep(), asked_at=time.time())

    def request_sweep(self, output: int) -> None:
        self.registry.request_sweeps([output])

    def advance_sweep(self, output: int, seen: str, now: str | None) -> bool:
        return self.registry.advance_sweep(output, seen, now)

    def record_error(self, output: int, message: str) -> None:
        self._set(output, error=message, error_at=time.time())

    def clear_error(self, output: int) -> None:
        self._set(output, error=None, error_at=None)

    def has_work(self, output: int) -> bool:
        return self.pending.has_work(output)

    def backlog(self, output: int) -> Backlog:
        return self.pending.backlog(output)

    def _set(self, output: int, **values: Any) -> None:
        self.registry.set(output, **values)


@dataclass(frozen=True)
class MongoErrors:
    wire: Wire
    outputs: Outputs

    def newest(self, output: int | None = None, limit: int = 1000) -> list[RowError]:
        names = {info.id: f"{info.table}.{info.name}" for info in self.outputs.all()}
        return row_errors.list_errors(self.wire, names, output, limit)

    def take(self, output: int) -> list[Key]:
        return row_errors.take_errors(self.wire, output)


@dataclass(frozen=True)
class MongoLedger:
    ledger: Ledger
    migrate: Callable[[], None]

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        if rows:
            self.migrate()
        self.ledger.add_usage(rows)

    def usage(self, model: str | None = None) -> list[UsageRow]:
        return self.ledger.usage(model)

    def cached(self, digests: Sequence[bytes]) -> dict[bytes, str]:
        return self.ledger.cached(digests)

    def cache(self, entries: Mapping[bytes, str], ttl_s: float) -> None:
        if entries:
            self.migrate()
        self.ledger.cache(entries, ttl_s)

    def clear_cache(self) -> None:
        self.ledger.clear_cache()

    def save_batch(self, job: BatchJob) -> None:
        self.migrate()
        self.ledger.save_batch(job)

    def batches(self, output: int) -> list[BatchJob]:
        return self.ledger.batches(output)

    def delete_batch(self, batch: str) -> bool:
        return self.ledger.delete_batch(batch)


def _table_of(entity: Any) -> str:
    if isinstance(entity, Collection):
        return entity.name
    return entity.collection if isinstance(entity, Query) else str(entity)
