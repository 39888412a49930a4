"""Models of the tests, in a module of their own: components are stored as import references."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from typing import Any

from pinnacle import Model, model
from pinnacle.plugin import EmbedModel

CALLS: list[Any] = []
"""What the models of this process were called with; a global, so that recording changes no model's content."""


def note(value: Any) -> Any:
    """Record a call; the value itself, for use inside an expression."""
    CALLS.append(value)
    return value


@model
def shout(body: str) -> str:
    return str(note(body)).upper()


@model
def word_count(body: str) -> int:
    return len(note(body).split())


@model
def words(body: str) -> list[str]:
    return str(note(body)).split()


@model(retry_delay_s=0)
def picky(body: str) -> str:
    """Refuses what starts with "bad"."""
    if note(body).startswith("bad"):
        raise ValueError(f"refused: {body}")
    return body.upper()


@model(batch=True, batch_size=8, retry_delay_s=0)
def picky_batch(bodies: list[str]) -> list[str]:
    """Refuses every batch that holds a text starting with "bad"."""
    note(tuple(bodies))
    if any(body.startswith("bad") for body in bodies):
        raise ValueError(f"refused a batch of {len(bodies)}")
    return [body.upper() for body in bodies]


@model
async def whisper(body: str) -> str:
    return str(note(body)).lower()


@model
def logged(body: str) -> str:
    """Appends each call to the file PINNACLE_TEST_LOG, from any process; kills its own at PINNACLE_TEST_KILL."""
    if body == os.environ.get("PINNACLE_TEST_KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    descriptor = os.open(os.environ["PINNACLE_TEST_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{body}\n".encode())
    finally:
        os.close(descriptor)
    return body.upper()


class Sized(Model):
    """A batch model that asks for inputs of like length; an output names its input and its batch's lengths."""

    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> list[str]:
        note(tuple(map(len, inputs)))
        return [f"{text}:{len(text)}" for text in inputs]

    def length_of(self, value: Any) -> int:
        return len(value)


ABSENT_PARTS: dict[str, type[Exception]] = {}
"""What models of this process need in vain, and the error that loading them meets."""


@dataclasses.dataclass
class Suffixed(Model):
    """Appends a suffix, and refuses every input where that is "bad"; cannot be made where ``needs`` is absent."""

    suffix: str = ""
    needs: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.needs in ABSENT_PARTS:
            raise ABSENT_PARTS[self.needs](f"{self.needs} is not here")

    def predict_one(self, body: str) -> str:
        if self.suffix == "bad":
            raise ValueError(f"refused: {body}")
        return str(note(body)) + self.suffix


class Counted(Model):
    """The length of a text."""

    def predict_one(self, body: str) -> int:
        return len(note(body))


PRICE = (1e-6, 2e-6)


async def say(model: Model, prompt: Any, **kwargs: Any) -> tuple[str, tuple[int, int]]:
    """Repeats the prompt in capitals; tokens are words."""
    words = len(str(note(prompt)).split())
    return str(prompt).upper(), (words, words)


async def key_of(model: Model, prompt: Any) -> tuple[str, tuple[int, int]]:
    """Tells the key that its model has."""
    return f"{prompt} with {model.api_key}", (1, 1)


chat = Model.from_function("chat", fn=say, cost=PRICE, max_batch_size=4)
asking = Model.from_function("asking", fn=say, prompt_template="{context} | {input}")


async def answer_in_json(model: Model, prompt: Any) -> str:
    return json.dumps({"city": str(note(prompt)).split("\n")[0].title(), "size": 3, "old": True})


places = Model.from_function(
    "places", fn=answer_in_json,
    output_schema={
        "type": "object",
        "properties": {"city": {"type": "string"}, "size": {"type": "integer"}, "old": {"type": "boolean"}},
        "required": ["city", "size", "old"],
    },
)  # fmt: skip


def measure(model: Model, texts: list[str]) -> tuple[list[list[float]], int]:
    return [[float(len(note(text))), 1.0] for text in texts], len(texts)


lengths = EmbedModel.from_function("lengths", fn=measure)


async def moody(model: Model, prompt: str) -> str:
    if prompt == "silent":
        raise TimeoutError("no answer")
    return prompt.upper()
