"""What a worker does with the rows of a claim: read, computed and written as those of any prediction."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from pinnacle.backends.protocol import Target
from pinnacle.base.listeners import NOTHING, Claim
from pinnacle.base.rows import Key, OutputBatch, Page
from pinnacle.components.model import CallStyle, Model
from pinnacle.runtime.computation import Computation
from pinnacle.runtime.held import Held
from pinnacle.runtime.intake import Intake
from pinnacle.runtime.options import PredictOptions, PredictSettings
from pinnacle.runtime.outputs import OutputWriter
from pinnacle.runtime.page_size import PageSize
from pinnacle.runtime.patience import Patience
from pinnacle.runtime.process_settings import brisk
from pinnacle.runtime.recurrence import Recurrence
from pinnacle.runtime.result import PredictResult
from pinnacle.runtime.scope import Scope

PORTION_ROWS = 2_500
"""How many rows of a claim are read at once; a portion of a batch model is of whole batches."""


LAG_S = 0.2
"""A claim is left under way when nothing has come back for so long: others are worked on meanwhile."""


@dataclass(frozen=True)
class Share:
    """What became of rows of a claim, by their places in it: ``done``; ``again``: they wait still; ``kept``: they are
    under way. ``is_finished``: all was written, and the claim finished with it."""

    claim: Claim
    done: Sequence[int] = ()
    again: Sequence[int] = ()
    kept: Sequence[int] = ()
    is_finished: bool = False


@dataclass(frozen=True)
class WorkReport:
    """What became of the claims in hand. ``outage``: why some rows met no answer. ``computed``: inputs that did.
    ``written``, ``failed``: rows."""

    shares: Sequence[Share]
    outage: BaseException | None
    computed: int
    written: int
    failed: int

    @property
    def done(self) -> int:
        return sum(len(share.done) for share in self.shares)

    @property
    def again(self) -> int:
        return sum(len(share.again) for share in self.shares)


@dataclass
class _InHand:
    """A claim of which rows are under way."""

    claim: Claim
    pages: list[Held] = field(default_factory=list)
    again: set[Key] = field(default_factory=set)
    is_finished: bool = False

    def share(self, unwritten: set[Key]) -> Share:
        """What has become of its rows; those that are under way stay in hand."""
        under_way = {held.page.keys[i] for held in self.pages for i in held.under_way()}
        done: list[int] = []
        again: list[int] = []
        kept: list[int] = []
        for position, key in enumerate(self.claim.keys):
            waits = key in self.again or key in unwritten
            (kept if key in under_way else again if waits else done).append(position)
        share = Share(self.claim, done, again, kept, self.is_finished)
        self.claim, self.again = self.claim.part(kept), set()
        return share


class ListenerPrediction:
    """A prediction over rows that come with their lease, claim after claim.

    What cannot be done, because a row is locked or its provider does not answer, is handed
    back instead of waited for: other rows wait behind it. A row whose answer takes long is left
    under way, and told of by a later report. Only outputs that were computed
    for such a row and not written, because a row was locked, are remembered for when
    it comes back: it is not paid for twice.
    """

    def __init__(
        self, model: Model, target: Target, *, unmatched: Literal["keep", "clear"],
        parameters: Mapping[str, Any], settings: PredictSettings,
    ) -> None:  # fmt: skip
        self.on_ready: Callable[[], None] = lambda: None
        """Called when there is something for `work` to do, also without a claim."""
        self.stop = threading.Event()
        """Once it is set, work stops between two portions (CancelledError); what is computed is written."""
        self._scope = scope = Scope.of(model, target, PredictOptions(parameters=parameters), settings, waits=False)
        self._target, self._caller, self._unmatched = target, scope.caller, unmatched
        self._size = PageSize(model, scope.batch_size)
        outputs = OutputWriter(scope)
        self._computation = Computation(
            scope, outputs, Intake(scope, outputs), self._size,
            Patience(model.identifier, settings.outage_patience_s), self.stop, judges=True,
            on_ready=lambda: self.on_ready(),
        )  # fmt: skip
        self._in_hand: list[_InHand] = []
        self._recurrence = Recurrence()
        a_call = scope.batch_size if model.call_style is CallStyle.BATCH else 1
        self._portion_rows = math.ceil(PORTION_ROWS / a_call) * a_call

    @property
    def rows(self) -> int:
        """How many rows to claim next."""
        return self._size.rows

    @property
    def is_working(self) -> bool:
        """Whether rows of claims are under way."""
        return bool(self._in_hand)

    def work(
        self, claim: Claim, page: Page | None, settle: Callable[[Claim, OutputBatch], bool], *,
        meanwhile: Callable[[], None] | None = None,
    ) -> WorkReport:  # fmt: skip
        """Bring claimed rows up to date, and settle what has come back of earlier claims; commits before it returns.

        ``page``: the rows as they were read already, if they were. ``settle`` is offered a batch that is all there
        is to write. ``meanwhile``, where more rows wait, runs once all is computed or under way, while outputs are
        written.
        """
        scope, mine = self._scope, _InHand(claim)

        def settle_whole(batch: OutputBatch) -> bool:
            is_all = page is not None and not mine.again and len(batch.keys) == len(page.keys) and not page.unreadable
            mine.is_finished = is_all and settle(claim, batch)
            return mine.is_finished

        scope.later.clear()
        self._caller.outage = self._caller.halted = None
        before = replace(scope.result)
        writing = scope.thread if page is None else scope.thread.at_once()
        if claim.keys:
            self._in_hand.append(mine)
        with brisk, writing, scope.account.open(scope.result), self._computation:
            for start in range(0, len(claim.keys), self._portion_rows):
                portion = claim.keys[start : start + self._portion_rows]
                if self._outage() is not None:
                    mine.again.update(portion)
                    continue
                found = self._recurrence.sift(self._read(portion, page, mine.again), mine.again)
                if found.has_work:
                    mine.pages.append(Held(page=found, lease=claim.lease, is_retried=True, write_whole=settle_whole))
                    self._computation.compute(mine.pages[-1])
            waits_for_more = claim.keys and meanwhile is None
            self._computation.finish(LAG_S if waits_for_more else 0.0)
            if self._caller.is_halted():
                self._computation.end()
            if meanwhile is not None:
                meanwhile()
        return self._report(before)

    def _report(self, before: PredictResult) -> WorkReport:
        unwritten = set(self._scope.take_later())
        self._remember([held.page for work in self._in_hand for held in work.pages], unwritten)
        shares = [work.share(unwritten) for work in self._in_hand]
        for share in shares:
            self._recurrence.note_written(share.claim.keys[i] for i in share.done)
        self._in_hand = [work for work in self._in_hand if work.claim.keys]
        now = self._scope.result
        return WorkReport(
            shares, self._outage(), now.computed - before.computed, now.written - before.written,
            now.failed - before.failed,
        )  # fmt: skip

    def give_up(self) -> list[Share]:
        """Cancel what is under way; the claims, of which no row is known to be done."""
        self._computation.abandon()
        self._scope.later.clear()
        in_hand, self._in_hand = self._in_hand, []
        return [Share(work.claim) for work in in_hand]

    def end(self) -> list[Share]:
        """`give_up`, but what has come back is written first."""
        if self.is_working:
            with suppress(CancelledError):
                self.work(NOTHING, None, lambda claim, batch: False)
        return self.give_up()

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
