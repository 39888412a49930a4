"""``mode="batch"``: rows go to the provider as one batch, and are collected by a later call, in any process.

A batch is on record before it is submitted, under a token that goes along, so that one
submitted just before a crash is found again. The answers are written as those of any
prediction: where the row's input is still the one that was asked for.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pinnacle.backends.protocol import Backend, Target
from pinnacle.base.batches import BatchAnswers
from pinnacle.base.encoding import dump_key, identity_digest, load_key
from pinnacle.base.errors import ProviderRefused
from pinnacle.base.rows import Page
from pinnacle.base.usage import BatchJob
from pinnacle.components.model import Model
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

log = logging.getLogger(__name__)

MAX_REQUESTS = 20_000
"""In one batch; OpenAI takes 50,000 and 200 MB."""

PAGE_ROWS = 1_000
CLAIM_S = 900.0
"""How long rows are held while they are submitted: an upload takes time. Those of a dead process are free at once."""

UNSENT = "pinnacle:"
"""Before the token of a batch that is on record and may not have been submitted."""


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

    def execute(self) -> PredictResult:
        """Collect, submit, and return at once; ``pending`` rows wait for the provider."""
        began, scope = time.perf_counter(), self._scope
        try:
            with self._pages.leased(), scope.thread, scope.database:
                for job in self._backend.ledger.batches(self._info.id):
                    self._collect(job)
                self._submit()
        finally:
            scope.account.bill()
            scope.result.spent(scope.account.meter.total)
            scope.result.changed += len(scope.take_later())
            scope.result.seconds = time.perf_counter() - began
        return scope.result

    # -- collecting --------------------------------------------------------------------------------

    def _collect(self, job: BatchJob) -> None:
        if (job.version, job.parameters) != (self._info.version, self._info.parameters):
            log.warning("batch %s was submitted for another version or other keywords; it is not collected", job.id)
            self._backend.ledger.delete_batch(job.id)
            return
        found = self._submitted(job)
        answers = None if found is None else self._model.fetch_batch(found.id)
        if found is None or answers is None:
            return
        for start in range(0, len(found.items), PAGE_ROWS):
            self._settle(answers, found.items[start : start + PAGE_ROWS])
        self._scope.thread.drain()
        self._scope.thread.raise_failure()
        if self._backend.ledger.delete_batch(found.id):  # of two that collect it, one books it
            self._scope.account.meter.count(answers.usage)
            self._scope.account.bill()
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
            self._backend.ledger.save_batch(submitted)
        self._backend.ledger.delete_batch(job.id)
        return submitted

    def _is_being_submitted(self, job: BatchJob) -> bool:
        """Whether another process holds the rows of a batch that is not there yet: it may be on its way."""
        page = self._target.reread([load_key(key) for key, _ in job.items[:PAGE_ROWS]])
        return bool(self._pages.claim(page).taken)

    def _settle(self, answers: BatchAnswers, items: Sequence[tuple[str, str]]) -> None:
        """The answers of rows whose input is still what was asked for; the others are asked for again."""
        asked = {load_key(key): digest for key, digest in items}
        held = Held(page=self._target.reread(list(asked)))
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
        on_their_way = {key for job in self._backend.ledger.batches(self._info.id) for key, _ in job.items}
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
        self._backend.ledger.save_batch(unsent)
        batch = self._model.submit_batch(submission.requests, token)
        self._scope.result.calls += 1
        self._backend.ledger.save_batch(replace(unsent, id=batch))
        self._backend.ledger.delete_batch(unsent.id)
