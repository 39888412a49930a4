"""What a predict over a database did."""

from __future__ import annotations

from dataclasses import dataclass

from pinnacle.base.metering import Usage
from pinnacle.base.told import plain


@dataclass
class PredictResult:
    """Counts of one prediction; prints as a few lines.

    ``read`` rows were selected. Of these ``fresh`` needed nothing; ``written`` got their
    output now, ``empty`` of them NULL without a call because an input is NULL;
    ``failed`` were set aside with their error this time, and ``set_aside`` an
    earlier time; ``changed`` were edited, deleted or locked by others meanwhile and are
    left to the next time, as are ``unanswered`` ones, which met no answer of the provider;
    ``pending`` were read and not asked for, because the budget was reached (``budget_reached``), or wait for a batch of
    the provider. ``cut`` answers ended at the limit of tokens, and were stored because of ``on_length="keep"``.
    ``computed`` inputs went to the model in ``calls`` calls (a batch is one call; retries
    count); ``deduplicated`` rows shared another row's output, ``cached`` inputs were
    answered and paid for before. ``requests``, tokens and ``cost`` (US dollars) are what
    hosted models counted, failed and repeated requests included. With ``dry_run`` nothing
    was written or called, and ``computed`` says how many inputs would be; ``foreign`` values stand at the output's
    place that pinnacle did not write, which a predict without ``adopt=True`` refuses to overwrite.
    """

    output: str
    read: int = 0
    fresh: int = 0
    written: int = 0
    empty: int = 0
    failed: int = 0
    set_aside: int = 0
    changed: int = 0
    unanswered: int = 0
    computed: int = 0
    calls: int = 0
    deduplicated: int = 0
    cached: int = 0
    pending: int = 0
    cut: int = 0
    requests: int = 0
    failed_requests: int = 0
    retried_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    budget_reached: bool = False
    seconds: float = 0.0
    dry_run: bool = False
    foreign: int = 0

    def spent(self, usage: Usage) -> None:
        """Take over what the meter says."""
        self.requests, self.failed_requests, self.retried_requests = usage.calls, usage.failed, usage.retried
        self.input_tokens, self.output_tokens, self.cost = usage.input_tokens, usage.output_tokens, usage.cost

    @property
    def settled(self) -> int:
        """Rows read and done with, one way or another."""
        return self.written + self.failed + self.skipped

    @property
    def skipped(self) -> int:
        """Rows read and left as they were."""
        return self.fresh + self.set_aside + self.changed + self.unanswered

    def __str__(self) -> str:
        if self.dry_run:
            return (
                f"{plain(self.output)}: dry run; {_count(self.read, 'row')} read, {self.fresh:,} fresh, "
                f"{self.computed:,} would be computed, {self.empty:,} would be NULL"
                + (f"; {_count(self.foreign, 'value')} there are not pinnacle's (see adopt=)" if self.foreign else "")
            )
        parts = [f"{self.written:,} written", f"{self.fresh:,} already fresh"]
        parts += [
            f"{count:,} {what}"
            for count, what in (
                (self.empty, "with NULL input"), (self.deduplicated, "shared another row's output"),
                (self.cached, "answered before"),
                (self.failed, "failed (see db.errors())"), (self.set_aside, "set aside earlier (see db.errors())"),
                (self.changed, "changed meanwhile"), (self.unanswered, "without an answer of the provider"),
                (self.cut, "cut at the limit of tokens"),
                (self.pending, "not asked for: the budget was reached" if self.budget_reached else "on their way"),
            )
            if count
        ]  # fmt: skip
        rate = f", {self.written / self.seconds:,.0f} rows/s" if self.written and self.seconds else ""
        return (
            f"{plain(self.output)}: {_count(self.read, 'row')} read; {', '.join(parts)}\n"
            f"  {_count(self.computed, 'input')} computed in {_count(self.calls, 'model call')}; "
            f"{self.seconds:.1f} s{rate}{self._bill()}"
        )

    def _bill(self) -> str:
        """A line for models that count tokens; empty for others."""
        if not self.input_tokens and not self.output_tokens:
            return ""
        repeats = f", {_count(self.retried_requests, 'repeat')}" if self.retried_requests else ""
        cost = f", ${self.cost:.6f}" if self.cost else ""
        return (
            f"\n  {_count(self.requests, 'request')}{repeats}; {self.input_tokens:,} tokens in, "
            f"{self.output_tokens:,} out{cost}"
        )


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
