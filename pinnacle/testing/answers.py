"""What the fake server says: scripted answers, their word counts, and vectors made from a hash."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Answer = str | Sequence[str] | Callable[[dict[str, Any]], str | Mapping[str, Any]]
MAX_UINT32 = 2**32 - 1


class Refuse(Exception):
    """Raise it in an answer, and the server sends this status, message and headers instead.

    ``code``, ``type`` and ``param`` are those of OpenAI's error object; ``body`` is sent in place of one, bytes as they
    are. With status 200 it is an error inside an answer, as some gateways send it.
    """

    def __init__(
        self,
        status: int,
        message: str = "refused by the script",
        headers: Mapping[str, str] | None = None,
        *,
        code: str | int | None = None,
        type: str = "invalid_request_error",  # noqa: A002 - the field's name in OpenAI's error object
        param: str | None = None,
        body: Any = None,
    ) -> None:
        self.status, self.message, self.headers = status, message, dict(headers or {})
        self.code, self.type, self.param, self._body = code, type, param, body
        super().__init__(message)

    @property
    def body(self) -> Any:
        if self._body is not None:
            return self._body
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Reply:
    """One answer: the fields of an assistant's message, why it ended, the error it ended with, and what its usage says
    in place of the counted words."""

    message: Mapping[str, Any]
    finish_reason: str | None = "stop"
    error: Any = None
    usage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str | None:
        content = self.message.get("content")
        return None if content is None else text_of(content)

    @property
    def tokens(self) -> int:
        """Words of the content and of the arguments of tool calls."""
        calls = self.message.get("tool_calls") or ()
        return count_tokens(self.text) + sum(count_tokens(call["function"]["arguments"]) for call in calls)


class Script:
    """Gives each request its answer: a fixed text, texts in turn (the last repeats), or what a function says."""

    def __init__(self, answer: Answer | None) -> None:
        self._answer = answer
        self._turns = 0

    def reply(self, request: dict[str, Any]) -> Reply:
        """The answer to one request, cut to its ``max_tokens`` words. Raises what a scripted function raises."""
        said = self._say(request)
        message: dict[str, Any] = {"role": "assistant", "content": None}
        message |= {"content": said} if isinstance(said, str) else said
        reason = message.pop("finish_reason", "tool_calls" if message.get("tool_calls") else "stop")
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        error, usage = message.pop("error", None), message.pop("usage", None) or {}
        if limit and isinstance(message["content"], str) and len(words := message["content"].split()) > limit:
            message["content"], reason = " ".join(words[:limit]), "length"
        return Reply(message, reason, error, usage)

    def _say(self, request: dict[str, Any]) -> str | Mapping[str, Any]:
        answer = self._answer
        if answer is None:
            return question(request)[::-1]
        if isinstance(answer, str):
            return answer
        if callable(answer):
            return answer(request)
        text = answer[min(self._turns, len(answer) - 1)]
        self._turns += 1
        return text


def question(request: Mapping[str, Any]) -> str:
    """What the request asks: its last user message, or its prompt."""
    if "messages" not in request:
        return text_of(request.get("prompt"))
    asked = [message for message in request["messages"] if message.get("role") == "user"]
    return text_of(asked[-1].get("content")) if asked else ""


def text_of(content: Any) -> str:
    """The text of a string, of a list of content parts, or of token numbers."""
    if isinstance(content, str):
        return content
    parts = content or ()
    return " ".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in parts)


def count_tokens(text: str | None) -> int:
    """Words between white space: the fake's tokens, so that a cost can be worked out by hand."""
    return len(text.split()) if text else 0


def unit_vector(text: str, dimensions: int = 8) -> list[float]:
    """A vector of length 1 that depends on nothing but the text; its values are exact in float32."""
    digest = hashlib.shake_256(text.encode()).digest(4 * dimensions)
    values = [2 * number / MAX_UINT32 - 1 for number in struct.unpack(f"<{dimensions}I", digest)]
    norm = math.hypot(*values)
    return list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(value / norm for value in values))))
