"""``mode="batch"``: rows go to the provider as one batch, and are collected by a later call, in any process.

A batch is on record before it is submitted, under a token that goes along, so that one
submitted just before a crash is found again. The answers are written as those of any run:
where the row's input is still the one that was asked for.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pinnacle.backends.protocol import Backend, Target
from pinnacle.base.batches import BatchAnswers
from pinnacle.base.encoding import dump_key, identity_digest, load_key
from pinnacle.base.errors import ProviderRefused
from pinnacle.base.rows import Key, OutputBatch, Page
from pinnacle.base.usage import BatchJob
from pinnacle.components.model import Model
from pinnacle.runtime.calling import Caller, Failed
from pinnacle.runtime.held import failures_of
from pinnacle.runtime.options import RunOptions, RunSettings
from pinnacle.runtime.result import PredictResult

log = logging.getLogger(__name__)

MAX_REQUESTS = 20_000
"""In one batch; OpenAI takes 50,000 and 200 MB."""

PAGE_ROWS = 1_000
CLAIM_S = 900.0
"""How long rows are held while they are submitted: an upload takes time. Those of a dead process are free at once."""

UNSENT = "pinnacle:"
"""Before the token of a batch that is on record and may not have been submitted."""


class BatchRun:
    """One call in batch mode: collects what is done, and submits what is not yet on its way."""

    def __init__(
        self, backend: Backend, model: Model, target: Target, options: RunOptions, settings: RunSettings
    ) -> None:
        self._backend, self._model, self._target, self._options = backend, model, target, options
        self._settings, self._info, self._run = settings, target.info, uuid.uuid4().hex
        self._caller = Caller(model, target.info.fields, options.parameters, 1)
        self.result = PredictResult(f"{target.info.table}.{target.info.name}")

    def execute(self) -> PredictResult:
        """Collect, submit, and return at once; ``pending`` rows wait for the provider."""
        began = time.perf_counter()
        try:
            for job in self._backend.batches(self._info.id):
                self._collect(job)
            self._submit()
        finally:
            self._target.release(self._run)
            self.result.seconds = time.perf_counter() - began
        return self.result

    # -- collecting --------------------------------------------------------------------------------

    def _collect(self, job: BatchJob) -> None:
        if (job.version, job.parameters) != (self._info.version, self._info.parameters):
            log.warning("batch %s was submitted for another version or other keywords; it is not collected", job.id)
            self._backend.delete_batch(job.id)
            return
        found = self._submitted(job)
        answers = None if found is None else self._model.fetch_batch(found.id)
        if found is None or answers is None:
            return
        for start in range(0, len(found.items), PAGE_ROWS):
            self._write(answers, found.items[start : start + PAGE_ROWS])
        if self._backend.delete_batch(found.id):  # of two that collect it, one books it
            self._settings.on_usage(answers.usage)
            self.result.spent(answers.usage)
        if answers.failure is not None:
            raise ProviderRefused(f"the provider took nothing of batch {found.id}: {answers.failure}")

    def _submitted(self, job: BatchJob) -> BatchJob | None:
        """The job under the provider's own id; None where it was never submitted, and is forgotten."""
        if not job.id.startswith(UNSENT):
            return job
        found = self._model.find_batch(job.id.removeprefix(UNSENT))
        if found is None and self._is_being_submitted(job):
            return None
        submitted = None if found is None else replace(job, id=found)
        if submitted is not None:
            self._backend.save_batch(submitted)
        self._backend.delete_batch(job.id)
        return submitted

    def _is_being_submitted(self, job: BatchJob) -> bool:
        """Whether another run holds the rows of a batch that is not there yet: it may be on its way."""
        page = self._target.reread([load_key(key) for key, _ in job.items[:PAGE_ROWS]])
        _, granted, _ = self._target.claim(self._run, page, (), CLAIM_S)
        return len(granted) < len(page.keys)

    def _write(self, answers: BatchAnswers, items: Sequence[tuple[str, str]]) -> None:
        """Outputs of rows whose input is still what was asked for; the others are asked for again."""
        asked = {load_key(key): digest for key, digest in items}
        page = self._target.reread(list(asked))
        mine = [
            i for i, identity in enumerate(page.identities) if asked[page.keys[i]] == identity_digest(identity).hex()
        ]
        self.result.changed += len(page.keys) - len(mine)
        answered = [i for i in mine if asked[page.keys[i]] in answers.outputs]
        values, misfits = self._target.check_all([answers.outputs[asked[page.keys[i]]] for i in answered])
        sound = [n for n in range(len(answered)) if n not in misfits]
        positions, outputs = [answered[n] for n in sound], [values[n] for n in sound]
        failed = [Failed(answered[n], error, 1) for n, error in misfits.items()]
        wrong = [i for i in mine if asked[page.keys[i]] in answers.errors]
        failed += [Failed(i, answers.errors[asked[page.keys[i]]], 1) for i in wrong]
        if self._settings.cache is not None and positions:
            self._settings.cache.put([page.identities[i] for i in positions], outputs)
        self._write_outputs(page, positions, outputs)
        self._set_aside(page, failed)

    def _write_outputs(self, page: Page, positions: Sequence[int], outputs: Sequence[Any]) -> None:
        if not positions:
            return
        keys, witnesses = [page.keys[i] for i in positions], [page.witnesses[i] for i in positions]
        unwritten = self._target.write(self._target.prepare(OutputBatch(keys, outputs, witnesses)))
        self.result.written += len(positions) - len(unwritten)
        self.result.computed += len(positions)
        self.result.changed += len(unwritten)
        self._settings.on_progress(len(positions) - len(unwritten))

    def _set_aside(self, page: Page, failed: Sequence[Failed]) -> None:
        failures = failures_of(page, failed)
        if failures:
            self._target.fail(failures)
            self.result.failed += len(failures)

    # -- submitting --------------------------------------------------------------------------------

    def _submit(self) -> None:
        after: Key | None = None
        items: list[tuple[str, str]] = []
        requests: dict[str, Any] = {}
        while self._options.limit is None or self.result.read < self._options.limit:
            rows = PAGE_ROWS if self._options.limit is None else min(PAGE_ROWS, self._options.limit - self.result.read)
            page = self._target.read(after, rows, overwrite=self._options.overwrite)
            if page.last is None:
                break
            after = page.last
            self.result.read += page.read
            self.result.fresh += page.fresh
            self.result.set_aside += page.set_aside
            self._gather(self._mine(page), items, requests)
            if len(requests) >= MAX_REQUESTS:
                self._send(items, requests)
                items, requests = [], {}
        if requests:
            self._send(items, requests)

    def _mine(self, page: Page) -> Page:
        """The rows that nobody else works on, and that are not on their way already."""
        _, granted, is_old = self._target.claim(self._run, page, (), CLAIM_S)
        mine = page.take(granted)
        self.result.pending += len(page.keys) - len(granted)
        if is_old and mine.keys:
            mine = self._target.reread(mine.keys, overwrite=self._options.overwrite)
        on_their_way = {key for job in self._backend.batches(self._info.id) for key, _ in job.items}
        left = [i for i, key in enumerate(mine.keys) if dump_key(key) not in on_their_way]
        self.result.pending += len(mine.keys) - len(left)
        return mine.take(left)

    def _gather(self, page: Page, items: list[tuple[str, str]], requests: dict[str, Any]) -> None:
        """Add the page's rows to what is submitted; those with a NULL input get their NULL output now."""
        empty = [i for i, value in enumerate(page.inputs) if self._model.skip_null and self._caller.has_null(value)]
        self._write_outputs(page, empty, [None] * len(empty))
        self.result.empty += len(empty)
        settled = {*empty, *self._from_cache(page)}
        for position, value in enumerate(page.inputs):
            if position in settled:
                continue
            digest = identity_digest(page.identities[position]).hex()
            arguments, named = self._caller.arguments(value)
            requests[digest] = (arguments[0] if arguments else None, {**named, **self._options.parameters})
            items.append((dump_key(page.keys[position]), digest))
            self.result.pending += 1

    def _from_cache(self, page: Page) -> list[int]:
        """Write the answers that were paid for before; the positions of their rows."""
        if self._settings.cache is None or self._options.overwrite or not page.keys:
            return []
        kept = self._settings.cache.get(page.identities)
        known = [i for i, output in enumerate(kept) if output is not None]
        self._write_outputs(page, known, [kept[i] for i in known])
        self.result.cached += len(known)
        return known

    def _send(self, items: Sequence[tuple[str, str]], requests: dict[str, Any]) -> None:
        """Put the batch on record, submit it, and note the provider's id."""
        token = uuid.uuid4().hex
        unsent = BatchJob(
            f"{UNSENT}{token}", self._info.id, self._info.model, self._info.version, self._info.parameters,
            time.time(), tuple(items),
        )  # fmt: skip
        self._backend.save_batch(unsent)
        batch = self._model.submit_batch(requests, token)
        self.result.calls += 1
        self._backend.save_batch(replace(unsent, id=batch))
        self._backend.delete_batch(unsent.id)
