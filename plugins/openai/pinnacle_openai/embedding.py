"""OpenAIEmbedding: embeddings of any service that speaks OpenAI's API."""

from __future__ import annotations

import array
import base64
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pinnacle import ConfigError
from pinnacle.plugin import Answered, EmbedModel, Unreadable, operational
from pinnacle_openai.service import OpenAIService

MADE_HERE = frozenset({"model", "input", "encoding_format"})


@dataclasses.dataclass
class OpenAIEmbedding(OpenAIService, EmbedModel):
    """An embedding model of OpenAI, or of any service that speaks its API.

    ``embed("a")`` is a list of one vector, ``embed(["a", "b"])`` one each; float32 numbers as lists.
    ``dimensions`` is sent where it is given, and shortens the vectors of models that can do that.
    """

    _: dataclasses.KW_ONLY
    model_name: str = "text-embedding-3-small"
    batch_size: int | None = operational(256)
    context_window: int | None = 8191

    def __post_init__(self) -> None:
        self.settle_address()
        super().__post_init__()

    async def _call(self, texts: list[str], given: Mapping[str, Any]) -> Answered[Sequence[Any]]:
        if wrong := sorted(MADE_HERE & set(given)):
            raise ConfigError(f"a keyword cannot set {wrong[0]!r}: it is made from the model's other fields")
        body = {"model": self.model_name, "input": texts, "encoding_format": "base64", **given}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        answer, headers = await self.wire().post("/embeddings", body)
        vectors = _vectors(answer)
        if len(vectors) != len(texts):
            raise Unreadable(f"the answer holds {len(vectors)} embeddings for {len(texts)} texts")
        usage = answer.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
        return Answered(vectors, self.usage_of(texts, tokens), headers)


def _vectors(answer: Any) -> list[list[float]]:
    """Vectors in the order of the texts; Unreadable for an answer that has none."""
    try:
        items = sorted(answer["data"], key=lambda item: item["index"])
        return [_numbers(item["embedding"]) for item in items]
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable("the answer holds no embeddings") from error


def _numbers(embedding: Any) -> list[float]:
    """A list of numbers as it is; base64 of little-endian float32 decoded."""
    if isinstance(embedding, list):
        return embedding
    numbers = array.array("f", base64.b64decode(embedding, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
