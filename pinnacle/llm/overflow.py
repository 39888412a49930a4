"""Keeps prompts within a model's context window: the context is cut first, then the input."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Protocol

from pinnacle.base.errors import ContextOverflow
from pinnacle.llm.requests import Request

BYTES_A_TOKEN = 3
"""Fewer than any common tokenizer needs for English (about 4), so that the estimate errs on the safe side."""

TOKENS_A_MESSAGE = 4
DEFAULT_OUTPUT_RESERVE = 256
OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_new_tokens")
MAX_CUTS = 8


class PromptCut(UserWarning):
    """An input was longer than the model's context window, and its end was cut off."""


class Counter(Protocol):
    """What counts and cuts text: a model's own tokenizer, or the estimate."""

    def count_tokens(self, text: str) -> int: ...

    def cut_text(self, text: str, tokens: int) -> str: ...


def estimated_tokens(text: str) -> int:
    """One token for every three bytes of UTF-8, rounded up."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_A_TOKEN)


def estimated_cut(text: str, tokens: int) -> str:
    """The beginning of ``text`` that is estimated at no more than ``tokens``."""
    raw = text.encode("utf-8", "surrogatepass")[: max(0, tokens) * BYTES_A_TOKEN]
    return raw.decode("utf-8", "ignore")


def fitted(
    build: Callable[[str, str | None], Request], value: str, context: str | None, counter: Counter,
    *, window: int, overflow: str, model: str,
) -> Request:  # fmt: skip
    """The request, with context and input cut so that it and its answer fit the window of so many tokens.

    ContextOverflow where ``overflow`` is ``"error"``, or where not even an empty input would fit.
    """
    request = build(value, context)
    room = window - output_reserve(request, window)
    excess = tokens_of(request, counter) - room
    if excess <= 0:
        return request
    told = f"model {model!r}: the prompt is {excess} tokens longer than the {room} that fit its context window"
    if overflow == "error":
        raise ContextOverflow(f"{told} of {window}; shorten it, or let overflow='cut' cut its end off")
    for _ in range(MAX_CUTS):
        if context:
            context = _shorter(context, excess, counter)
        elif value:
            value = _shorter(value, excess, counter)
        else:
            break
        request = build(value, context)
        excess = tokens_of(request, counter) - room
        if excess <= 0:
            warnings.warn(f"{told} of {window}: its end was cut off", PromptCut, stacklevel=2)
            return request
    raise ContextOverflow(f"{told} of {window}, and its fixed parts alone do not fit; shorten the template or examples")


def tokens_of(request: Request, counter: Counter) -> int:
    """The tokens of everything that is sent."""
    if isinstance(request.content, str):
        return counter.count_tokens(request.content)
    return sum(counter.count_tokens(text) + TOKENS_A_MESSAGE for text in request.texts)


def output_reserve(request: Request, window: int) -> int:
    """The tokens kept for the answer: what its parameters allow, else 256 or a quarter of the window."""
    limit = most_output(request)
    return min(DEFAULT_OUTPUT_RESERVE, window // 4) if limit is None else limit


def most_output(request: Request) -> int | None:
    """The tokens that an answer may have, as the request's parameters say; None where they do not."""
    for name in OUTPUT_LIMITS:
        limit = request.parameters.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool):
            return limit
    return None


def _shorter(text: str, tokens: int, counter: Counter) -> str:
    """``text`` without its last ``tokens``; shorter in any case."""
    cut = counter.cut_text(text, counter.count_tokens(text) - tokens)
    return cut if len(cut) < len(text) else text[: len(text) * 3 // 4]
