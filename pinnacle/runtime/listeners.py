"""Listeners of one database: added, removed, paused, counted, and worked on inside this process."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pinnacle.backends.protocol import Backend, Feed, Target
from pinnacle.base.errors import (
    ComponentError,
    ConfigError,
    Conflict,
    ModelUnavailable,
    NotDrained,
    NotFound,
    PinnacleError,
)
from pinnacle.base.listeners import Freshness, ListenerRecord, ListenerStatus, Watch
from pinnacle.base.near import did_you_mean
from pinnacle.base.refusals import other_output
from pinnacle.base.rows import Fields, OutputSpec
from pinnacle.base.settings import Settings
from pinnacle.base.types import Items
from pinnacle.catalog.catalog import Catalog
from pinnacle.catalog.references import reference_to_class
from pinnacle.components.component import keep_secrets
from pinnacle.components.listener import Listener
from pinnacle.components.model import Model
from pinnacle.components.side import Side, place_of
from pinnacle.components.stored_model import StoredModel
from pinnacle.runtime.arguments import canonical, check_arguments
from pinnacle.runtime.books import predict_settings
from pinnacle.runtime.keeper import Keeper
from pinnacle.runtime.listener_prediction import ListenerPrediction
from pinnacle.runtime.local_worker import LocalWorker
from pinnacle.runtime.plan import refuse_foreign
from pinnacle.runtime.standings import Standings
from pinnacle.runtime.worker import Worker

POLL_S = 0.02
PAGE_ROWS = 10_000
LATER_THAN_ALL = 2**31 - 1
LISTENER_TYPE = reference_to_class(Listener).name


class Listeners:
    """What `Database` knows of listeners."""

    def __init__(self, backend: Backend, catalog: Catalog, settings: Settings) -> None:
        self._backend, self._catalog, self._settings = backend, catalog, settings
        self._standings = Standings(catalog)
        self._added: dict[str, Listener] = {}
        self._local: LocalWorker | None = None

    # -- adding and removing -----------------------------------------------------------------------

    def add(self, listener: Listener, *, allow_pickle: bool = False) -> Listener:
        """Store a listener and begin to capture; its first fill is for a worker to do."""
        listener.model = self._found(listener.model)
        stored, source, spec, kept = self._prepared(listener)
        spec = replace(spec, adopt=stored.adopt)
        self._check_circles(stored, source, spec)
        self._check_plan(source, spec)
        refuse_foreign(self._backend, source, spec, listener.output, adopt=stored.adopt)
        was_there = self._check_place(stored.identifier, source.table, spec.name)
        stored = self._catalog.add(stored, allow_pickle=allow_pickle, keeps=kept)
        listener.identifier, listener.version, listener.model = stored.identifier, stored.version, stored.model
        self._added[stored.identifier] = stored
        target = self._backend.bind(source, replace(spec, version=_model(stored).version or 0))
        try:
            self._begin(stored, target)
        except PinnacleError as error:
            if was_there:
                self._backend.listeners.pause(target.info.id, str(error))
            else:
                self._backend.listeners.remove(target.info.id)
                self._catalog.remove(Listener.kind, stored.identifier, stored.version)
            raise
        return listener

    def _check_plan(self, source: Any, spec: OutputSpec) -> None:
        """Raise what stands in the way of an output, whichever version of the model fills it."""
        self._backend.plan(source, replace(spec, version=LATER_THAN_ALL))

    def _check_place(self, identifier: str, table: str, column: str) -> bool:
        """Whether the listener is there already; Conflict when its name or its output is another's."""
        for record in self._backend.listeners.all():
            place = (record.table, record.column)
            if record.identifier == identifier and place != (table, column):
                raise Conflict(
                    f"listener {identifier!r} keeps {record.table}.{record.column} fresh; choose another identifier, "
                    "or remove that listener first"
                )
            if record.identifier != identifier and place == (table, column):
                raise Conflict(
                    f"listener {record.identifier!r} keeps {table}.{column} fresh already; use its identifier, or "
                    "remove it first"
                )
            if record.identifier == identifier:
                return True
        return False

    def _begin(self, stored: Listener, target: Target) -> None:
        """Register the listener and make its capture; only then the first sweep, so that no change is between them."""
        feed = self._feed(stored, target)
        if self._backend.listeners.register(target.info.id, stored.identifier, stored.version or 0):
            feed.install()
            self._backend.listeners.request_sweep(target.info.id)
        elif reason := feed.verify():
            self._backend.listeners.pause(target.info.id, reason)

    def plan(self, listener: Listener) -> list[str]:
        """The statements that `add` would run."""
        stored, source, spec, _ = self._prepared(replace(listener, model=self._found(listener.model)))
        statements = self._backend.plan(source, spec)
        return statements + self._feed(stored, self._backend.bind(source, spec, create=False)).plan()

    def remove(self, identifier: str, version: int | None = None) -> None:
        """Take away the capture, triggers first, then the component; the output stays."""
        record = self._find(identifier)
        is_stored = self._catalog.store.get(Listener.kind, identifier) is not None  # and not dropped by hand
        if is_stored:
            self._catalog.check_removable(Listener.kind, identifier, version)
        if version in (None, record.version):
            self._backend.listeners.remove(record.output)
            self._standings.keep_only(())
            self._added.pop(identifier, None)
        if is_stored:
            self._catalog.remove(Listener.kind, identifier, version)

    def forget_added(self) -> None:
        """All listeners are removed, those that were added here too."""
        self._added.clear()

    def _found(self, model: Model | str | None) -> Any:
        """A model that was given by its name, loaded."""
        return self._catalog.load(Model.kind, model) if isinstance(model, str) else model

    def _prepared(self, listener: Listener) -> tuple[Listener, Any, OutputSpec, Model | None]:
        """The same for a listener that is about to be added, and the model that it is to have where that is stored."""
        stored, source, spec = self._stored(listener)
        registered = next((r for r in self._backend.listeners.all() if r.identifier == stored.identifier), None)
        kept = self._standings.model_for(listener, registered)
        if kept is not None:
            keep_secrets(kept, _model(listener))
            stored, source, spec = self._stored(replace(listener, model=kept))
        return stored, source, spec, kept

    def _stored(self, listener: Listener) -> tuple[Listener, Any, OutputSpec]:
        """The listener as it is stored: its select as plain values, its fields by the database's names."""
        model, fields = _model(listener), Fields.of(listener.key)
        check_arguments(model, fields, listener.parameters)
        source = self._resolved(listener, fields)
        chosen, kind = place_of(listener.output, model)
        name = chosen or self._backend.default_name(source.fields, model.identifier)
        output = listener.output or name
        select = listener.select if isinstance(listener.select, Mapping) else self._backend.freeze(source)
        stored = replace(
            listener, identifier=listener.identifier or f"{source.table}.{name}", key=source.fields.to_json(),
            select=select, output=listener.output.to_stored() if isinstance(listener.output, Side) else output,
        )  # fmt: skip
        spec = OutputSpec(
            name=name, type=kind, model=model.identifier, version=model.version or 0, fields=source.fields,
            parameters=canonical(listener.parameters),
        )  # fmt: skip
        return stored, source, spec

    def _resolved(self, listener: Listener, fields: Fields) -> Any:
        try:
            return self._backend.resolve(listener.select, fields)
        except ComponentError as error:
            raise ComponentError(f"listener {listener.identifier!r}: {error}") from error

    def _check_circles(self, listener: Listener, source: Any, spec: OutputSpec) -> None:
        """Refuse a listener whose output would, through others, change what it reads."""
        reads = {*source.fields.paths, *listener.select.get("reads", ())}
        is_side = isinstance(spec.type, Items)
        start: tuple[str, str | None] = (source.beside(spec.name), None) if is_side else (source.table, spec.name)
        others = [r for r in self._backend.listeners.all() if (r.table, r.column) != (source.table, spec.name)]
        paths: dict[tuple[str, str | None], list[str]] = {start: [spec.name]}
        todo: list[tuple[str, str | None]] = [start]
        while todo:
            place = todo.pop()
            if _is_read(place, source.table, reads):
                raise Conflict(
                    f"listener {listener.identifier!r} would close a circle, and wake itself for ever: "
                    f"{' -> '.join([*paths[place], spec.name])}; leave its own output, and what is computed from it, "
                    "out of its key and select"
                )
            for record in others:
                if record.writes not in paths and _is_read(place, record.table, record.reads):
                    paths[record.writes] = [*paths[place], record.column]
                    todo.append(record.writes)

    def after_predict(self, output: int, parameters: str) -> None:
        """Have outputs compared that a predict has written with other keywords than the listener's, or of inputs that
        it read otherwise."""
        for record in self._backend.listeners.all():
            if record.output == output and self._parameters_of(record) != parameters:
                self._backend.listeners.request_sweep(output)

    def _parameters_of(self, record: ListenerRecord) -> str | None:
        """What a listener's prediction is known by beside its inputs; None where it cannot be loaded here, or a newer
        version of its model has the output."""
        try:
            _, source, spec = self._stored(self._load(record))
            return self._backend.bind(source, spec, create=False).info.parameters
        except (ComponentError, Conflict, ModelUnavailable):
            return None

    def to_retry(self, output: int) -> tuple[Listener, Target] | None:
        """The listener that keeps an output fresh, with the rows it selects; None where there is none."""
        record = next((r for r in self._backend.listeners.all() if r.output == output), None)
        if record is None:
            return None
        listener = self._load(record)
        return listener, self._bound(record, listener)[0]

    # -- following ---------------------------------------------------------------------------------

    def behind(self, records: Collection[ListenerRecord]) -> Mapping[int, int]:
        """By output, the version that its model has got to, for each listener to be moved; ``records`` are all."""
        self._standings.keep_only({record.output for record in records})
        return self._standings.behind([record for record in records if record.paused is None])

    def follow(self, record: ListenerRecord, version: int) -> bool:
        """Move a listener to a version of its model, as if it was added again with that; whether it was moved.

        Nothing is changed where others moved it first, or where the model cannot be loaded in
        this process or does not fit the output, which raises.
        """
        here = self._added.get(record.identifier)
        is_same = here is not None and here.version == record.version
        moved = self._standings.moved(record, version, here if is_same else None)
        if moved is None:
            return False
        listener, is_pickled = moved
        stored, source, spec = self._stored(listener)
        self._check_plan(source, spec)
        stored = self._catalog.add(stored, allow_pickle=is_pickled, keeps=listener.model)
        if here is not None:
            keep_secrets(_model(stored), _model(here))
        self._added[stored.identifier] = stored
        return self._backend.listeners.move(record.output, record.version, stored.version or 0)

    # -- one listener ------------------------------------------------------------------------------

    def sweep(self, listener: str | Listener) -> None:
        """Have a worker look at all rows again."""
        self._backend.listeners.request_sweep(self._find(listener).output)

    def pause(self, listener: str | Listener, reason: str) -> None:
        self._backend.listeners.pause(self._find(listener).output, reason or "paused")

    def resume(self, listener: str | Listener) -> None:
        """Go on, with a sweep: what was missed meanwhile is found by it."""
        record = self._find(listener)
        if not self._standings.behind([record]):  # else for a worker: it may be that only the newer one fills it now
            self._bound(record, self._outlined(record))[1].install()
        self._backend.listeners.resume(record.output)

    def fresh(self, listener: str | Listener) -> Freshness:
        """Count the rows that the select matches now, by the version of the model that they are to have."""
        record = self._find(listener)
        _, source, spec = self._stored(self._load(record))
        self._require_registered(record, source, spec)
        version = self._standings.behind([record]).get(record.output)
        target = self._backend.bind(source, replace(spec, version=version or spec.version), create=version is None)
        counts = {"fresh": 0, "stale": 0, "missing": 0, "failed": 0}
        after = None
        while (page := target.read(after, PAGE_ROWS)).last is not None:
            after = page.last
            counts["fresh"] += page.fresh
            counts["failed"] += page.set_aside + len(page.unreadable)
            counts["missing"] += page.missing
            counts["stale"] += len(page.keys) - page.missing
        return Freshness(**counts)

    def status(self) -> list[ListenerStatus]:
        """How every listener stands; needs none of their models."""
        found, records = [], self._backend.listeners.all()
        behind, failed = self._standings.behind(records), self._backend.errors.counts()
        for record in records:
            backlog = self._backend.listeners.backlog(record.output)
            standing = self._standings.standing(record)
            found.append(
                ListenerStatus(
                    identifier=record.identifier, output=f"{record.table}.{record.column}", pending=backlog.pending,
                    in_flight=backlog.in_flight, failed=failed.get(record.output, 0),
                    lag_s=backlog.oldest_s, processed=record.processed,
                    is_sweeping=record.sweep is not None or record.output in behind or bool(backlog.lost),
                    last_error=_told_of(backlog.lost) or record.error, paused=record.paused,
                    model=standing.model if standing else "", model_version=standing.version if standing else None,
                    follow="latest" if standing and standing.is_following else "pinned",
                )
            )  # fmt: skip
        return found

    def _find(self, listener: str | Listener) -> ListenerRecord:
        identifier = listener if isinstance(listener, str) else listener.identifier
        records = {record.identifier: record for record in self._backend.listeners.all()}
        if identifier not in records:
            raise NotFound(
                f"there is no listener {identifier!r}; {did_you_mean(identifier, records, none='there is none yet')}"
            )
        return records[identifier]

    def _load(self, record: ListenerRecord) -> Listener:
        here = self._added.get(record.identifier)
        if here is not None and here.version == record.version:
            return here
        loaded: Listener = self._catalog.load(Listener.kind, record.identifier, record.version)  # type: ignore[assignment]
        if here is not None:
            keep_secrets(_model(loaded), _model(here))
        return loaded

    def _outlined(self, record: ListenerRecord) -> Listener:
        """A listener with its model as far as its capture needs that: the model's class is not loaded."""
        stored = self._catalog.store.get(Listener.kind, record.identifier, record.version)
        standing = self._standings.standing(record)
        info = next((info for info in self._backend.outputs.all() if info.id == record.output), None)
        if record.identifier in self._added or stored is None or standing is None or info is None:
            return self._load(record)
        if stored.type != LISTENER_TYPE:  # a class of the user's own
            return self._load(record)
        model = StoredModel.of(standing.model, standing.version, info.type)
        return self._catalog.load_with(model, stored)  # type: ignore[return-value]

    def _bound(self, record: ListenerRecord, listener: Listener | None = None) -> tuple[Target, Feed]:
        listener = listener or self._load(record)
        _, source, spec = self._stored(listener)
        self._require_registered(record, source, spec)
        target = self._backend.bind(source, spec)
        return target, self._feed(listener, target)

    def _require_registered(self, record: ListenerRecord, source: Any, spec: OutputSpec) -> None:
        """Conflict unless what a stored listener fills is the output that it is registered with: no other is made."""
        latest = replace(spec, version=LATER_THAN_ALL)
        if self._backend.bind(source, latest, create=False).info.id != record.output:
            raise other_output(record.identifier, f"{source.table}.{spec.name}")

    def _feed(self, listener: Listener, target: Target) -> Feed:
        watch = Watch(clears=listener.on_change == "clear", notifies=listener.notify, replicated=listener.replicated)
        return self._backend.feed(target, listener.select.get("reads", ()), watch)

    # -- the worker --------------------------------------------------------------------------------

    def worker(self) -> Worker:
        """A worker for this database; who calls runs it."""
        self._backend.migrate()
        return Worker(self._backend, self._settings, self._keeper, self.behind, self.follow)

    def listen(self) -> LocalWorker:
        """The worker in a thread of this process, started unless it runs."""
        if self._local is None or not self._local.is_alive:
            self._local = LocalWorker(self.worker())
        return self._local

    def stop(self) -> None:
        """Stop this process's worker, if it runs; what is in hand is finished."""
        if self._local is not None:
            self._local.stop()

    def drain(self, timeout_s: float) -> None:
        """Wait until no listener that is not paused has anything pending; NotDrained when the time is over, or the
        worker of this process has failed.

        What was quiet when it was asked may have got work since, from another listener of a chain
        or by a sweep. The registry then shows another state than before, and it is asked again. What is
        done counts as of the first question: a backend may answer later for all up to then.
        """
        if not timeout_s >= 0:  # so that NaN is refused too
            raise ConfigError(f"timeout_s is a number of seconds from 0, not {timeout_s!r}")
        until = time.monotonic() + timeout_s
        quiet: dict[int, Any] = {}
        asked: dict[int, int] = {}
        while True:
            self._backend.check()
            self._require_worker()
            records = self._backend.listeners.all()
            self._require_any(records)
            running = [record for record in records if record.paused is None]
            done = sum(record.processed for record in running)
            behind = self._standings.behind(running)
            unsure = [r for r in running if r.output in behind or quiet.get(r.output) != (r.sweep, r.swept_at, done)]
            if not unsure:
                return
            asked = {r.output: done for r in unsure if r.sweep is None} | asked
            waiting = [
                r
                for r in unsure
                if r.output in behind or r.sweep is not None or self._backend.listeners.has_work(r.output)
            ]
            quiet |= {r.output: (r.sweep, r.swept_at, asked.pop(r.output)) for r in unsure if r not in waiting}
            if waiting:
                if time.monotonic() >= until:
                    raise NotDrained(self._why(waiting, timeout_s))
                time.sleep(POLL_S)

    def _require_worker(self) -> None:
        """NotDrained where this process's worker ended by an error: what it was to do may never be done."""
        failure = None if self._local is None else self._local.failure
        if failure is not None:
            raise NotDrained(
                f"the worker of this process has failed ({type(failure).__name__}: {failure}); db.listen() starts "
                "another"
            ) from failure

    def _require_any(self, records: Collection[ListenerRecord]) -> None:
        """NotDrained where this process has added listeners and none at all is registered any more."""
        if self._added and not records:
            raise NotDrained(
                f"{', '.join(map(repr, self._added))} was added here and is gone: removed by another process, or with "
                "pinnacle's tables; add it again"
            )

    def _why(self, waiting: Sequence[ListenerRecord], timeout_s: float) -> str:
        named = ", ".join(f"{r.identifier}{f' ({r.error})' if r.error else ''}" for r in waiting)
        lives = bool(self._backend.listeners.workers())
        start = "" if lives else "; no worker lives: start one with db.listen() or: pinnacle worker URL"
        return f"after {timeout_s:g} s work is still pending for {named}{start}"

    def _keeper(self, record: ListenerRecord, worker: str) -> Keeper:
        listener = self._load(record)
        try:
            target, feed = self._bound(record, listener)
        except ConfigError as error:  # an input that is no longer there
            self._backend.listeners.pause(record.output, str(error))
            raise
        prediction = ListenerPrediction(
            _model(listener), target, unmatched=listener.unmatched, parameters=listener.parameters,
            settings=predict_settings(self._backend, self._settings, _model(listener), target),
        )  # fmt: skip
        return Keeper(
            self._backend,
            listener,
            record,
            target,
            feed,
            prediction,
            worker=worker,
            lease_ttl_s=self._settings.lease_ttl_s,
        )


def _told_of(lost: Sequence[str]) -> str | None:
    """What `status` says of tables of a listener's that somebody dropped."""
    return f"{', '.join(lost)} was dropped by hand: a worker makes it again, and looks at all rows" if lost else None


def _model(listener: Listener) -> Any:
    return listener.model


def _is_read(place: tuple[str, str | None], table: str, reads: Any) -> bool:
    """Whether a listener that reads these columns of ``table`` sees a change at ``place``."""
    changed, column = place
    if changed != table:
        return False
    return column is None or any(
        read == column or read.startswith(f"{column}.") or column.startswith(f"{read}.") for read in reads
    )
