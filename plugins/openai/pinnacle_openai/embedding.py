"""OpenAIEmbedding: embeddings of any service that speaks OpenAI's API."""

from __future__ import annotations

import array
import base64
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pinnacle import ConfigError, NoAnswer, ProviderRefused
from pinnacle.plugin import Answered, EmbedModel, error_object, operational, token_count
from pinnacle_openai.service import OpenAIService
from pinnacle_openai.settings import split

MADE_HERE = frozenset({"model", "input"})
FORMATS = BASE64, FLOAT = "base64", "float"


@dataclasses.dataclass
class OpenAIEmbedding(OpenAIService, EmbedModel):
    """An embedding model of OpenAI, or of any service that speaks its API.

    ``embed("a")`` is a list of one vector, ``embed(["a", "b"])`` one each; float32 numbers as lists.
    ``dimensions`` is sent where it is given, and shortens the vectors of models that can do that.
    ``encoding_format``: "base64" or "float"; by default base64, which is a third of the bytes, and float from then on
    where a service refuses it.
    """

    _: dataclasses.KW_ONLY
    model_name: str = "text-embedding-3-small"
    batch_size: int | None = operational(256)
    context_window: int | None = 8191
    encoding_format: Literal["base64", "float"] | None = operational(None)

    def __post_init__(self) -> None:
        if self.encoding_format not in (None, *FORMATS):
            raise ConfigError(f"encoding_format is 'base64' or 'float', not {self.encoding_format!r}")
        self.settle_address()
        super().__post_init__()
        self._refuses_base64 = False

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        super().check_parameters(parameters)
        _check(parameters)

    async def _call(self, texts: list[str], given: Mapping[str, Any]) -> Answered[Sequence[Any]]:
        _check(given)
        parameters, options = self.beside(given)
        form = self.encoding_format or (FLOAT if self._refuses_base64 else BASE64)
        body = {"model": self.model_name, "input": texts, "encoding_format": form, **parameters}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        answer, headers = await self.wire().post("/embeddings", body, options)
        vectors = _vectors(answer)
        if len(vectors) != len(texts):
            raise NoAnswer(f"the answer holds {len(vectors)} embeddings for {len(texts)} texts")
        return Answered(vectors, self.usage_of(texts, token_count(answer.get("usage"), "prompt_tokens")), headers)

    async def _embedded(self, texts: list[str], given: Mapping[str, Any], *, is_suspect: bool = False) -> Sequence[Any]:
        """The vectors; asked for again as floats where base64 is refused, which is learned from one that is then taken:
        a text in the refusal may speak of it too."""
        try:
            return await super()._embedded(texts, given, is_suspect=is_suspect)
        except ProviderRefused as error:
            is_asked_for = self.encoding_format is not None or "encoding_format" in given
            if is_asked_for or not _is_about_base64(error.__cause__):
                raise
        vectors = await super()._embedded(texts, {**given, "encoding_format": FLOAT}, is_suspect=is_suspect)
        self._refuses_base64 = True
        return vectors


def _check(given: Mapping[str, Any]) -> None:
    """ConfigError for a keyword that is made of fields, or cannot be sent."""
    parameters, options = split(given)
    if wrong := sorted(MADE_HERE.intersection({*parameters, *options.body})):
        raise ConfigError(f"a keyword cannot set {wrong[0]!r}: it is made from the model's other fields")
    if parameters.get("encoding_format", FLOAT) not in FORMATS:
        raise ConfigError(f"encoding_format is 'base64' or 'float', not {parameters['encoding_format']!r}")


def _is_about_base64(error: BaseException | None) -> bool:
    told = str(getattr(error, "body", ""))
    return getattr(error, "status", None) in (400, 404, 415, 422) and ("encoding_format" in told or BASE64 in told)


def _vectors(answer: Any) -> list[list[float]]:
    """Vectors in the order of the texts; NoAnswer for an answer that has none."""
    if told := error_object(answer):
        raise NoAnswer(f"the provider answered with an error: {told}")
    try:
        items = sorted(answer["data"], key=lambda item: item["index"])
        places, vectors = [item["index"] for item in items], [_numbers(item["embedding"]) for item in items]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise NoAnswer("the answer holds no embeddings") from error
    if len({len(vector) for vector in vectors}) > 1:
        raise NoAnswer("the answer's embeddings are not of one size")
    if places != list(range(len(places))):
        raise NoAnswer(f"the answer's embeddings are at the places {str(places)[:80]}, which cannot be")
    return vectors


def _numbers(embedding: Any) -> list[float]:
    """A list of finite numbers as it is; base64 of little-endian float32 decoded."""
    numbers = array.array("f", embedding if isinstance(embedding, list) else _decoded(embedding))
    if not isinstance(embedding, list) and sys.byteorder == "big":
        numbers.byteswap()
    if not numbers or not math.isfinite(sum(numbers)):
        raise ValueError("it has none, or some that are no numbers")
    return embedding if isinstance(embedding, list) else numbers.tolist()


def _decoded(embedding: Any) -> bytes:
    return base64.b64decode(embedding, validate=True)
