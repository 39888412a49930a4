"""What tokens cost: as the user says, or by a maintained offline list of prices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pinnacle.base.errors import ConfigError


@dataclass(frozen=True)
class Price:
    """US dollars for one input token, for one output token, and for an input token that the provider had in its cache:
    by default as for another."""

    input: float
    output: float = 0.0
    cached: float | None = None

    def of(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """What a call with so many tokens costs, of whose input so many were in the provider's cache."""
        saved = 0.0 if self.cached is None else min(cached_tokens, input_tokens) * (self.input - self.cached)
        return input_tokens * self.input + output_tokens * self.output - saved


def price_of(cost: Any) -> Price | None:
    """The price that ``cost=`` gives: (input, output), (input, output, cached input), or one number for input tokens
    alone; None for None."""
    if cost is None:
        return None
    amounts = tuple(cost) if isinstance(cost, (tuple, list)) else (cost, 0.0)
    if len(amounts) not in (2, 3) or not all(_is_price(amount) for amount in amounts):
        raise ConfigError(
            "cost is US dollars a token, as (input, output), (input, output, cached input) or one number for input "
            f"alone, not {cost!r}: $0.50 a million is 5e-7"
        )
    return Price(*map(float, amounts))


def listed_price(model_name: str, api_url: str) -> Price | None:
    """The price of a hosted model in the offline list of the ``genai-prices`` package.

    None where the package or the model is not there, or the address is no provider's in the
    list: a server of one's own costs nothing that a list knows.
    """
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    million = 1_000_000
    try:
        read = calc_price(Usage(input_tokens=million, output_tokens=0), model_name, provider_api_url=api_url)
        both = calc_price(Usage(input_tokens=million, output_tokens=million), model_name, provider_api_url=api_url)
        again = Usage(input_tokens=million, cache_read_tokens=million, output_tokens=0)
        cached = calc_price(again, model_name, provider_api_url=api_url)
    except LookupError:
        return None
    output = float(both.total_price - read.total_price)
    return Price(float(read.total_price) / million, output / million, float(cached.total_price) / million)


def _is_price(amount: Any) -> bool:
    return isinstance(amount, (int, float)) and not isinstance(amount, bool) and 0 <= amount < math.inf
