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

    def count_request(self, request: Request) -> int: ...


def estimated_tokens(text: str) -> int:
    """One token for every three bytes of UTF-8, rounded up."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_A_TOKEN)


def estimated_cut(text: str, tokens: int) -> str:
    """The beginning of ``text`` that is estimated at no more than ``tokens``."""
    raw = text.encode("utf-8", "surrogatepass")[: max(0, tokens) * BYTES_A_TOKEN]
    while True:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:  # the cut went through a character
            raw = raw[: error.start]


def fitted(
    build: Callable[[str, str | None, int], Request], value: str, context: str | None, counter: Counter,
    *, droppable: int = 0, window: int, overflow: str, model: str,
) -> Request:  # fmt: skip
    """The request, with context and input cut so that it and its answer fit the window of so many tokens.

    ``build`` makes it of input, context, and how many of the oldest of ``droppable`` turns of
    a dialog to leave out: the context is cut first, then turns are left out, then the input is
    cut. ContextOverflow where ``overflow`` is ``"error"``, or where not even that would fit.
    """
    request, dropped, cuts = build(value, context, 0), 0, 0
    room = window - output_reserve(request, window)
    excess = counter.count_request(request) - room
    if excess <= 0:
        return request
    if room <= 0:
        raise ContextOverflow(
            f"model {model!r}: an answer of {window - room} tokens leaves nothing of its context window of {window} "
            f"for the prompt; lower {' or '.join(OUTPUT_LIMITS)}"
        )
    told = f"model {model!r}: the prompt is {excess} tokens longer than the {room} that fit its context window"
    if overflow == "error":
        raise ContextOverflow(f"{told} of {window}; shorten it, or let overflow='cut' cut its end off")
    is_helping = True
    while excess > 0 and cuts < MAX_CUTS and (context or dropped < droppable or value):
        before, is_context = excess, bool(context) and is_helping
        if is_context:
            context, cuts = _shorter(context or "", excess, counter), cuts + 1
        elif dropped < droppable and counter.count_tokens(value) <= excess:
            dropped += 1
        else:
            value, cuts = _shorter(value, excess, counter), cuts + 1
        request = build(value, context, dropped)
        excess = counter.count_request(request) - room
        is_helping = is_helping and not (is_context and excess >= before)
    if excess > 0:
        raise ContextOverflow(
            f"{told} of {window}, and its fixed parts alone do not fit: the template, the system prompt, examples, or "
            "a last message that is no text; shorten them"
        )
    left_out = f", and {dropped} of the dialog's oldest turns were left out" if dropped else ""
    warnings.warn(f"{told} of {window}: its end was cut off{left_out}", PromptCut, stacklevel=2)
    return request


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
