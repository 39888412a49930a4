"""The Backend of MongoDB and mongomock: one short method a duty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pinnacle.backends.mongodb import migrations
from pinnacle.backends.mongodb.changes.backlogs import StreamBacklogs, SweptBacklogs
from pinnacle.backends.mongodb.changes.feeds import MongoFeed, StreamFeed, SweptFeed, check_watch
from pinnacle.backends.mongodb.changes.listener_registry import ListenerRegistry
from pinnacle.backends.mongodb.changes.listeners import MongoListeners
from pinnacle.backends.mongodb.changes.reader import ChangeReader
from pinnacle.backends.mongodb.changes.wakes import StreamWake, SweepWake
from pinnacle.backends.mongodb.execution import execute
from pinnacle.backends.mongodb.mending import mend
from pinnacle.backends.mongodb.outputs import MongoOutputs
from pinnacle.backends.mongodb.query import Collection, Query
from pinnacle.backends.mongodb.stores.catalog import MongoCatalog
from pinnacle.backends.mongodb.stores.ledger import MongoLedger
from pinnacle.backends.mongodb.stores.runs import MongoRuns
from pinnacle.backends.mongodb.stores.seals import MongoSeals
from pinnacle.backends.mongodb.target.frozen_finds import freeze, read_by, thaw
from pinnacle.backends.mongodb.target.leases import Leases
from pinnacle.backends.mongodb.target.output_registry import OutputRegistry
from pinnacle.backends.mongodb.target.row_errors import MongoErrors
from pinnacle.backends.mongodb.target.side_target import SideTarget, SideWriter
from pinnacle.backends.mongodb.target.source import MongoSource, resolve, resolve_stored
from pinnacle.backends.mongodb.target.target import MongoTarget
from pinnacle.backends.mongodb.target.window_target import WindowTarget
from pinnacle.backends.mongodb.target.writer import Writer
from pinnacle.backends.mongodb.wire.clock import ServerClock
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.backends.protocol import NO_OUTPUT, Capability, CatalogStore, RunStore, Searcher, Source, Target, Wake
from pinnacle.base.document import default_output_path
from pinnacle.base.errors import UnsupportedQuery
from pinnacle.base.listeners import Watch
from pinnacle.base.refusals import of_another_database
from pinnacle.base.rows import Fields, OutputInfo, OutputSpec
from pinnacle.base.seal import NO_SEAL, Seal
from pinnacle.base.told import logger
from pinnacle.base.types import Text

log = logger(__name__)

LAST_WRITES_S = 60.0
"""How long workers may take for the rows that they hold, once their listener is gone."""


class MongoBackend:
    """An open MongoDB database."""

    def __init__(self, wire: Wire, seal: Seal = NO_SEAL) -> None:
        self._wire = wire
        self.seals = seals = MongoSeals(wire, seal)
        clock, registry, outputs = ServerClock(wire), ListenerRegistry(wire), OutputRegistry(wire)
        reader = ChangeReader(wire, clock, outputs, registry)
        is_told = Capability.TRANSACTIONS in wire.capabilities  # of changes, by a replica set or a sharded cluster
        backlogs = StreamBacklogs(registry, clock, reader) if is_told else SweptBacklogs(registry, clock)
        self._clock, self._registry, self._reader, self._is_told = clock, registry, reader, is_told
        self.catalog: CatalogStore = MongoCatalog(wire, clock, self.migrate, seals)
        self.runs: RunStore = MongoRuns(wire, clock, self.migrate)
        self.ledger = MongoLedger(wire, self.migrate)
        self.listeners = MongoListeners(registry, outputs, backlogs, reader)
        self.outputs = MongoOutputs(wire, self.listeners, self.ledger)
        self.errors = MongoErrors(wire, outputs)
        self.searcher: Searcher | None = None

    @property
    def name(self) -> str:
        return self._wire.name

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._wire.capabilities

    @property
    def engine(self) -> Any:
        """The user's Database object, of pymongo or mongomock."""
        return self._wire.engine

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            raise UnsupportedQuery("a query of MongoDB holds its own arguments; execute takes nothing beside it")
        return execute(self._wire, self.outputs, query)

    def owns(self, query: Any) -> bool:
        return isinstance(query, (Query, Collection))

    def default_name(self, fields: Fields, identifier: str) -> str:
        """Where an output goes that was given no field: ``_outputs.{X}.{identifier}``."""
        return default_output_path(fields, identifier)

    def resolve(self, query: Any, fields: Fields, *, checked: bool = False) -> MongoSource:
        if isinstance(query, Mapping):
            query = thaw(query, self._wire)
            if not checked:
                return resolve_stored(self._wire, query, fields)
        return resolve(self._wire, query, fields, self.outputs.holds)

    def freeze(self, source: Source, *, limited: bool = False) -> dict[str, Any]:
        own = _own(source)
        return freeze(own if limited else own.whole(), self._wire, limited=limited)

    def plan(self, source: Source, spec: OutputSpec) -> list[str]:
        return self.migration_plan() + self.outputs.plan(_own(source).whole(), spec)

    def bind(self, source: Source, spec: OutputSpec, *, create: bool = True) -> Target:
        own = _own(source).whole()
        if create:
            self.migrate()  # of two processes that bind an output, its unique index lets one register it
        info = replace(self.outputs.bind(own, spec, create=create), parameters=read_by(spec.parameters, self._wire))
        leases = Leases(self._wire, info.id, self._clock)
        if info.side is not None:
            return SideTarget(self._wire, own, info, leases, SideWriter(self._wire, own, info))
        return MongoTarget(self._wire, own, info, leases, Writer(self._wire, own, info))

    def scan(self, source: Source) -> Target:
        own = _own(source)
        info = OutputInfo(
            id=0,
            table=own.table,
            name=NO_OUTPUT,
            model="",
            version=0,
            fields=own.fields,
            type=Text(),
            created_column=False,
        )
        made = MongoTarget if own.window is None else WindowTarget
        leases = Leases(self._wire, info.id, self._clock)
        return made(self._wire, own, info, leases, Writer(self._wire, own, info))

    # -- listeners ---------------------------------------------------------------------------------

    def feed(self, target: Target, reads: Sequence[str], watch: Watch) -> MongoFeed:
        check_watch(watch)
        if not isinstance(target, MongoTarget):
            raise of_another_database(target)
        if self._is_told:
            return StreamFeed(target, self._registry, reads, self._reader)
        return SweptFeed(target, self._registry, reads)

    def wake(self) -> Wake:
        if self._is_told:
            return StreamWake(self._reader)
        return SweepWake(self._registry)

    def check(self) -> None:
        """Nothing is to be found out: a change stream fails nobody's writes, and a server stays the one it is."""

    def lead(self, worker: str, ttl_s: float) -> str | None:
        """All workers may work at once: leases keep them off each other's rows."""
        return None

    # -- pinnacle's own collections ------------------------------------------------------------------

    def migration_plan(self) -> list[str]:
        return [statement for step in migrations.pending(self._wire) for statement in step.statements]

    def migrate(self) -> None:
        mend(self._wire)
        migrations.migrate(self._wire)

    def removal_plan(self, *, outputs: bool = False) -> list[str]:
        infos = self.outputs.all()
        cleared = [info for info in infos if outputs and self.outputs.is_made(info)]
        unset = [
            f"drop collection {info.name}" if info.side else f"unset {info.name!r} in {info.table!r}"
            for info in cleared
        ]
        return unset + [f"drop collection {name}" for name in migrations.own_collections(self._wire)]

    def remove_all(self, *, outputs: bool = False) -> None:
        if outputs:
            self._clear_outputs()
        for name in migrations.own_collections(self._wire):
            self._wire.collection(name).drop()

    def _clear_outputs(self) -> None:
        """Unset all values, after listeners are removed: a worker that has not seen it yet would compute them again.
        It leases no more of their rows from then on, and writes only what it holds."""
        kept_fresh = [record.output for record in self.listeners.all()]
        for output in kept_fresh:
            self.listeners.remove(output)
        for output in kept_fresh:
            if not Leases(self._wire, output, self._clock).await_none(LAST_WRITES_S):
                log.warning("rows of output %s are worked on still: their values may come back", output)
        for info in self.outputs.all():
            if self.outputs.is_made(info):
                self.outputs.clear_values(info)

    def close(self) -> None:
        self._reader.close()
        self._wire.close()


def _own(source: Source) -> MongoSource:
    if not isinstance(source, MongoSource):
        raise of_another_database(source)
    return source
