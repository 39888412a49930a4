"""Embedding models behind interfaces: lists of texts in batches, under the same limits and bills."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import operator
import random
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

from pinnacle.base import loop
from pinnacle.base.errors import (
    BudgetReached,
    ConfigError,
    ContextOverflow,
    NoAnswer,
    OutputCountMismatch,
    ProviderRefused,
    ProviderUnavailable,
)
from pinnacle.base.metering import MOST_TOKENS, Usage
from pinnacle.base.outages import status_of
from pinnacle.base.types import OutputType, Vector
from pinnacle.components.calls import Named
from pinnacle.components.component import operational
from pinnacle.components.model import CallStyle
from pinnacle.llm.hosted import ByFunction, HostedModel
from pinnacle.llm.overflow import estimated_cut, estimated_tokens
from pinnacle.llm.sending import Answered
from pinnacle.llm.verdict import message_of

WAYS = 8
"""Parts that a batch is cut into which some of its texts spoil: of 256 one is alone after 3 rounds, and after 8 of
halves."""

REFUSED_SIZES = frozenset({400, 413, 422})
"""With these providers refuse more texts than they take at once."""


@dataclasses.dataclass
class EmbedModel(HostedModel):
    """Embeds texts through an interface. Subclass it and write ``_embed(self, texts)``.

    ``predict("a")`` is one vector, ``predict(["a", "b"])`` a list; ``embed("a")`` is a list of
    one vector, ``embed(["a", "b"])`` of two. ``_embed`` returns (vectors, tokens), the tokens
    an int or None. ``batch_size``: texts in one request, ``max_batch_size``: requests in flight.
    ``context_window``: tokens that one text may have; longer ones are cut with ``text_overflow_mode="TRUNCATE"``, and
    are that row's error with ``"FAIL"``. ``dimensions``: the vectors' size, else asked by embedding one word.
    """

    purpose: ClassVar[str | None] = "TEXT_EMBEDDING_EXTRACTION"
    takes_row_keywords: ClassVar[bool] = True

    _: dataclasses.KW_ONLY
    dimensions: int | None = None
    batch_size: int | None = operational(256)
    max_batch_size: int = operational(8)
    context_window: int | None = None
    text_overflow_mode: Literal["FAIL", "TRUNCATE"] = "FAIL"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._most_texts = sys.maxsize  # as the provider's refusals teach
        self._served_texts = 0  # so many at once were answered
        if self.text_overflow_mode not in ("FAIL", "TRUNCATE"):
            raise ConfigError(f"text_overflow_mode= is 'FAIL' or 'TRUNCATE', not {self.text_overflow_mode!r}")

    @classmethod
    def from_function(cls, identifier: str, fn: Any, **options: Any) -> Any:
        """An embedder that ``fn(model, texts)`` computes, async or not: it returns (vectors, tokens).

        ``setup_fn(api_key)`` is called once, and its result is ``model.client``.
        """
        return FunctionEmbedModel(identifier, fn=fn, **options)

    @property
    def call_style(self) -> CallStyle:
        return CallStyle.BATCH

    def _embed(self, texts: list[str], **kwargs: Any) -> Any:
        """(vectors, tokens) of some texts; written by subclasses, as a function or a coroutine function."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it embeds")

    def embed(self, texts: str | Sequence[str], **kwargs: Any) -> list[Any]:
        """A list with one vector a text, also for a single one; lists of floats, or as the interface gives them."""
        many = [texts] if isinstance(texts, str) else texts
        if not isinstance(many, Sequence):
            raise ConfigError(f"embed takes a text or a list of texts, not {type(texts).__name__}")
        return list(self.predict(list(many), **kwargs)) if many else []

    def check_arguments(self, positional: int, named: Sequence[str]) -> None:
        if positional != 1:
            raise ConfigError(
                f"model {self.identifier!r} embeds one field; join several into one column first, or embed each"
            )

    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> list[Any]:
        outputs: list[Any] = [self._checked(_only_input(item)) for item in inputs]
        sound = [i for i, text in enumerate(outputs) if isinstance(text, str)]
        if sound:
            vectors = loop.run(self._searched([outputs[i] for i in sound], kwargs))
            for position, vector in zip(sound, vectors, strict=True):
                outputs[position] = vector
        return outputs

    def length_of(self, value: Any) -> int | None:
        return len(value) if isinstance(value, str) else None

    def count_tokens(self, text: str) -> int:
        """Tokens in a text: estimated, one for three bytes; models with a tokenizer count."""
        return estimated_tokens(text)

    def cut_text(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        return estimated_cut(text, tokens)

    def resolved_output_type(self) -> OutputType:
        """``Vector(dim)``; asks for the embedding of one word where ``dimensions`` does not tell."""
        if isinstance(self.output_type, OutputType):
            return self.output_type
        return Vector(self.dimensions or self._found_dimensions)

    @cached_property
    def _found_dimensions(self) -> int:
        return len(self.embed("size")[0])

    def expected_cost(self, texts: Sequence[str]) -> float:
        """What a request may cost, by estimate."""
        return self.price.of(sum(map(self.count_tokens, texts)), 0) if self.price else 0.0

    def tokens_expected(self, value: Any, given: Mapping[str, Any]) -> tuple[int, int | None]:
        """Tokens that a text would send; an embedding has none of its own."""
        text = self._checked(value)
        return (self.count_tokens(text) if isinstance(text, str) else 0), 0

    def _checked(self, text: Any) -> str | Exception:
        """The text as it is sent, or what is wrong with it."""
        if not isinstance(text, str):
            return ConfigError(f"model {self.identifier!r} embeds text, not {type(text).__name__}")
        if self.context_window is None or (tokens := self.count_tokens(text)) <= self.context_window:
            return text
        if self.text_overflow_mode == "TRUNCATE":
            return self.cut_text(text, self.context_window)
        return ContextOverflow(
            f"model {self.identifier!r}: a text of {tokens} tokens is longer than its {self.context_window}; "
            "shorten it, or let text_overflow_mode='TRUNCATE' cut its end off"
        )

    async def _searched(self, texts: list[str], given: Mapping[str, Any], *, is_suspect: bool = False) -> list[Any]:
        """A vector for each text, or the error in its place: a batch that is refused, or alone meets no answer, is cut
        until the texts that spoil it are alone."""
        if len(texts) > self._most_texts:
            return await self._in_parts(texts, self._most_texts, given)
        try:
            vectors = list(await self._embedded(texts, given, is_suspect=is_suspect))
            self._served_texts = max(self._served_texts, len(texts))
            return vectors
        except (ProviderRefused, NoAnswer, ProviderUnavailable, BudgetReached) as error:
            is_theirs = isinstance(error, (ProviderRefused, NoAnswer)) and not error.halts_prediction
            if len(texts) == 1 or not is_theirs:
                return [error] * len(texts)
            limit = told_limit(error.__cause__, len(texts)) if len(texts) > self._served_texts else None
        size = limit or math.ceil(len(texts) / WAYS)
        found = await self._in_parts(texts, size, given, is_suspect=limit is None)
        if limit is not None and not any(isinstance(vector, Exception) for vector in found):
            self._most_texts = min(self._most_texts, size)  # they were only too many
        return found

    async def _in_parts(
        self, texts: list[str], size: int, given: Mapping[str, Any], *, is_suspect: bool = False
    ) -> list[Any]:
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        searches = (self._searched(part, given, is_suspect=is_suspect) for part in parts)
        found = await asyncio.gather(*searches, return_exceptions=True)
        if failed := [part for part in found if isinstance(part, BaseException)]:
            raise failed[0]
        return [vector for part in found if isinstance(part, list) for vector in part]

    async def _embedded(self, texts: list[str], given: Mapping[str, Any], *, is_suspect: bool = False) -> Sequence[Any]:
        is_many = len(texts) > 1
        return await self.send(
            partial(self._answered, texts, given), self.expected_cost(texts), self.limit_s(given),
            parameters={*given, *self._sent_along()}, is_divisible=is_many, is_suspect=is_suspect,
            witness=partial(self._answered, [random.choice(texts)], given) if is_many else None,
        )  # fmt: skip

    async def _answered(self, texts: list[str], given: Mapping[str, Any]) -> Answered[Sequence[Any]]:
        """One request that brings vectors; NoAnswer, billed, where it brings none."""
        try:
            return await self._call(texts, given)
        except NoAnswer as error:
            if error.billed is None:
                error.billed = self.usage_of(texts, None)
            raise

    def _sent_along(self) -> Collection[str]:
        """The names of what is sent with every request beside the texts and keywords."""
        return ("dimensions",) if self.dimensions is not None else ()

    def _embedder(self) -> Callable[..., Any]:
        """What is called with texts and keywords."""
        return self._embed

    async def _call(self, texts: list[str], given: Mapping[str, Any]) -> Answered[Sequence[Any]]:
        """One request, with what it cost. Subclasses that see headers override this."""
        vectors, tokens = _pair(await self.called(self._embedder(), texts, **given))
        return Answered(self._aligned(texts, vectors), self.usage_of(texts, tokens))

    def _aligned(self, texts: Sequence[str], vectors: Sequence[Any]) -> Sequence[Any]:
        if len(vectors) != len(texts):
            raise OutputCountMismatch(
                f"model {self.identifier!r} returned {len(vectors)} vectors for {len(texts)} texts; "
                "it must return one for each, in order"
            )
        return vectors

    def usage_of(self, texts: Sequence[str], tokens: int | None) -> Usage:
        """Tokens and cost of one request: as the provider counted, else by `count_tokens`."""
        read = sum(map(self.count_tokens, texts)) if tokens is None else tokens
        return Usage(input_tokens=read, cost=self.price.of(read, 0) if self.price else 0.0)


@dataclasses.dataclass
class FunctionEmbedModel(ByFunction, EmbedModel):
    """An embedder that ``fn(model, texts)`` computes. Made by `EmbedModel.from_function`."""

    def _embedder(self) -> Callable[..., Any]:
        return self.bound()


def cos_sim(left: Sequence[float], right: Sequence[float]) -> float:
    """The cosine similarity of two vectors, from -1 to 1; ConfigError where their sizes differ, 0.0 for a zero one."""
    a, b = _numbers(left), _numbers(right)
    if len(a) != len(b):
        raise ConfigError(f"cos_sim takes two vectors of one size, not of {len(a)} and {len(b)} numbers")
    norms = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def _numbers(vector: Any) -> list[float]:
    try:
        return [float(number) for number in vector]
    except TypeError:
        raise ConfigError("cos_sim takes two vectors, and embed() gives a list of them: take one by [0]") from None


def told_limit(refusal: BaseException | None, count: int) -> int | None:
    """How many texts a provider may take that refused so many: the largest smaller number that its message names, else
    half; None where it was no refusal of the request."""
    if refusal is None or status_of(refusal) not in REFUSED_SIZES:
        return None
    named = [int(number) for number in re.findall(r"\b\d{1,6}\b", message_of(refusal))]
    return max((number for number in named if 1 <= number < count), default=count // 2)


def _only_input(item: Any) -> Any:
    """A row's text, where X is a dict of it alone."""
    return item["input"] if isinstance(item, Named) and set(item) == {"input"} else item


def _pair(answer: Any) -> tuple[Sequence[Any], int | None]:
    if isinstance(answer, tuple) and len(answer) == 2 and (answer[1] is None or hasattr(answer[1], "__index__")):
        tokens = None if answer[1] is None else operator.index(answer[1])
        if tokens is None or 0 <= tokens <= MOST_TOKENS:
            return answer[0], tokens
    raise TypeError(f"an embedder returns (vectors, tokens), tokens an int or None, not {type(answer).__name__}")
