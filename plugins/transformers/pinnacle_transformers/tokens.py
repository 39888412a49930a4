"""Text to token ids and back, by a model's own tokenizer."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from pinnacle import ConfigError, ModelUnavailable
from pinnacle_transformers.controls import Controls


class Tokens:
    """A tokenizer behind a lock: it keeps state, and is not for two threads at once."""

    def __init__(self, tokenizer: Any, model: str, *, allows_controls: bool = False) -> None:
        self.tokenizer, self.model, self.lock = tokenizer, model, threading.RLock()
        self._controls = Controls(tokenizer, are_allowed=allows_controls)

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
            is_text = isinstance(prompt, str)
            ids = self._controls.ids(prompt if isinstance(prompt, str) else self._rendered(prompt), with_ends=is_text)
        return ids or self._beginning()

    def quoted(self, text: str) -> str:
        """A row's text, in which control tokens are marked as text."""
        return self._controls.quoted(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special ones."""
        with self.lock:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def count(self, text: str) -> int:
        return len(self.encode(self.quoted(text)))

    def cut(self, text: str, tokens: int) -> str:
        """The longest beginning of ``text`` that is found to have at most ``tokens``, as `count` counts."""
        if not self.tokenizer.is_fast or self.quoted(text) != text:
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


def check_tokens(tokenizer: Any, weights: Any, ends: Any, model: str) -> None:
    """ModelUnavailable for a tokenizer that does not go with the weights, or with which nothing ends.

    ``ends``: the weights' own generation config. A token without a row in the embedding fails deep in the library, on
    a GPU for the whole process.
    """
    rows = weights.get_input_embeddings().weight.shape[0]
    lacking = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if lacking:
        token = min(lacking, key=lambda name: lacking[name])
        raise ModelUnavailable(
            f"model {model!r}: its tokenizer has {len(lacking)} tokens that its weights lack ({token!r} is number "
            f"{lacking[token]}, and the embedding has {rows} rows). Use the tokenizer that belongs to the weights, or "
            "give these rows for them and save both: model.resize_token_embeddings(len(tokenizer))"
        )
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, ends and ends.eos_token_id, ends and ends.pad_token_id)
    if all(token is None for token in known):
        raise ModelUnavailable(
            f"model {model!r}: its tokenizer has no token to end with and none to fill rows up with; say which they "
            "are: tokenizer_kwargs={'eos_token': ..., 'pad_token': ...}"
        )
