"""What a worker does with the rows of a claim: read, computed and written as those of any prediction."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from pinnacle.backends.protocol import Target
from pinnacle.base.listeners import Claim
from pinnacle.base.rows import Key, OutputBatch, Page
from pinnacle.components.model import CallStyle, Model
from pinnacle.runtime.computation import Computation
from pinnacle.runtime.held import Held
from pinnacle.runtime.intake import Intake
from pinnacle.runtime.options import PredictOptions, PredictSettings
from pinnacle.runtime.outputs import OutputWriter
from pinnacle.runtime.page_size import PageSize
from pinnacle.runtime.patience import Patience
from pinnacle.runtime.scope import Scope
from pinnacle.runtime.writer import brisk

PORTION_ROWS = 2_500
"""How many rows of a claim are read at once; a portion of a batch model is of whole batches."""


@dataclass
class WorkReport:
    """What became of a claim: ``again`` holds the keys whose rows wait still.

    ``is_finished``: all was written, and the claim finished with it. ``outage``: why some of these met no answer.
    ``computed``: inputs that did. ``written``, ``failed``: rows.
    """

    is_finished: bool = False
    again: set[Key] = field(default_factory=set)
    outage: BaseException | None = None
    computed: int = 0
    written: int = 0
    failed: int = 0


class ListenerPrediction:
    """A prediction over rows that come with their lease, claim after claim.

    What cannot be done, because a row is locked or its provider does not answer, is handed
    back instead of waited for: other rows wait behind it. Only outputs that were computed
    for such a row and not written, because a row was locked, are remembered for when
    it comes back: it is not paid for twice.
    """

    def __init__(
        self, model: Model, target: Target, *, unmatched: Literal["keep", "clear"],
        parameters: Mapping[str, Any], settings: PredictSettings,
    ) -> None:  # fmt: skip
        self.stop = threading.Event()
        """Once it is set, work stops between two portions (CancelledError); what is computed is written."""
        self._scope = scope = Scope.of(model, target, PredictOptions(parameters=parameters), settings, waits=False)
        self._target, self._caller, self._unmatched = target, scope.caller, unmatched
        self._size = PageSize(model, scope.batch_size)
        outputs = OutputWriter(scope)
        self._computation = Computation(
            scope, outputs, Intake(scope, outputs), self._size,
            Patience(model.identifier, settings.outage_patience_s), self.stop, judges=True,
        )  # fmt: skip
        a_call = scope.batch_size if model.call_style is CallStyle.BATCH else 1
        self._portion_rows = math.ceil(PORTION_ROWS / a_call) * a_call

    @property
    def rows(self) -> int:
        """How many rows to claim next."""
        return self._size.rows

    def work(
        self, claim: Claim, page: Page | None, settle: Callable[[Claim, OutputBatch], bool], *,
        meanwhile: Callable[[], None] | None = None,
    ) -> WorkReport:  # fmt: skip
        """Bring claimed rows up to date; commits before it returns.

        ``page``: the rows as they were read already, if they were. ``settle`` is offered a batch that is all there
        is to write. ``meanwhile`` runs once all is computed, while the last outputs are written.
        """
        keys, lease = claim.keys, claim.lease
        scope, again, pages = self._scope, set[Key](), list[Held]()
        is_finished = False

        def settle_whole(batch: OutputBatch) -> bool:
            nonlocal is_finished
            is_all = page is not None and not again and len(batch.keys) == len(page.keys) and not page.unreadable
            is_finished = is_all and settle(claim, batch)
            return is_finished

        scope.later.clear()
        self._caller.outage = self._caller.halted = None
        before = replace(scope.result)
        writing = scope.thread if page is None else scope.thread.at_once()
        with brisk, writing, scope.account.open(scope.result), self._computation:
            for start in range(0, len(keys), self._portion_rows):
                portion = keys[start : start + self._portion_rows]
                if self._outage() is not None:
                    again.update(portion)
                elif (found := self._read(portion, page, again)).has_work:
                    pages.append(Held(page=found, lease=lease, is_retried=True, write_whole=settle_whole))
                    self._computation.compute(pages[-1])
            self._computation.finish()
            if meanwhile is not None:
                meanwhile()
        unwritten = set(scope.take_later())
        again |= unwritten
        for held in pages:
            again.update(key for i, key in enumerate(held.page.keys) if i not in held.settled)
        self._remember([held.page for held in pages], unwritten)
        now = scope.result
        return WorkReport(
            is_finished, again, self._outage(), now.computed - before.computed, now.written - before.written,
            now.failed - before.failed,
        )  # fmt: skip

    def _outage(self) -> BaseException | None:
        return self._caller.outage or self._caller.halted

    def _read(self, keys: Sequence[Key], found: Page | None, again: set[Key]) -> Page:
        """The rows that need work now, as ``found`` or read now; those that are gone or not selected are settled,
        else added to ``again``."""
        began = time.perf_counter()
        page = found or self._scope.database.run(partial(self._target.reread, keys))
        if page.read < len(keys):
            again.update(self._settle_absent(keys))
        if not page.has_work:
            self._size.after_work(max(1, len(keys)), time.perf_counter() - began)
        return page

    def _settle_absent(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Rows that are gone leave no copies behind; rows no longer selected are kept or cleared. Those that
        could not be."""
        gone, unmatched = self._target.absent(keys)
        if gone:
            self._target.forget(gone)
        return self._target.blank(unmatched) if unmatched and self._unmatched == "clear" else ()

    def _remember(self, pages: Sequence[Page], unwritten: set[Key]) -> None:
        """Forget all outputs but those of rows that could not be written."""
        inputs = [
            identity
            for page in pages
            for identity, key in zip(page.identities, page.keys, strict=True)
            if key in unwritten
        ] if unwritten else []  # fmt: skip
        self._scope.memory.keep_only(inputs)
