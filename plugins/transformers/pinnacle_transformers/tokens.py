"""Text to token ids and back, by a model's own tokenizer."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from pinnacle import ConfigError


class Tokens:
    """A tokenizer behind a lock: it keeps state, and is not for two threads at once."""

    def __init__(self, tokenizer: Any, model: str) -> None:
        self.tokenizer, self.model, self.lock = tokenizer, model, threading.RLock()

    @property
    def has_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @property
    def pad_id(self) -> int:
        """What fills rows up: it is masked, so that any token will do where the tokenizer has none for it."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(int(token) for token in known if token is not None)

    def encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """A string as it is, with what the tokenizer puts before any text; a dialog through the chat template.

        ConfigError for a dialog where there is no template.
        """
        with self.lock:
            if isinstance(prompt, str):
                ids = self.tokenizer(prompt)["input_ids"]
            else:
                ids = self.tokenizer(self._rendered(prompt), add_special_tokens=False)["input_ids"]
        return list(ids) or self._beginning()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special ones."""
        with self.lock:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def cut(self, text: str, tokens: int) -> str:
        """The longest beginning of ``text`` that is found to have at most ``tokens``, as `count` counts."""
        if not self.tokenizer.is_fast:
            return text[: bisect_right(range(len(text) + 1), tokens, key=lambda end: self.count(text[:end])) - 1]
        with self.lock:
            encoded = self.tokenizer(text, return_offsets_mapping=True)
        ends = [end for _, end in encoded["offset_mapping"][: max(0, tokens)]]
        # What is cut may be tokenized otherwise at its new end.
        while ends and self.count(text[: ends[-1]]) > tokens:
            ends.pop()
        return text[: ends[-1]] if ends else ""

    def _rendered(self, dialog: list[dict[str, Any]]) -> str:
        if not self.has_template:
            raise ConfigError(
                f"model {self.model!r} has no chat template, which the messages of a dialog need (also those of "
                "system_prompt= and examples=): pass text, or tokenizer_kwargs={'chat_template': ...}"
            )
        return str(self.tokenizer.apply_chat_template(dialog, add_generation_prompt=True, tokenize=False))

    def _beginning(self) -> list[int]:
        """Where an empty text begins: a model needs one token to go on from."""
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        token = next((token for token in known if token is not None), None)
        if token is None:
            raise ConfigError(
                f"model {self.model!r} cannot go on from an empty prompt: its tokenizer begins with nothing"
            )
        return [int(token)]
