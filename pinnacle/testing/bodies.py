"""The bodies of answers, in the form of each endpoint: whole, and as the events of a stream."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pinnacle.testing.answers import Refuse, Reply, count_tokens, text_of

Ask = Callable[[dict[str, Any]], Reply]
Embed = Callable[[str, int], Sequence[float]]
DEFAULT_DIMENSIONS = 8


@dataclass(frozen=True)
class Body:
    """One answer as JSON, and as events where the request asked for a stream."""

    whole: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int = 0
    events: list[dict[str, Any]] | None = field(default=None)

    def emptied(self) -> Body:
        """The same without what was asked for."""
        for part in (self.whole, *(self.events or ())):
            part.update({name: [] for name in ("choices", "data", "text") if name in part})
        return self


def chat(number: int, request: dict[str, Any], ask: Ask) -> Body:
    """A chat completion; ``n`` choices are all the same."""
    messages = need(request, "messages")
    reply = ask(request)
    count = request.get("n") or 1
    prompt_tokens = sum(count_tokens(text_of(message.get("content"))) for message in messages)
    usage = {**usage_of(prompt_tokens, count * reply.tokens), **reply.usage}
    head = {"id": f"chatcmpl-{number}", "created": int(time.time()), "model": request.get("model")}
    choices = [
        {
            "index": index,
            "message": dict(reply.message),
            "logprobs": None,
            "finish_reason": reply.finish_reason,
            **({} if reply.error is None else {"error": reply.error}),
        }
        for index in range(count)
    ]
    return Body(
        {**head, "object": "chat.completion", "choices": choices, "usage": usage}, prompt_tokens, count * reply.tokens,
        chat_events({**head, "object": "chat.completion.chunk"}, request, reply, usage) if is_stream(request) else None,
    )  # fmt: skip


def chat_events(
    head: dict[str, Any], request: dict[str, Any], reply: Reply, usage: dict[str, Any]
) -> list[dict[str, Any]]:
    """The role, the content word by word, tool calls whole, the reason for the end, and the usage if asked for."""
    calls = [{"index": index, **call} for index, call in enumerate(reply.message.get("tool_calls") or ())]
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None if reply.text is None else ""},
        *({"content": piece} for piece in pieces(reply.text)),
        *({"tool_calls": [call]} for call in calls),
    ]
    return [
        *(
            {**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}
            for index in range(request.get("n") or 1)
            for delta in deltas
        ),
        *(
            {**head, "choices": [{"index": index, "delta": {}, "finish_reason": reply.finish_reason}]}
            for index in range(request.get("n") or 1)
        ),
        *usage_event(head, request, usage),
    ]


def completions(number: int, request: dict[str, Any], ask: Ask) -> Body:
    """A legacy completion; a list of prompts is asked one by one, with ``n`` choices each."""
    prompts = need(request, "prompt")
    if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
        prompts = [prompts]
    count = request.get("n") or 1
    replies = [reply for prompt in prompts for reply in [ask({**request, "prompt": prompt})] * count]
    prompt_tokens = sum(count_tokens(text_of(prompt)) for prompt in prompts)
    completion_tokens = sum(reply.tokens for reply in replies)
    usage = usage_of(prompt_tokens, completion_tokens)
    head = {
        "id": f"cmpl-{number}", "object": "text_completion", "created": int(time.time()), "model": request.get("model"),
    }  # fmt: skip
    choices = [completion_choice(index, reply.text, reply.finish_reason) for index, reply in enumerate(replies)]
    events = None
    if is_stream(request):
        events = [
            {**head, "choices": [completion_choice(index, piece, None)]}
            for index, reply in enumerate(replies)
            for piece in pieces(reply.text)
        ]
        events += [{**head, "choices": [{**choice, "text": ""}]} for choice in choices]
        events += usage_event(head, request, usage)
    return Body({**head, "choices": choices, "usage": usage}, prompt_tokens, completion_tokens, events)


def completion_choice(index: int, text: str | None, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def generate(number: int, request: dict[str, Any], ask: Ask) -> Body:
    """vLLM's api_server: the prompt with its answer, ``n`` times; a scripted dict with "text" is sent as it is."""
    prompt = need(request, "prompt")
    reply = ask(request)
    count = request.get("n") or 1
    whole = {"text": [None if reply.text is None else prompt + reply.text] * count}
    if "text" in reply.message:
        whole = {"text": reply.message["text"]}
    return Body(whole, count_tokens(prompt), count * reply.tokens)


def embeddings(request: dict[str, Any], embed: Embed, *, is_null: bool = False, max_inputs: int | None = None) -> Body:
    """One vector a text, as numbers or as the base64 of float32 in little-endian order; Refuse for too many texts."""
    texts = need(request, "input")
    if isinstance(texts, str) or isinstance(texts[0], int):
        texts = [texts]
    if max_inputs is not None and len(texts) > max_inputs:
        raise Refuse(400, f"The batch size is invalid: it must not be larger than {max_inputs}.", param="input")
    size = request.get("dimensions") or DEFAULT_DIMENSIONS
    encode = in_base64 if request.get("encoding_format") == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": None if is_null else encode(embed(text_of(text), size))}
        for index, text in enumerate(texts)
    ]
    tokens = sum(count_tokens(text_of(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Body({"object": "list", "data": data, "model": request.get("model"), "usage": usage}, tokens)


def in_base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def need(request: Mapping[str, Any], name: str) -> Any:
    """A field that must be there and not be empty; Refuse with 400 otherwise, as OpenAI does."""
    value = request.get(name)
    if value is None or value == []:
        raise Refuse(400, f"Missing required parameter: '{name}'.", code="missing_required_parameter")
    return value


def is_stream(request: Mapping[str, Any]) -> bool:
    return bool(request.get("stream"))


def pieces(text: str | None) -> list[str]:
    """The text word by word, each with the space before it."""
    first, *others = (text or "").split(" ")
    return [piece for piece in (first, *(f" {word}" for word in others)) if piece]


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def usage_event(head: Mapping[str, Any], request: Mapping[str, Any], usage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The last event of a stream that asked for ``include_usage``."""
    asked = (request.get("stream_options") or {}).get("include_usage")
    return [{**head, "choices": [], "usage": usage}] if asked else []
