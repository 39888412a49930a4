"""Dialogs as token ids through a model's chat template, and which of them the assistant said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pinnacle import ConfigError
from pinnacle_transformers.controls import START, Controls

Message = Mapping[str, Any]
Span = tuple[int, int]
MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
"""How a chat template says that what follows is generated."""
OBJECTS = re.compile(r"\s*\[\s*\{")
"""How a JSON list of objects begins."""


class Dialogs:
    """Encodes dialogs with one tokenizer."""

    def __init__(self, tokenizer: Any, model: str, controls: Controls, *, learns_prompt: bool = False) -> None:
        self._tokenizer, self._model, self._learns_prompt = tokenizer, model, learns_prompt
        self._controls = controls

    def encode(self, messages: Sequence[Message], answer: Sequence[Message] | None) -> tuple[list[int], list[Span]]:
        """Token ids, and the spans (start, end) of what is learned: ``answer``, else every turn of the assistant; with
        ``learns_prompt`` everything.

        A turn ends with its end-of-turn token, so that the model learns to stop. A turn of the assistant without text
        is not learned: it would teach to say nothing.
        """
        whole = [*messages, *(answer or ())]
        if not self._tokenizer.chat_template:
            raise ConfigError(
                f"model {self._model!r} has no chat template, which messages need: train on text, or give the model "
                "tokenizer_kwargs={'chat_template': ...}"
            )
        ids = self._ids(whole)
        silent = [place for place, turn in enumerate(whole) if turn["role"] == "assistant" and not is_said(turn)]
        if self._learns_prompt:
            return ids, self._without(silent, whole, ids, 0)
        if answer is not None:
            silent = [place for place in silent if place >= len(messages)]
            return ids, self._without(silent, whole, ids, common_prefix(self.prompt(messages), ids))
        if marked := self._marked(whole):
            return ids, self._said_of(marked, silent, whole)
        return ids, [self._said(whole, place, ids) for place, turn in enumerate(whole) if is_said(turn)]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the assistant begins."""
        return self._ids(messages, add_generation_prompt=True) if messages else []

    def _said(self, messages: Sequence[Message], place: int, ids: Sequence[int]) -> Span:
        start, end = self._turn(messages, place, ids)
        if end <= start:
            raise ConfigError(
                f"the chat template of model {self._model!r} writes earlier turns otherwise once later ones follow, "
                "so that what the assistant said cannot be told from the rest; give it {% generation %} marks, or "
                "train on (prompt, completion)"
            )
        return start, end

    def _turn(self, messages: Sequence[Message], place: int, ids: Sequence[int]) -> Span:
        """Where a turn is; of no length where that cannot be told."""
        start = common_prefix(self.prompt(messages[:place]), ids)
        until = self._ids(messages[: place + 1])
        end = len(ids) if place + 1 == len(messages) else common_prefix(until, ids)
        if self._tokenizer.eos_token_id in ids[start:end]:  # not the white space that follows it
            end = max(place for place in range(start, end) if ids[place] == self._tokenizer.eos_token_id) + 1
        return start, max(start, end)

    def _without(self, silent: Sequence[int], messages: Sequence[Message], ids: list[int], start: int) -> list[Span]:
        """All from ``start`` on but the silent turns."""
        edges = [start, *(edge for place in silent for edge in self._turn(messages, place, ids)), len(ids)]
        return [(left, right) for left, right in zip(edges[::2], edges[1::2], strict=True) if left < right]

    def _said_of(self, marked: Sequence[Span], silent: Sequence[int], messages: Sequence[Message]) -> list[Span]:
        """The marked spans but those of silent turns: what is marked with a turn and not before is its own."""
        left_out: set[int] = set()
        for place in silent:
            left_out |= {*range(len(self._marked(messages[:place])), len(self._marked(messages[: place + 1])))}
        return [span for number, span in enumerate(marked) if number not in left_out]

    def _marked(self, messages: Sequence[Message]) -> list[Span]:
        """The spans that the template itself marks as generated, where it does; the library finds them only where no
        control token is text."""
        is_quoted = any(START in turn["content"] for turn in messages)
        if not messages or is_quoted or not MARK.search(str(self._tokenizer.chat_template)):
            return []
        encoded = self._tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        mask = encoded["assistant_masks"]
        edges = [i for i in range(len(mask) + 1) if (mask[i - 1] if i else 0) != (mask[i] if i < len(mask) else 0)]
        return list(zip(edges[::2], edges[1::2], strict=True))

    def _ids(self, messages: Sequence[Message], **options: Any) -> list[int]:
        text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        return self._controls.ids(text, with_ends=False)


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


def is_written_dialog(text: str) -> bool:
    """Whether a text is messages as JSON, as a text column keeps them."""
    if not OBJECTS.match(text):
        return False
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return all(isinstance(message, dict) and {"role", "content"} <= set(message) for message in messages)


def is_said(turn: Message) -> bool:
    """Whether it is a turn in which the assistant says something."""
    return bool(turn["role"] == "assistant" and turn["content"].strip())


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
