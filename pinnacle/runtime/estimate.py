"""What a predict would read, send and cost, before its first call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pinnacle.backends.protocol import Target
from pinnacle.base.usage import UsageRow
from pinnacle.components.model import Model
from pinnacle.runtime.caller import Caller
from pinnacle.runtime.options import PredictOptions

PAGE_ROWS = 1_000
COUNTED_INPUTS = 10_000
"""Tokens are counted for so many inputs, and taken to be alike beyond."""

UNKNOWN_OUTPUT_TOKENS = 256


@dataclass(frozen=True)
class Estimate:
    """``rows`` are selected, and ``calls`` different inputs of them need an answer.

    ``input_tokens`` are counted as the model counts; ``output_tokens`` are what the answers may have at most
    (``max_tokens``), else what the model's answers had on average so far, else 256 each. ``cost`` is in US dollars,
    None where no price is known.
    """

    rows: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def __str__(self) -> str:
        cost = "cost unknown" if self.cost is None else f"about ${self.cost:.4f}"
        return (
            f"{self.rows:,} rows, {self.calls:,} to compute; about {self.input_tokens:,} tokens in, "
            f"{self.output_tokens:,} out; {cost}"
        )


def estimate(model: Model, target: Target, options: PredictOptions, books: Sequence[UsageRow]) -> Estimate:
    """Read the rows that need work, and add up what they would send."""
    caller = Caller(model, target.info.fields, options.parameters, 1)
    counting: Any = getattr(model, "tokens_expected", None)
    usual = _usual_output(books)
    rows = calls = counted = sent = answered = 0
    seen: set[Any] = set()
    after = None
    while options.limit is None or rows < options.limit:
        ask = PAGE_ROWS if options.limit is None else min(PAGE_ROWS, options.limit - rows)
        page = target.read(after, ask, overwrite=options.overwrite)
        if page.last is None:
            break
        after = page.last
        rows += page.read
        for value, identity in zip(page.inputs, page.identities, strict=True):
            if identity in seen or (model.skip_null and caller.has_null(value)):
                continue
            seen.add(identity)
            calls += 1
            if counting is not None and counted < COUNTED_INPUTS:
                counted += 1
                arguments, named = caller.arguments(value)
                into, most = counting(*arguments, {**options.parameters, **named})
                sent += into
                answered += usual if most is None else most
    scale = calls / counted if counted else 0.0
    into, out = round(sent * scale), round(answered * scale)
    price = getattr(model, "price", None)
    return Estimate(rows, calls, into, out, price.of(into, out) if price is not None else None)


def _usual_output(books: Sequence[UsageRow]) -> int:
    answers = sum(row.calls - row.failed for row in books)
    return round(sum(row.output_tokens for row in books) / answers) if answers else UNKNOWN_OUTPUT_TOKENS
