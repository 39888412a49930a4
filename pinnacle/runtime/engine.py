"""The one path for bulk work: pages of rows -> model -> outputs written beside them.

The caller's thread reads a page ahead and runs the model; one writer thread commits
outputs batch by batch. Nothing is held during a model call but a lease, which only other
runs look at. At most two batches wait to be written, so what a crash can lose is the
calls of ``batch_size * (concurrency + 2)`` rows.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from pinnacle.backends.protocol import Target
from pinnacle.base.errors import BackendError, BudgetReached, ModelError, RowRejected
from pinnacle.base.failpoints import failpoint
from pinnacle.base.loop import stop_requested
from pinnacle.base.metering import Meter, Usage, meter
from pinnacle.base.rows import Failure, Key, OutputBatch, Page
from pinnacle.components.model import Model
from pinnacle.runtime.calling import BATCH_SIZES, Caller, Done, Failed
from pinnacle.runtime.dry_run import count_only
from pinnacle.runtime.held import Held, failures_of, pick
from pinnacle.runtime.memory import RunMemory
from pinnacle.runtime.options import Cache, RunOptions, RunSettings
from pinnacle.runtime.patience import Patience
from pinnacle.runtime.result import PredictResult
from pinnacle.runtime.sizing import PageSize
from pinnacle.runtime.writing import Writer, brisk, reconnecting

log = logging.getLogger(__name__)

PROBE_PAUSES_S = (0.0, 0.7)
PATIENCE_S = 60.0
"""How long rows that others keep locked or changing are tried again before they are left to the next run."""


Claim = tuple[str, Sequence[int], bool]


class Run:
    """One predict over a target."""

    def __init__(self, model: Model, target: Target, options: RunOptions, settings: RunSettings) -> None:
        self.model, self.target, self.options = model, target, options
        self.batch_size = options.batch_size or model.batch_size or BATCH_SIZES[model.call_style]
        self.caller = Caller(model, target.info.fields, options.parameters, self.batch_size)
        self.result = PredictResult(f"{target.info.table}.{target.info.name}", dry_run=options.dry_run)
        self._id, self._ttl, self._settings = uuid.uuid4().hex, settings.lease_ttl_s, settings
        self._progress = settings.on_progress
        self._meter = Meter(options.budget)
        self._patience = Patience(model.identifier, settings.outage_patience_s)
        self._judges = False
        self._good: list[Any] | None = None
        self._memory = RunMemory()
        self._held: list[Held] = []
        self._later: list[Key] = []
        self._size = PageSize(model, self.batch_size)
        self._stop = stop_requested.get()

    def execute(self, keys: Sequence[Key] | None = None) -> PredictResult:
        """Run to the end, over the source or only its rows ``keys``.

        On any error or Ctrl-C, what was computed is written first.
        """
        began = time.perf_counter()
        try:
            if self.options.dry_run:
                count_only(self._pages(), self.caller, self.result, self._progress)
            else:
                with brisk, self._writing(), self._heartbeat(), self._metering():
                    self._run(keys)
        finally:
            self.result.calls = self.caller.calls
            self.result.seconds = time.perf_counter() - began
        return self.result

    def _run(self, keys: Sequence[Key] | None) -> None:
        try:
            if keys is not None:
                self.result.read = len(keys)
                self._later = list(keys)
            else:
                for held in self._claimed_pages():
                    self._process(held)
                    self._rest_after_outage()
                    if self._is_halted():
                        break
            if not self._is_halted():
                self._finish_later()
            if self._is_halted():
                self._drain()
                self.result.pending = self.result.read - self.result.settled
        finally:
            self._drain()

    def _is_halted(self) -> bool:
        """Whether nothing more is to be asked: the budget is reached; raises where the account is refused."""
        if self.caller.halted is None:
            return False
        if not isinstance(self.caller.halted, BudgetReached):
            raise self.caller.halted
        self.result.budget_reached = True
        return True

    def _rest_after_outage(self) -> None:
        """Wait while the provider does not answer; ProviderUnavailable when that takes longer than is waited for."""
        until = time.monotonic() + self._patience.rest_s(self.caller.outage, time.monotonic())
        while (left := until - time.monotonic()) > 0:
            self._check_stop()
            time.sleep(min(0.1, left))

    # -- pages ------------------------------------------------------------------------------------

    def _claimed_pages(self) -> Iterator[Held]:
        """Pages in key order; the next one is read and claimed before this one is worked on."""
        ahead: tuple[Page, Future[Claim]] | None = None
        for page in self._pages():
            claim = self._start_claim(page)
            if ahead is not None:
                yield self._granted(*ahead)
            ahead = (page, claim)
        if ahead is not None:
            yield self._granted(*ahead)

    def _pages(self) -> Iterator[Page]:
        after: Key | None = None
        while self.options.limit is None or self.result.read < self.options.limit:
            rows = self._size.rows
            if self.options.limit is not None:
                rows = min(rows, self.options.limit - self.result.read)
            began = time.perf_counter()
            page = reconnecting(partial(self.target.read, after, rows, overwrite=self.options.overwrite))
            if page.last is None:
                return
            self._size.after_read(page, time.perf_counter() - began)
            after = page.last
            self.result.read += page.read
            self.result.fresh += page.fresh
            self.result.set_aside += page.set_aside
            self._progress(page.read - len(page.keys))
            if page.keys:
                yield page

    def _start_claim(self, page: Page) -> Future[Claim]:
        """On the writer thread: lease the page, and release the pages that are all written."""
        settled = [held for held in self._held if held.is_settled()]
        self._held = [held for held in self._held if held not in settled]
        done = [held.lease for held in settled]
        claim = partial(self.target.claim, self._id, page, done, self._ttl)
        return self._writer.do(partial(reconnecting, claim))

    def _granted(self, page: Page, claim: Future[Claim]) -> Held:
        lease, granted, reread = claim.result()
        if len(granted) < len(page.keys):
            taken = set(granted)
            self._later.extend(key for i, key in enumerate(page.keys) if i not in taken)
        mine = page.take(granted)
        if reread and mine.keys:
            mine = self._reread(mine.keys)
        held = Held(mine, lease)
        if granted:
            self._held.append(held)
        return held

    def _reread(self, keys: Sequence[Key]) -> Page:
        """Rows as they are now; those that others finished count as fresh, those gone as changed."""
        page = reconnecting(partial(self.target.reread, keys, overwrite=self.options.overwrite))
        self.result.fresh += page.fresh
        self.result.set_aside += page.set_aside
        gone = len(keys) - page.read
        self.result.changed += gone
        self._progress(page.fresh + page.set_aside + gone)
        return page

    # -- one page ---------------------------------------------------------------------------------

    def _process(self, held: Held) -> None:
        began, page = time.perf_counter(), held.page
        self._check_stop()
        todo = self._without_nulls(held)
        owners, followers = self._distinct(page, todo, held)
        if owners and self._settings.cache is not None and not self.options.overwrite:
            owners = self._from_cache(self._settings.cache, held, owners, followers)
        if owners:
            inputs = [page.inputs[i] for i in owners] if len(owners) < len(page.keys) else page.inputs
            left = len(owners)
            with closing(self.caller.run(inputs)) as portions:
                for done in portions:
                    left -= self._finish(held, done, owners, followers)
                    self._check_stop()
            if left:
                self._leave(held, owners, followers)
        self._size.after_work(max(1, len(page.keys)), time.perf_counter() - began)

    def _from_cache(self, cache: Cache, held: Held, owners: list[int], followers: dict[int, list[int]]) -> list[int]:
        """Write the answers that were paid for before; the positions that still need one."""
        kept = cache.get([held.page.identities[i] for i in owners])
        known = [n for n, output in enumerate(kept) if output is not None]
        if not known:
            return owners
        self._meter.count(Usage(cached=len(known)))
        self.result.cached += len(known)
        done = Done(known, [kept[n] for n in known])
        self._finish(held, done, owners, followers, is_new=False)
        return [owner for n, owner in enumerate(owners) if kept[n] is None]

    def _leave(self, held: Held, owners: list[int], followers: dict[int, list[int]]) -> None:
        """Rows whose inputs met no answer come back later; those that met none often enough while others did are
        set aside. Where nothing tells whether others do, and `_judges`, another input is asked again."""
        left = [owner for owner in owners if owner not in held.answered]
        met = [held.met[owner] for owner in left if owner in held.met]
        is_known = all(item.others_served for item in met)
        answers = not is_known and self._judges and self._provider_answers()
        for item in met:
            if item.others_served or answers:
                rounds = self._patience.rounds_alone(held.page.keys[item.position], item.error)
                if rounds:
                    left.remove(item.position)
                    same = (item.position, *followers.get(item.position, ()))
                    self._set_aside(held, [replace(item, position=i, attempts=rounds) for i in same])
        for owner in left:
            self._later.extend(held.page.keys[i] for i in (owner, *followers.get(owner, ())))

    def _provider_answers(self) -> bool:
        """Whether an input that was answered before is answered now; asked for a while: it may have to wait."""
        if self._good is None:
            return False
        for pause_s in PROBE_PAUSES_S:
            time.sleep(pause_s)
            self._check_stop()
            if any(done.positions for done in self.caller.run(self._good)):
                return True
        return False

    def _without_nulls(self, held: Held) -> list[int]:
        """Positions whose inputs go to the model; the others get their NULL output at once."""
        inputs, everything = held.page.inputs, list(range(len(held.page.inputs)))
        if not self.model.skip_null:
            return everything
        if len(self.target.info.fields.paths) == 1:
            if type(None) not in set(map(type, inputs)):
                return everything
            empty = [i for i, value in enumerate(inputs) if value is None]
        else:
            empty = [i for i, values in enumerate(inputs) if any(value is None for value in values)]
        if not empty:
            return everything
        self.result.empty += len(empty)
        self._write(held, empty, [None] * len(empty))
        skipped = set(empty)
        return [i for i in everything if i not in skipped]

    def _distinct(self, page: Page, todo: list[int], held: Held) -> tuple[list[int], dict[int, list[int]]]:
        """One position for each input not yet computed in this run, and the rows that share it."""
        identities = page.identities if len(todo) == len(page.keys) else [page.identities[i] for i in todo]
        if self._memory.knows_none_of(list(identities)):
            return todo, {}
        owners: list[int] = []
        owner_of: dict[Any, int] = {}
        followers: dict[int, list[int]] = {}
        known: tuple[list[int], list[Any]] = ([], [])
        for position, identity in zip(todo, identities, strict=True):
            hit, output = self._memory.get(identity)
            if hit:
                known[0].append(position)
                known[1].append(output)
            elif identity in owner_of:
                followers.setdefault(owner_of[identity], []).append(position)
            else:
                owner_of[identity] = position
                owners.append(position)
        if known[0]:
            self.result.deduplicated += 0 if held.is_retried else len(known[0])
            self._write(held, *known)
        return owners, followers

    def _finish(
        self, held: Held, done: Done, owners: list[int], followers: dict[int, list[int]], *, is_new: bool = True
    ) -> int:
        """Check finished outputs, share them, and hand them to the writer; how many inputs are settled."""
        failpoint("after-model")
        positions = [owners[i] for i in done.positions]
        values, misfits = self.target.check_all(done.outputs) if done.outputs else ([], {})
        failed = [Failed(owners[f.position], f.error, f.attempts) for f in done.failed]
        held.met.update((owners[f.position], replace(f, position=owners[f.position])) for f in done.unanswered)
        if is_new and positions:
            self._good = [held.page.inputs[positions[0]]]
        settled = len(positions) + len(failed)
        self.result.computed += settled if is_new else 0
        held.answered.update(positions, (f.position for f in failed))
        if misfits:
            failed += [Failed(positions[i], error, 1) for i, error in misfits.items()]
            positions = [p for i, p in enumerate(positions) if i not in misfits]
            values = [v for i, v in enumerate(values) if i not in misfits]
        outputs = list(values)
        identities = held.page.identities
        answered = [identities[p] for p in positions]
        self._memory.put(answered, outputs)
        if is_new and self._meter.has_untaken():
            held.writes.append(self._writer.write(self._bill))
        if is_new and positions and self._settings.cache is not None:
            held.writes.append(self._writer.write(partial(self._settings.cache.put, answered, list(outputs))))
        if followers:
            for position, output in list(zip(positions, outputs, strict=True)):
                shared = followers.get(position, ())
                self.result.deduplicated += len(shared)
                positions.extend(shared)
                outputs.extend([output] * len(shared))
            failed += [Failed(p, f.error, f.attempts) for f in list(failed) for p in followers.get(f.position, ())]
        if positions:
            self._write(held, positions, outputs)
        if failed:
            self._set_aside(held, failed)
        return settled

    def _bill(self) -> None:
        """Record what was spent since the last time."""
        usage = self._meter.take()
        if usage:
            self._settings.on_usage(usage)

    # -- writing, on the writer thread --------------------------------------------------------------

    def _write(self, held: Held, positions: list[int], outputs: Sequence[Any]) -> None:
        """Queue outputs; waits while two batches are queued already."""
        for start in range(0, len(positions), self.batch_size):
            part = positions[start : start + self.batch_size]
            page, results = held.page, outputs[start : start + self.batch_size]
            batch = OutputBatch(pick(page.keys, part), results, pick(page.witnesses, part))
            batch = self.target.prepare(batch)
            held.writes.append(self._writer.write(partial(self._write_batch, batch)))

    def _write_batch(self, batch: OutputBatch) -> None:
        failpoint("before-write")
        try:
            unwritten = reconnecting(partial(self.target.write, batch))
        except RowRejected as error:
            if len(batch.keys) == 1 and self.options.on_error == "raise":
                raise
            if len(batch.keys) > 1:
                middle = len(batch.keys) // 2
                for part in (slice(None, middle), slice(middle, None)):
                    self._write_batch(OutputBatch(batch.keys[part], batch.outputs[part], batch.witnesses[part]))
                return
            self._record([Failure(batch.keys[0], batch.witnesses[0], type(error).__name__, str(error), str(error), 1)])
            return
        failpoint("after-write")
        self.result.written += len(batch.keys) - len(unwritten)
        self._progress(len(batch.keys) - len(unwritten))
        self._later.extend(batch.keys[i] for i in unwritten)

    def _set_aside(self, held: Held, failed: Sequence[Failed]) -> None:
        page = held.page
        failures = failures_of(page, failed)
        held.writes.append(self._writer.write(partial(self._record, failures)))
        if self.options.on_error == "raise":
            first = failed[0]
            raise ModelError(
                f"model {self.model.identifier!r} failed on {self.result.output} for key "
                f"{page.keys[first.position]!r}: {type(first.error).__name__}: {first.message}",
                keys=[page.keys[f.position] for f in failed],
            ) from first.error

    def _record(self, failures: Sequence[Failure]) -> None:
        self.target.fail(failures)
        self.result.failed += len(failures)
        self._progress(len(failures))

    def _check_stop(self) -> None:
        """Raise what a write failed with, or CancelledError when the caller no longer waits."""
        self._writer.raise_failure()
        if self._stop is not None and self._stop.is_set():
            raise CancelledError("the run was cancelled; what was computed is written")

    def _drain(self) -> None:
        """Wait until all queued writes are committed."""
        for held in list(self._held):
            for write in held.writes:
                write.exception()

    # -- rows others held, locked or changed ----------------------------------------------------------

    def _finish_later(self) -> None:
        """Come back to rows that were leased, locked or edited by others, until they are done."""
        quiet_since, pause = time.monotonic(), 0.01
        self._judges = True
        while True:
            self._drain()
            self._check_stop()
            keys, self._later = self._later, []
            if not keys:
                return
            progress_before = self.result.written + self.result.fresh
            waiting_for_others = False
            for start in range(0, len(keys), self._size.rows):
                page = self._reread(keys[start : start + self._size.rows])
                if page.keys:
                    held = self._granted(page, self._start_claim(page))
                    held.is_retried = True  # outputs it remembers are these rows' own
                    waiting_for_others |= len(held.page.keys) < len(page.keys)
                    self._process(held)
                    self._rest_after_outage()
                    waiting_for_others |= self.caller.outage is not None
                    if self._is_halted():
                        self._later.extend(keys[start + self._size.rows :])
                        return
            self._drain()
            if self.result.written + self.result.fresh > progress_before or waiting_for_others:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > PATIENCE_S:
                self.result.changed += len(self._later)
                return
            pause = 0.01 if self.result.written + self.result.fresh > progress_before else min(1.0, pause * 2)
            time.sleep(pause)

    # -- around ---------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._writer = Writer()
        try:
            yield
        finally:
            self._writer.close()
            try:
                self.target.release(self._id)
            except BackendError as error:  # they expire by themselves, and the first error matters more
                log.warning("leases of run %s could not be released: %s", self._id, error)

    @contextmanager
    def _metering(self) -> Iterator[None]:
        """Have what is called below count here; what it cost is recorded at the end, however it ends."""
        token = meter.set(self._meter)
        try:
            yield
        finally:
            meter.reset(token)
            self.result.spent(self._meter.total)
            self._bill()

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Renew the leases while the run lives."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self._ttl / 3):
                try:
                    self.target.renew(self._id, self._ttl)
                except BackendError as error:
                    log.warning("leases of run %s could not be renewed: %s", self._id, error)

        thread = threading.Thread(target=beat, name="pinnacle-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
