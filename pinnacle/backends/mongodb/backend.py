"""The Backend of MongoDB and mongomock: one short method a duty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pinnacle.backends.mongodb import migrations
from pinnacle.backends.mongodb.changes.backlogs import Pending, StreamPending, SweptPending
from pinnacle.backends.mongodb.changes.feeds import MongoFeed, StreamFeed, SweptFeed, check_watch
from pinnacle.backends.mongodb.changes.listeners import Listeners
from pinnacle.backends.mongodb.changes.queue import Work
from pinnacle.backends.mongodb.changes.reader import ChangeReader
from pinnacle.backends.mongodb.changes.wakes import StreamWake, SweepWake
from pinnacle.backends.mongodb.execution import execute
from pinnacle.backends.mongodb.query import Collection, Find, Query
from pinnacle.backends.mongodb.stores.catalog import MongoCatalog
from pinnacle.backends.mongodb.stores.ledger import Ledger
from pinnacle.backends.mongodb.stores.runs import MongoRuns
from pinnacle.backends.mongodb.target import row_errors
from pinnacle.backends.mongodb.target.frozen_finds import freeze, thaw
from pinnacle.backends.mongodb.target.leases import LEASES, Leases, ServerClock
from pinnacle.backends.mongodb.target.outputs import Outputs
from pinnacle.backends.mongodb.target.side_collection import VALUE
from pinnacle.backends.mongodb.target.side_target import SideTarget, SideWriter
from pinnacle.backends.mongodb.target.source import MongoSource, resolve, resolve_stored
from pinnacle.backends.mongodb.target.target import MongoTarget
from pinnacle.backends.mongodb.target.window_target import WindowTarget
from pinnacle.backends.mongodb.target.writer import Writer
from pinnacle.backends.mongodb.wire.errors import driver_errors
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.backends.protocol import NO_OUTPUT, Capability, CatalogStore, RunStore, Source, Target, Wake
from pinnacle.base.document import default_output_path
from pinnacle.base.errors import UnsupportedQuery
from pinnacle.base.listening import Backlog, ListenerRecord, Watch
from pinnacle.base.rows import Fields, Key, OutputInfo, OutputSpec, RowError
from pinnacle.base.types import Text
from pinnacle.base.usage import BatchJob, UsageRow


class MongoBackend:
    """An open MongoDB database."""

    def __init__(
        self, wire: Wire, *, name: str, server: str, capabilities: frozenset[Capability], owns_client: bool,
    ) -> None:  # fmt: skip
        self.name, self.capabilities = name, capabilities
        self._wire, self._server, self._owns_client = wire, server, owns_client
        self._outputs, self._ledger = Outputs(wire, server), Ledger(wire)
        self._clock, self._listeners = ServerClock(wire), Listeners(wire)
        self.catalog: CatalogStore = MongoCatalog(wire, server, self._clock, self.migrate)
        self.runs: RunStore = MongoRuns(wire, server, self._clock, self.migrate)
        self._reader = ChangeReader(wire, server, self._clock, self._outputs, self._listeners)
        self._pending: Pending = (
            StreamPending(wire, self._listeners, self._clock, self._reader) if self._tells_changes
            else SweptPending(wire, self._listeners, self._clock)
        )  # fmt: skip

    @property
    def engine(self) -> Any:
        """The user's Database object, of pymongo or mongomock."""
        return self._wire.database

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            raise UnsupportedQuery("a query of MongoDB holds its own arguments; execute takes nothing beside it")
        return execute(self._wire, self._server, self._outputs, query)

    def owns(self, query: Any) -> bool:
        return isinstance(query, (Query, Collection))

    def default_name(self, fields: Fields, identifier: str) -> str:
        """Where an output goes that was given no field: ``_outputs.{X}.{identifier}``."""
        return default_output_path(fields, identifier)

    def resolve(self, query: Any, fields: Fields, *, checked: bool = False) -> MongoSource:
        with driver_errors(self._server):
            if isinstance(query, Mapping):
                query = thaw(query, self._wire)
                if not checked:
                    return resolve_stored(self._wire, query, fields)
            return resolve(self._wire, query, fields, self._outputs.holds)

    def freeze(self, source: Source, *, limited: bool = False) -> dict[str, Any]:
        own = _own(source)
        return freeze(own if limited else own.whole(), self._wire)

    def plan(self, source: Source, spec: OutputSpec) -> list[str]:
        with driver_errors(self._server):
            return self.migration_plan() + self._outputs.plan(_own(source).whole(), spec)

    def bind(self, source: Source, spec: OutputSpec, *, create: bool = True) -> Target:
        own = _own(source).whole()
        if create:
            self.migrate()  # of two processes that bind an output, its unique index lets one register it
        with driver_errors(self._server):
            info = replace(self._outputs.bind(own, spec, create=create), parameters=spec.parameters)
        leases = Leases(self._wire, info.id, self._clock)
        if info.side is not None:
            return SideTarget(self._wire, self._server, own, info, leases, SideWriter(self._wire, own, info))
        return MongoTarget(self._wire, self._server, own, info, leases, Writer(self._wire, own, info))

    def scan(self, source: Source) -> Target:
        own = _own(source)
        info = OutputInfo(0, own.table, NO_OUTPUT, "", 0, own.fields, Text(), False)
        made = MongoTarget if own.window is None else WindowTarget
        leases = Leases(self._wire, info.id, self._clock)
        return made(self._wire, self._server, own, info, leases, Writer(self._wire, own, info))

    def outputs(self, model: str | None = None) -> list[OutputInfo]:
        with driver_errors(self._server):
            return self._outputs.all() if model is None else self._outputs.all(model=model)

    def forget_output(self, output: int, *, drop_column: bool) -> None:
        with driver_errors(self._server):
            info = self._outputs.get(output)
            if drop_column and info.created_column:
                self._outputs.clear_values(info)
            self._listeners.remove(output)
            Work(self._wire, self._listeners, output).drop()
            for table in (LEASES, row_errors.ERRORS):
                self._wire.delete(table, {"output": output})
            self._ledger.forget_output(output)
            self._outputs.remove(output)

    def output_column(self, entity: Any, info: OutputInfo) -> str:
        """The output's path, as filters and projections take it; of a side output the one in its collection."""
        return VALUE if info.side else info.name

    def find_output(self, entity: Any, fields: Fields, model: str) -> OutputInfo | None:
        """The newest output of ``model`` on ``fields`` of a collection, given by name, Collection or query."""
        with driver_errors(self._server):
            found = self._outputs.find(_table_of(entity), fields, model)
        return found[0] if found else None

    # -- listeners ---------------------------------------------------------------------------------

    @property
    def _tells_changes(self) -> bool:
        """Whether the server has change streams: a replica set or a sharded cluster."""
        return Capability.TRANSACTIONS in self.capabilities

    def feed(self, target: Any, reads: Sequence[str], watch: Watch) -> MongoFeed:
        check_watch(watch)
        if self._tells_changes:
            return StreamFeed(target, self._listeners, reads, self._server, self._reader)
        return SweptFeed(target, self._listeners, reads, self._server)

    def wake(self) -> Wake:
        if self._tells_changes:
            return StreamWake(self._reader)
        return SweepWake(self._listeners, self._server, in_process=self._wire.in_process)

    def has_work(self, output: int) -> bool:
        with driver_errors(self._server):
            return self._pending.has_work(output)

    def backlog(self, output: int) -> Backlog:
        with driver_errors(self._server):
            return self._pending.backlog(output)

    def lead(self, worker: str, ttl_s: float) -> str | None:
        """All workers may work at once: leases keep them off each other's rows."""
        return None

    def listeners(self) -> list[ListenerRecord]:
        with driver_errors(self._server):
            return self._listeners.records(self._outputs.all())

    def register_listener(self, output: int, identifier: str, version: int) -> bool:
        with driver_errors(self._server):
            return self._listeners.register(output, identifier, version)

    def move_listener(self, output: int, seen: int, version: int) -> bool:
        with driver_errors(self._server):
            return self._listeners.move(output, seen, version)

    def remove_listener(self, output: int) -> None:
        with driver_errors(self._server):
            self._listeners.remove(output)
            Work(self._wire, self._listeners, output).drop()
            self._reader.forget_routes()

    def set_listener(self, output: int, **values: Any) -> None:
        with driver_errors(self._server):
            self._listeners.change(output, values)

    def advance_sweep(self, output: int, seen: str, now: str | None) -> bool:
        with driver_errors(self._server):
            return self._listeners.advance_sweep(output, seen, now)

    # -- rows set aside ----------------------------------------------------------------------------

    def errors(self, output: int | None = None, limit: int = 1000) -> list[RowError]:
        with driver_errors(self._server):
            names = {info.id: f"{info.table}.{info.name}" for info in self._outputs.all()}
            return row_errors.list_errors(self._wire, names, output, limit)

    def take_errors(self, output: int) -> list[Key]:
        with driver_errors(self._server):
            return row_errors.take_errors(self._wire, output)

    # -- what calls cost, and what is kept of paid ones --------------------------------------------

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        if rows:
            self.migrate()
        with driver_errors(self._server):
            self._ledger.add_usage(rows)

    def usage(self, model: str | None = None) -> list[UsageRow]:
        with driver_errors(self._server):
            return self._ledger.usage(model)

    def cached(self, digests: Sequence[bytes]) -> dict[bytes, str]:
        with driver_errors(self._server):
            return self._ledger.cached(digests)

    def cache(self, entries: Mapping[bytes, str], ttl_s: float) -> None:
        if entries:
            self.migrate()
        with driver_errors(self._server):
            self._ledger.cache(entries, ttl_s)

    def clear_cache(self) -> None:
        with driver_errors(self._server):
            self._ledger.clear_cache()

    def save_batch(self, job: BatchJob) -> None:
        self.migrate()
        with driver_errors(self._server):
            self._ledger.save_batch(job)

    def batches(self, output: int) -> list[BatchJob]:
        with driver_errors(self._server):
            return self._ledger.batches(output)

    def delete_batch(self, batch: str) -> bool:
        with driver_errors(self._server):
            return self._ledger.delete_batch(batch)

    # -- pinnacle's own collections ------------------------------------------------------------------

    def rows_of(self, info: OutputInfo) -> Find:
        return Collection(info.table).find()

    def migration_plan(self) -> list[str]:
        with driver_errors(self._server):
            return [statement for step in migrations.pending(self._wire) for statement in step.statements]

    def migrate(self) -> None:
        with driver_errors(self._server):
            migrations.migrate(self._wire)

    def removal_plan(self, *, outputs: bool = False) -> list[str]:
        with driver_errors(self._server):
            infos = self._outputs.all()
            cleared = [info for info in infos if outputs and info.created_column]
            unset = [
                f"drop collection {info.name}" if info.side else f"unset {info.name!r} in {info.table!r}"
                for info in cleared
            ]
            return unset + [f"drop collection {name}" for name in migrations.own_collections(self._wire)]

    def remove_all(self, *, outputs: bool = False) -> None:
        with driver_errors(self._server):
            for info in self._outputs.all() if outputs else ():
                if info.created_column:
                    self._outputs.clear_values(info)
            for name in migrations.own_collections(self._wire):
                self._wire.database.drop_collection(name)

    def close(self) -> None:
        self._reader.close()
        if self._owns_client:
            self._wire.database.client.close()


def _own(source: Source) -> MongoSource:
    if not isinstance(source, MongoSource):
        raise UnsupportedQuery(f"{type(source).__name__} was resolved by another database")
    return source


def _table_of(entity: Any) -> str:
    if isinstance(entity, Collection):
        return entity.name
    return entity.collection if isinstance(entity, Query) else str(entity)
