"""The bulk way: pages of rows -> model -> outputs written beside them.

The caller's thread reads a page ahead and runs the model, or keeps it busy with many calls
at once; one writer thread commits outputs batch by batch. Nothing is held during a model
call but a lease, which only other predictions look at. At most two batches wait to be
written, and two to be taken, so what a crash can lose is the calls of
``batch_size * (concurrency + 4)`` rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pinnacle.backends.protocol import Target
from pinnacle.base.errors import BudgetReached
from pinnacle.base.loop import stop_requested
from pinnacle.base.rows import Key
from pinnacle.components.model import Model
from pinnacle.runtime.computation import Computation
from pinnacle.runtime.dry_run import count_only
from pinnacle.runtime.intake import Intake
from pinnacle.runtime.options import PredictOptions, PredictSettings
from pinnacle.runtime.outputs import OutputWriter
from pinnacle.runtime.page_size import PageSize
from pinnacle.runtime.pages import Pages
from pinnacle.runtime.patience import Patience
from pinnacle.runtime.process_settings import brisk
from pinnacle.runtime.result import PredictResult
from pinnacle.runtime.retry_rounds import RetryRounds
from pinnacle.runtime.scope import Scope


class Prediction:
    """One predict over the rows of a target: pages, what they need of the model, the writing of what came, and
    rounds over what is left."""

    def __init__(self, model: Model, target: Target, options: PredictOptions, settings: PredictSettings) -> None:
        self._scope = scope = Scope.of(model, target, options, settings)
        self._patience = Patience(model.identifier, settings.outage_patience_s)
        size = PageSize(model, scope.batch_size)
        outputs = OutputWriter(scope)
        self._pages = Pages(scope, size, settings.lease_ttl_s)
        self._computation = Computation(
            scope, outputs, Intake(scope, outputs), size, self._patience, stop_requested.get(), judges=False
        )
        self._retries = RetryRounds(scope, self._pages, self._computation, size, self._goes_on)

    def execute(self, keys: Sequence[Key] | None = None) -> PredictResult:
        """Go on to the end, over the source or only its rows ``keys``.

        On any error or Ctrl-C, what was computed is written first.
        """
        began, scope = time.perf_counter(), self._scope
        try:
            if scope.options.dry_run:
                count_only(self._pages.read(), scope.caller, scope.result, scope.progress)
            else:
                with brisk, self._pages.leased(), scope.thread, scope.account.open(scope.result), self._computation:
                    self._predict(keys)
        finally:
            scope.result.calls = scope.caller.calls
            scope.result.seconds = time.perf_counter() - began
        return scope.result

    def _predict(self, keys: Sequence[Key] | None) -> None:
        scope = self._scope
        try:
            with scope.database:
                if keys is None:
                    self._first_round()
                else:
                    scope.result.read = len(keys)
                    scope.later.extend(keys)
                if not self._is_halted():
                    self._retries.run()
                if self._is_halted():
                    scope.thread.drain()
                    scope.result.pending = scope.result.read - scope.result.settled
        finally:
            scope.thread.drain()

    def _first_round(self) -> None:
        for held in self._pages.claimed():
            self._scope.later.extend(held.taken)
            self._computation.compute(held)
            if not self._goes_on():
                break

    def _goes_on(self) -> bool:
        """Rest after an outage; whether more is to be asked. ProviderUnavailable when it takes longer than is waited
        for."""
        if self._scope.caller.outage is not None:
            self._computation.rest(self._patience.rest_s(self._scope.caller.outage, time.monotonic()))
        return not self._is_halted()

    def _is_halted(self) -> bool:
        """Whether nothing more is to be asked: the budget is reached; raises where the account is refused."""
        halted = self._scope.caller.halted
        if halted is None:
            return False
        self._computation.finish()
        if not isinstance(halted, BudgetReached):
            raise halted
        self._scope.result.budget_reached = True
        return True
