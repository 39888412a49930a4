"""``mode="batch"``: rows go to the provider as one batch, and are collected by a later call, in any process.

A batch is on record before it is submitted, under a token that goes along, so that one
submitted just before a crash is found again. The answers are written as those of any
prediction: where the row's input is still the one that was asked for. What it cost is booked
as it is taken off the record, once all of it is written: a crash before that collects it again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pinnacle.backends.protocol import Backend, Target
from pinnacle.base.batches import BatchAnswers
from pinnacle.base.encoding import dump_key, identity_digest, load_key
from pinnacle.base.errors import ModelError, NoAnswer, ProviderRefused
from pinnacle.base.rows import Page
from pinnacle.base.told import logger
from pinnacle.base.usage import BatchJob
from pinnacle.components.model import Model
from pinnacle.runtime.books import book_batch
from pinnacle.runtime.held import Held
from pinnacle.runtime.intake import Intake
from pinnacle.runtime.memory import OutputMemory
from pinnacle.runtime.options import PredictOptions, PredictSettings
from pinnacle.runtime.outcomes import Failed, Outcomes
from pinnacle.runtime.outputs import OutputWriter
from pinnacle.runtime.page_size import FixedSize
from pinnacle.runtime.pages import Pages
from pinnacle.runtime.result import PredictResult
from pinnacle.runtime.scope import Scope

log = logger(__name__)

MAX_REQUESTS = 20_000
"""In one batch; OpenAI takes 50,000 and 200 MB."""

PAGE_ROWS = 1_000
CLAIM_S = 900.0
"""How long rows are held while they are submitted: an upload takes time. Those of a dead process are free at once."""

UNSENT = "pinnacle:"
"""Before the token of a batch that is on record and may not have been submitted."""

LOST = "the results of the provider's batch hold no answer to it that can be read"


@dataclass
class Submission:
    """What is gathered for one batch: of each row its key and its input's digest, and the request for each digest."""

    items: list[tuple[str, str]] = field(default_factory=list)
    requests: dict[str, Any] = field(default_factory=dict)


class BatchPrediction:
    """One call in batch mode: collects what is done, and submits what is not yet on its way."""

    def __init__(
        self, backend: Backend, model: Model, target: Target, options: PredictOptions, settings: PredictSettings
    ) -> None:
        self._backend, self._model, self._target, self._info = backend, model, target, target.info
        self._scope = scope = Scope.of(model, target, replace(options, batch_size=PAGE_ROWS), settings)
        self._pages = Pages(scope, FixedSize(PAGE_ROWS), CLAIM_S)
        self._outputs = OutputWriter(scope)
        # What was collected is not remembered: overwrite= asks for it anew.
        self._intake = Intake(scope, self._outputs, OutputMemory())
        self._wait = scope.database.run

    def execute(self) -> PredictResult:
        """Collect, submit, and return at once; ``pending`` rows wait for the provider."""
        began, scope = time.perf_counter(), self._scope
        try:
            with self._pages.leased(), scope.thread, scope.database:
                for job in self._on_record():
                    self._collect(job)
                written, failed = scope.result.written, scope.result.failed
                self._submit()
                # What was collected just now is read again there, and is no work of an earlier call.
                scope.result.fresh = max(0, scope.result.fresh - written)
                scope.result.set_aside = max(0, scope.result.set_aside - failed)
        finally:
            scope.account.bill()
            scope.result.spent(scope.account.meter.total)
            scope.result.changed += len(scope.take_later())
            scope.result.seconds = time.perf_counter() - began
        return scope.result

    def _batches(self) -> list[BatchJob]:
        return self._wait(partial(self._backend.ledger.batches, self._info.id))

    def _is_current(self, job: BatchJob) -> bool:
        """Whether a batch was submitted for this version of the model and these keywords."""
        return (job.version, job.parameters) == (self._info.version, self._info.parameters)

    # -- collecting --------------------------------------------------------------------------------

    def _on_record(self) -> Sequence[BatchJob]:
        """The batches that were submitted, each once: those whose submission a crash broke off may stand there twice,
        and are settled first, so that none comes up again when it was booked."""
        jobs = sorted(self._batches(), key=lambda job: not job.id.startswith(UNSENT))
        submitted = (self._submitted(job) for job in jobs)
        return list({job.id: job for job in submitted if job is not None}.values())

    def _collect(self, job: BatchJob) -> None:
        answers = self._model.fetch_batch(job.id)
        if answers is None:
            return
        if not self._is_current(job):
            log.warning("batch %s was for another version or other keywords: its answers are not used", job.id)
            self._book(job, answers)
            return
        raised = self._settle_all(answers, job.items)
        self._scope.thread.drain()
        self._scope.thread.raise_failure()
        self._book(job, answers)
        if answers.failure is not None:
            raise ProviderRefused(f"the provider took nothing of batch {job.id}: {answers.failure}")
        if raised is not None:
            raise raised

    def _settle_all(self, answers: BatchAnswers, items: Sequence[tuple[str, str]]) -> ModelError | None:
        """Have all of it written; what the first row failed with, where that is to be raised."""
        raised: ModelError | None = None
        for start in range(0, len(items), PAGE_ROWS):
            try:
                self._settle(answers, items[start : start + PAGE_ROWS])
            except ModelError as error:
                raised = raised or error
        return raised

    def _book(self, job: BatchJob, answers: BatchAnswers) -> None:
        """Take the batch off the record and book what it cost, of all that collect it once."""
        place, meter = f"{self._info.table}.{self._info.name}", self._scope.account.meter
        if self._wait(partial(book_batch, self._backend, self._model, place, job, answers.usage)):
            meter.count(answers.usage)
            meter.take()  # it is booked

    def _submitted(self, job: BatchJob) -> BatchJob | None:
        """The job under the provider's own id; None where it was never submitted, and is forgotten."""
        if not job.id.startswith(UNSENT):
            return job
        found = self._model.find_batch(job.id.removeprefix(UNSENT))
        if found is None and self._is_being_submitted(job):
            return None
        submitted = None if found is None else replace(job, id=found)
        if submitted is not None:
            self._wait(partial(self._backend.ledger.save_batch, submitted))
        self._wait(partial(self._backend.ledger.delete_batch, job.id))
        return submitted

    def _is_being_submitted(self, job: BatchJob) -> bool:
        """Whether another process holds the rows of a batch that is not there yet: it may be on its way."""
        page = self._wait(partial(self._target.reread, [load_key(key) for key, _ in job.items[:PAGE_ROWS]]))
        return bool(self._pages.claim(page).taken)

    def _settle(self, answers: BatchAnswers, items: Sequence[tuple[str, str]]) -> None:
        """The answers of rows whose input is still what was asked for; the others are asked for again."""
        asked = {load_key(key): digest for key, digest in items}
        held = Held(page=self._wait(partial(self._target.reread, list(asked))))
        outcomes = Outcomes()
        self._outputs.set_aside_unread(held.page)
        for position, (key, identity) in enumerate(zip(held.page.keys, held.page.identities, strict=True)):
            digest = asked[key]
            if digest != identity_digest(identity).hex():
                self._scope.result.changed += 1
            elif digest in answers.outputs:
                outcomes.positions.append(position)
                outcomes.outputs.append(answers.outputs[digest])
            elif digest in answers.errors:
                outcomes.failed.append(Failed(position, answers.errors[digest], 1))
            elif answers.unanswered is not None and digest not in answers.unanswered:
                outcomes.failed.append(Failed(position, NoAnswer(LOST), 1))
        self._outputs.settle(held, outcomes)

    # -- submitting --------------------------------------------------------------------------------

    def _submit(self) -> None:
        submission = Submission()
        for page in self._pages.read():
            self._gather(self._mine(page), submission)
            if len(submission.requests) >= MAX_REQUESTS:
                self._send(submission)
                submission = Submission()
        if submission.requests:
            self._send(submission)

    def _mine(self, page: Page) -> Held:
        """The rows that nobody else works on, and that are not on their way already."""
        held = self._pages.claim(page)
        on_their_way = {key for job in self._batches() if self._is_current(job) for key, _ in job.items}
        left = [i for i, key in enumerate(held.page.keys) if dump_key(key) not in on_their_way]
        self._scope.result.pending += len(held.taken) + len(held.page.keys) - len(left)
        held.page = held.page.take(left)
        return held

    def _gather(self, held: Held, submission: Submission) -> None:
        """Add what needs the model to what is submitted."""
        for asked in self._intake.sift(held):
            digest = identity_digest(held.page.identities[asked]).hex()
            arguments, named = self._scope.caller.arguments(held.page.inputs[asked])
            submission.requests[digest] = (
                arguments[0] if arguments else None, {**named, **self._scope.options.parameters}
            )  # fmt: skip
            rows = held.alike(asked)
            submission.items += [(dump_key(held.page.keys[position]), digest) for position in rows]
            self._scope.result.pending += len(rows)

    def _send(self, submission: Submission) -> None:
        """Put the batch on record, submit it, and note the provider's id."""
        token = uuid.uuid4().hex
        unsent = BatchJob(
            id=f"{UNSENT}{token}",
            output=self._info.id,
            model=self._info.model,
            version=self._info.version,
            parameters=self._info.parameters,
            created_at=time.time(),
            items=tuple(submission.items),
        )
        self._wait(partial(self._backend.ledger.save_batch, unsent))
        batch = self._model.submit_batch(submission.requests, token)
        self._scope.result.calls += 1
        self._wait(partial(self._backend.ledger.save_batch, replace(unsent, id=batch)))
        self._wait(partial(self._backend.ledger.delete_batch, unsent.id))
