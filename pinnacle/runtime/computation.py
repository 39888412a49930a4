"""A held page through its model, and its outcomes to the writer as they come."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import replace
from typing import Any

from pinnacle.runtime.held import Held
from pinnacle.runtime.intake import Intake
from pinnacle.runtime.outputs import OutputWriter
from pinnacle.runtime.page_size import PageSize
from pinnacle.runtime.patience import Patience
from pinnacle.runtime.scope import Scope

PROBE_PAUSES_S = (0.0, 0.7)


class Computation:
    """Calls the model for what a page needs.

    Inputs that met no answer come back later. ``judges``: where nothing else tells whether the provider answers
    others, an input that was answered before is asked again, so that rows which are themselves to blame are found.
    """

    def __init__(
        self, scope: Scope, outputs: OutputWriter, intake: Intake, size: PageSize, patience: Patience,
        stop: threading.Event | None, *, judges: bool,
    ) -> None:  # fmt: skip
        self.judges = judges
        self._scope, self._caller = scope, scope.caller
        self._outputs, self._intake, self._size, self._patience, self._stop = outputs, intake, size, patience, stop
        self._answered: list[Any] | None = None

    def compute(self, held: Held) -> None:
        """Work off a page; when it returns, the outcomes of all inputs that met one are queued to be written."""
        began = time.perf_counter()
        self.check()
        asked = self._intake.sift(held)
        if asked:
            self._call(held, asked)
            if left := [position for position in asked if position not in held.settled]:
                self._leave(held, left)
        held.is_open = False
        self._size.after_work(max(1, len(held.page.keys)), time.perf_counter() - began)

    def check(self) -> None:
        """Raise what a write failed with, or CancelledError when the caller no longer waits."""
        self._scope.thread.raise_failure()
        if self._stop is not None and self._stop.is_set():
            raise CancelledError("the prediction was cancelled; what was computed is written")

    def _call(self, held: Held, asked: list[int]) -> None:
        with closing(self._caller.run(held.inputs(asked))) as portions:
            for portion in portions:
                outcomes = portion.at(asked)
                held.met.update((item.position, item) for item in outcomes.unanswered)
                if outcomes.positions:
                    self._answered = [held.page.inputs[outcomes.positions[0]]]
                self._outputs.settle(held, outcomes)
                self.check()

    # -- inputs that met no answer -----------------------------------------------------------------------

    def _leave(self, held: Held, left: list[int]) -> None:
        """Rows that met no answer come back later; those that met none often enough while others did are set aside."""
        met = [held.met[position] for position in left if position in held.met]
        is_known = all(item.others_served for item in met)
        answers = not is_known and self.judges and self._provider_answers()
        to_blame: set[int] = set()
        for item in met:
            if item.others_served or answers:
                rounds = self._patience.rounds_alone(held.page.keys[item.position], item.error)
                if rounds:
                    to_blame.add(item.position)
                    same = held.alike(item.position)
                    self._outputs.set_aside(held, [replace(item, position=i, attempts=rounds) for i in same])
        for position in left:
            if position not in to_blame:
                self._scope.later.extend(held.page.keys[i] for i in held.alike(position))

    def _provider_answers(self) -> bool:
        """Whether an input that was answered before is answered now; asked for a while: it may have to wait."""
        if self._answered is None:
            return False
        for pause_s in PROBE_PAUSES_S:
            time.sleep(pause_s)
            self.check()
            if any(outcomes.positions for outcomes in self._caller.run(self._answered)):
                return True
        return False
