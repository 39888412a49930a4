"""Language models and embedders of the tests, made of functions; those that are stored are importable from here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pinnacle import Model
from pinnacle.ext.llm import EmbedModel, OpenAI
from pinnacle.plugin import BaseLLMModel
from pinnacle.testing import FakeOpenAI, unit_vector
from tests.models import CALLS, note

DOWN: list[bool] = []
"""Not empty while the provider of the functions here does not answer."""

DOWN_AFTER: list[int] = []
"""After so many calls it goes down."""

DIMENSIONS = 4


@dataclass
class Recorder:
    """A language model that answers as it is told, and what it was asked."""

    model: Any = None
    asked: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)

    @property
    def prompts(self) -> list[Any]:
        return [prompt for prompt, _ in self.asked]

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [parameters for _, parameters in self.asked]


def recorder(answer: Callable[[Any], Any] | str = "ok", **options: Any) -> Recorder:
    """A `Recorder`; ``answer`` is a text, or makes one of a prompt."""
    found = Recorder()

    def call(model: Any, prompt: Any, **parameters: Any) -> Any:
        found.asked.append((prompt, parameters))
        return answer if isinstance(answer, str) else answer(prompt)

    found.model = Model.from_function("recorder", **{"fn": call, "api_key": new_key(), **options})
    return found


def new_key() -> str:
    """A key that no other test has: limits and outages are an account's, for as long as the process lives."""
    return f"key-{next(_numbers)}"


_numbers = itertools.count()


def reply(model: Any, prompt: str, **parameters: Any) -> tuple[str, tuple[int, int]]:
    """The prompt in capitals, with its words counted; refuses what starts with "bad"."""
    note(prompt)
    if DOWN_AFTER and len(CALLS) > DOWN_AFTER[0]:
        DOWN.append(bool(DOWN_AFTER.pop()))
    if DOWN:
        raise ConnectionRefusedError("nobody is there")
    if prompt.startswith("bad"):
        raise ValueError(f"refused: {prompt}")
    words = len(prompt.split())
    return prompt.upper(), (words, words)


async def areply(model: Any, prompt: str, **parameters: Any) -> tuple[str, tuple[int, int]]:
    return reply(model, prompt, **parameters)


def vectors(model: Any, texts: list[str], **parameters: Any) -> tuple[list[list[float]], int]:
    """A vector of each text that depends on nothing but the text, and all their words."""
    note(tuple(texts))
    if DOWN:
        raise ConnectionRefusedError("nobody is there")
    return [unit_vector(text, DIMENSIONS) for text in texts], sum(len(text.split()) for text in texts)


class Local(BaseLLMModel):
    """A model of this process: the prompt in capitals."""

    def _generate(self, messages: Any, **kwargs: Any) -> str:
        return str(note(messages)).upper()


def person(model: Any, prompt: Any, **parameters: Any) -> str:
    """JSON of a name and an age; of what starts with "bad" only the name."""
    note(prompt)
    text = prompt if isinstance(prompt, str) else prompt[0]["content"]
    return json.dumps({"name": text.split()[0]} | ({} if text.startswith("bad") else {"age": 7}))


def llm(**options: Any) -> Any:
    return Model.from_function("replies", **{"fn": areply, "api_key": new_key(), "retry_delay_s": 0, **options})


def embedder(**options: Any) -> Any:
    return EmbedModel.from_function("vectors", **{"fn": vectors, "api_key": new_key(), "retry_delay_s": 0, **options})


def openai(server: FakeOpenAI, **options: Any) -> Any:
    """A chat model of OpenAI at a fake server."""
    return OpenAI(**{"base_url": server.url, "api_key": "any", "retry_delay_s": 0, **options})
