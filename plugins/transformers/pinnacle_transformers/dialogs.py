"""Dialogs as token ids through a model's chat template, and which of them the assistant said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pinnacle import ConfigError

Message = Mapping[str, Any]
Span = tuple[int, int]
MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
"""How a chat template says that what follows is generated."""


class Dialogs:
    """Encodes dialogs with one tokenizer."""

    def __init__(self, tokenizer: Any, model: str) -> None:
        self._tokenizer, self._model = tokenizer, model

    def encode(self, messages: Sequence[Message], answer: Sequence[Message] | None) -> tuple[list[int], list[Span]]:
        """Token ids, and the spans (start, end) of what is learned: ``answer``, else every turn of the assistant.

        A turn ends with its end-of-turn token, so that the model learns to stop.
        """
        whole = [*messages, *(answer or ())]
        if not self._tokenizer.chat_template:
            raise ConfigError(
                f"model {self._model!r} has no chat template, which messages need: train on text, or give the model "
                "tokenizer_kwargs={'chat_template': ...}"
            )
        ids = self._ids(whole)
        if answer is not None:
            return ids, [(common_prefix(self.prompt(messages), ids), len(ids))]
        return ids, self._marked(whole, ids) or [
            self._turn(whole, position, ids) for position, turn in enumerate(whole) if turn["role"] == "assistant"
        ]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the assistant begins."""
        return self._ids(messages, add_generation_prompt=True) if messages else []

    def _turn(self, messages: Sequence[Message], position: int, ids: Sequence[int]) -> Span:
        start = common_prefix(self.prompt(messages[:position]), ids)
        until = self._ids(messages[: position + 1])
        end = len(ids) if position + 1 == len(messages) else common_prefix(until, ids)
        if self._tokenizer.eos_token_id in ids[start:end]:  # not the white space that follows it
            end = max(place for place in range(start, end) if ids[place] == self._tokenizer.eos_token_id) + 1
        if end <= start:
            raise ConfigError(
                f"the chat template of model {self._model!r} writes earlier turns otherwise once later ones follow, "
                "so that what the assistant said cannot be told from the rest; give it {% generation %} marks, or "
                "train on (prompt, completion)"
            )
        return start, end

    def _marked(self, messages: Sequence[Message], ids: Sequence[int]) -> list[Span]:
        """The spans that the template itself marks as generated, where it does."""
        if not MARK.search(str(self._tokenizer.chat_template)):
            return []
        encoded = self._tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        mask = encoded["assistant_masks"]
        edges = [i for i in range(len(mask) + 1) if (mask[i - 1] if i else 0) != (mask[i] if i < len(mask) else 0)]
        return list(zip(edges[::2], edges[1::2], strict=True))

    def _ids(self, messages: Sequence[Message], **options: Any) -> list[int]:
        text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def turns(value: Any, role: str) -> list[dict[str, Any]]:
    """A text as one turn of a dialog; messages with their content as text. ConfigError for what is no message."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    for message in value:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise ConfigError(f"a message is a dict with role and content, not {message!r}")
    return [{**message, "content": _text(message["content"])} for message in value]


def _text(content: Any) -> str:
    """What a message says: its parts of text joined, as OpenAI has them; nothing where its content is None."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise ConfigError(f"the content of a message is a text or a list of its parts, not {content!r}")
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise ConfigError(
                f"a message has a part of type {kind!r}, and only text is trained on, "
                "{'type': 'text', 'text': 'Hello'}; transform= can leave other parts out"
            )
    return "".join(part["text"] for part in content)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
