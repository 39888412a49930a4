"""What goes to a language model and what comes back, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pinnacle.base.metering import MOST_TOKENS

Message = dict[str, Any]
CUT_ENDS = frozenset({"length", "max_tokens", "max_length", "model_length", "max_output_tokens"})
"""The finish reasons of an answer that ended at the limit of tokens, as services spell them, in lower case."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


@dataclass(frozen=True)
class Request:
    """One prompt: a string, or the messages of a dialog, with the parameters that are sent along.

    ``content`` is what the user's input and the model's fields make: a string where there is nothing but a
    prompt; messages where the input is a dialog, or there is a system prompt or an example, or an answer is asked
    for again. ``messages`` is either as a dialog, ``texts`` every text in it.
    ``response_schema``: the JSON Schema that the answer is asked to fit, where the model is told
    by its interface and not in the prompt.
    """

    content: str | list[Message]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    response_schema: Mapping[str, Any] | None = None

    @property
    def messages(self) -> list[Message]:
        """The content as a dialog."""
        return [{"role": "user", "content": self.content}] if isinstance(self.content, str) else self.content

    @property
    def texts(self) -> list[str]:
        """All text that is sent."""
        if isinstance(self.content, str):
            return [self.content]
        return [text for message in self.content for text in _texts(message.get("content"))]

    @property
    def parameter_names(self) -> frozenset[str]:
        """What is sent beside the content."""
        return frozenset(self.parameters) | ({"response_format"} if self.response_schema is not None else set())

    def followed_by(self, *messages: Message) -> Request:
        """The dialog goes on."""
        return replace(self, content=[*self.messages, *messages])


@dataclass(frozen=True)
class Reply:
    """What a model answered. Token counts are the provider's, or None where it told none; ``cached_tokens`` of those
    read were in its own cache."""

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    cached_tokens: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether it ended at the limit of tokens, and not by itself."""
        return self.finish_reason is not None and self.finish_reason.lower() in CUT_ENDS


def as_reply(answer: Any) -> Reply:
    """What a ``_generate`` returned: a string, (text, (input tokens, output tokens)), or a Reply; TypeError else."""
    if isinstance(answer, Reply):
        return answer
    if isinstance(answer, str):
        return Reply(answer)
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], str):
        counts = answer[1]
        if counts is None:
            return Reply(answer[0])
        if isinstance(counts, Sequence) and len(counts) == 2 and all(map(_is_count, counts)):
            return Reply(answer[0], counts[0], counts[1])
    raise TypeError(
        f"a language model answers with a string, or (string, (input tokens, output tokens)), not {_shape(answer)}"
    )


def is_dialog(value: Any) -> bool:
    """Whether a value is the messages of one dialog."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, dict) and message.get("role") in ROLES for message in value)
    )


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and 0 <= number <= MOST_TOKENS


def _shape(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(item).__name__ for item in value)})"
    return type(value).__name__
