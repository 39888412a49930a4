"""Counts what model calls cost, and says no before a budget is passed.

A prediction puts its `Meter` into a context variable; whatever makes paid calls below it, in
coroutines or threads, counts there.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass

from pinnacle.base import forks
from pinnacle.base.errors import BudgetReached

ROUNDING = 1e-9
"""Of a budget: sums of prices are not exact, and a budget that is just enough is enough."""


MOST_TOKENS = 2**53
"""More in one answer cannot be, and is no count."""


@dataclass(frozen=True)
class Usage:
    """What calls cost: requests sent, of these failed ones and repeats; tokens; US dollars.

    ``cached`` counts outputs that were paid for before, and cost nothing now.
    """

    calls: int = 0
    failed: int = 0
    retried: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached: int = 0
    cost: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls, self.failed + other.failed, self.retried + other.retried,
            self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens,
            self.cached + other.cached, self.cost + other.cost,
        )  # fmt: skip

    def __bool__(self) -> bool:
        return self != _NOTHING


_NOTHING = Usage()


class Meter:
    """What one prediction has spent; ``budget`` is its limit in US dollars. Safe to use from several threads."""

    def __init__(self, budget: float | None = None) -> None:
        self.budget = budget
        self.total = Usage()
        self._untaken, self._reserved, self._most = Usage(), 0.0, 0.0
        self._refusal, self._refusals = "", 0
        self._lock = forks.lock()

    def reserve(self, expected: float) -> float | None:
        """Set aside what a call is expected to cost, and return it; BudgetReached where that is not left.

        None where it is only not left until calls in flight have turned out cheaper: ask again when
        one is settled. A call is expected to cost no less than the dearest one so far.
        """
        with self._lock:
            amount = max(expected, self._most)
            if self.budget is not None:
                left = self.budget * (1 + ROUNDING) - self.total.cost
                if amount > left:
                    raise BudgetReached(
                        f"the budget of ${self.budget:g} leaves ${max(0.0, left):.6f}, and the next call may cost "
                        f"${amount:.6f}; what was computed is kept: go on with a larger budget="
                    )
                if self._reserved + amount > left:
                    return None
            self._reserved += amount
            return amount

    def settle(self, reserved: float, usage: Usage) -> None:
        """Count what a call did cost, and give back what was set aside for it."""
        with self._lock:
            self._reserved -= reserved
            self._most = max(self._most, usage.cost)
            self.total += usage
            self._untaken += usage

    def count(self, usage: Usage) -> None:
        """Count what nothing was set aside for."""
        self.settle(0.0, usage)

    def refused(self, what: str) -> int:
        """Note a refusal of ``what``; how often in a row it was met while no call was answered yet, 0 once one was."""
        with self._lock:
            if self.total.calls > self.total.failed:
                return 0
            self._refusals = self._refusals + 1 if what == self._refusal else 1
            self._refusal = what
            return self._refusals

    def has_untaken(self) -> bool:
        """Whether anything was counted since the last `take`."""
        with self._lock:
            return bool(self._untaken)

    def take(self) -> Usage:
        """What was counted since the last `take`."""
        with self._lock:
            taken, self._untaken = self._untaken, Usage()
            return taken


meter: contextvars.ContextVar[Meter | None] = contextvars.ContextVar("pinnacle_meter", default=None)
"""Where calls are counted now; None where nobody asked."""
