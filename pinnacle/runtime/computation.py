"""Held pages through their model, and its outcomes to the writer as they come."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from pinnacle.base.errors import ModelError, ProviderUnavailable
from pinnacle.runtime.flight import FLUSH_S
from pinnacle.runtime.flow import Flow, Portion, outcomes_of
from pinnacle.runtime.held import Held
from pinnacle.runtime.intake import Intake
from pinnacle.runtime.outcomes import Failed, Outcomes, pick
from pinnacle.runtime.outputs import OutputWriter
from pinnacle.runtime.page_size import PageSize
from pinnacle.runtime.patience import Patience, may_be_its_own
from pinnacle.runtime.scope import Scope

PROBE_PAUSES_S = (0.0, 0.7)
MAX_TRIED = 10_000
ENDS = (KeyboardInterrupt, SystemExit, CancelledError, ModelError)
"""After these what has come back is written: it was asked for, and may have been paid for."""


class Computation:
    """Calls the model for what pages need. As a context, it cancels what is in flight when something is raised.

    Inputs that met no answer come back later. ``judges``: where nothing else tells whether the provider answers
    others, an input that was answered before is asked again, so that rows which are themselves to blame are found.
    ``on_ready`` is called when something has come back that `finish` settles.
    """

    def __init__(
        self, scope: Scope, outputs: OutputWriter, intake: Intake, size: PageSize, patience: Patience,
        stop: threading.Event | None, *, judges: bool, on_ready: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.judges = judges
        self._scope, self._caller, self._flow = scope, scope.caller, Flow(scope.caller, on_ready)
        self._outputs, self._intake, self._size, self._patience, self._stop = outputs, intake, size, patience, stop
        self._pages: list[Held] = []
        self._to_settle: deque[tuple[Held, Outcomes]] = deque()
        self._answered: list[Any] | None = None

    def __enter__(self) -> Computation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            return
        if not issubclass(kind, ENDS):
            self.abandon()
            return
        with suppress(ModelError):  # the first one matters
            self.end()

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way: all outcomes are queued to be written, and what met none is left for later."""
        return self._flow.is_over

    def compute(self, held: Held) -> None:
        """Put a page on its way, and work until the next may come; of a model that is called once at a time, until all
        of it is done."""
        began, waits = time.perf_counter(), self._caller.is_serial
        self.check()
        asked = self._intake.sift(held)
        if asked:
            self._pages = [*(page for page in self._pages if page.is_open), held]
            if not self._caller.is_serial:
                self._intake.note(held)
            self._flow.add(held, *self._in_order(held, asked))
            while not self._flow.has_room:
                self._take(or_room=True)
                waits = True
        if waits:
            self._size.after_work(max(1, len(held.page.keys)), time.perf_counter() - began)
        else:
            self._size.after_room()

    def _in_order(self, held: Held, asked: Sequence[int]) -> tuple[Sequence[int], Sequence[Any]]:
        """Positions and their inputs, behind all others those that met no answer: none of these is to be the only one
        that is asked, again and again, whether the provider answers."""
        tried = self._scope.tried
        if not tried:
            return asked, held.inputs(asked)
        asked = sorted(asked, key=lambda position: held.page.keys[position] in tried)
        return asked, pick(held.page.inputs, asked)

    def work(self) -> None:
        """Settle what comes back within a moment."""
        self._take(or_room=False)

    def finish(self, lag_s: float = math.inf) -> None:
        """Work until nothing is under way, or nothing has come back for so long."""
        until = time.monotonic() + lag_s
        while not self.is_over:
            left_s = until - time.monotonic()
            if self._take(or_room=False, wait_s=max(0.0, min(FLUSH_S, left_s))):
                until = time.monotonic() + lag_s
            elif left_s <= 0:
                return

    def end(self) -> None:
        """Cancel what is under way, and settle what came back until then: the other rows come back later."""
        try:
            self._settle(self._flow.close())
        finally:
            self._leave_the_rest()

    def abandon(self) -> None:
        """The same where nothing can be written any more."""
        self._flow.close()
        self._leave_the_rest()

    def rest(self, seconds: float) -> None:
        """Let time pass, and settle what comes back meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.is_over:
                self.check()
                time.sleep(min(0.1, left))
            else:
                self.work()

    def check(self) -> None:
        """Raise what a write failed with, or CancelledError when the caller no longer waits."""
        self._scope.thread.raise_failure()
        if self._stop is not None and self._stop.is_set():
            raise CancelledError("the prediction was cancelled; what was computed is written")

    def _take(self, *, or_room: bool, wait_s: float = FLUSH_S) -> bool:
        """Settle what has come back; whether anything has."""
        portion = self._flow.take(or_room=or_room, wait_s=wait_s)
        self._settle(portion)
        self.check()
        if self._flow.is_over:
            self._leave_the_rest()
        return bool(portion)

    def _leave_the_rest(self) -> None:
        for held in self._pages:
            for position in held.unsettled():
                self._come_back_to(held, position)
        self._pages.clear()
        self._to_settle.clear()
        self._intake.forget_all()

    def _settle(self, portion: Portion) -> None:
        """Have all of it written, after what an interrupt broke off; then raise what the first row failed with, where
        that is to be raised."""
        raised: ModelError | None = None
        self._to_settle.extend(portion)
        while self._to_settle:
            held, outcomes = self._to_settle[0]
            if outcomes.positions:
                self._answered = [held.page.inputs[outcomes.positions[0]]]
            if len(outcomes):
                self._patience.answered()
            self._intake.forget(held, [*outcomes.positions, *(item.position for item in outcomes.failed)])
            try:
                self._outputs.settle(held, outcomes)
            except ModelError as error:
                raised = raised or error
            self._to_settle.popleft()
        if raised is not None:
            raise raised
        self._leave([(held, item) for held, outcomes in portion for item in outcomes.unanswered])

    # -- inputs that met no answer -----------------------------------------------------------------------

    def _leave(self, unanswered: Sequence[tuple[Held, Failed]]) -> None:
        """Rows that met no answer come back later; those that met none often enough while others did are set aside."""
        are_in_doubt = any(may_be_its_own(item.error) and not item.others_served for _, item in unanswered)
        answers = are_in_doubt and self.judges and self._provider_answers()
        if len(self._scope.tried) > MAX_TRIED:
            self._scope.tried.clear()
        for held, item in unanswered:
            if not isinstance(item.error, ProviderUnavailable) or item.error.was_sent:
                self._scope.tried.add(held.page.keys[item.position])
            is_alone = item.others_served or answers
            rounds = self._patience.rounds_alone(held.page.keys[item.position], item.error) if is_alone else 0
            if not rounds:
                self._come_back_to(held, item.position)
                continue
            self._intake.forget(held, [item.position])
            for page, position in held.rows_alike(item.position):
                self._outputs.set_aside(page, [replace(item, position=position, attempts=rounds)])

    def _come_back_to(self, held: Held, position: int) -> None:
        self._intake.forget(held, [position])
        for page, alike in held.rows_alike(position):
            page.left.add(alike)
            self._scope.later.append(page.page.keys[alike])
            self._scope.unanswered.add(page.page.keys[alike])

    def _provider_answers(self) -> bool:
        """Whether an input that was answered before is answered now; asked for a while: it may have to wait."""
        if self._answered is None:
            return False
        for pause_s in PROBE_PAUSES_S:
            time.sleep(pause_s)
            self.check()
            with closing(outcomes_of(self._caller, self._answered)) as portions:
                if any(outcomes.positions for outcomes in portions):
                    return True
        return False
