"""Control tokens, such as ``</s>`` and ``<|user|>``: in a row's text they are text, and in templates what they say.

What comes of a row is marked before it goes into a template; tokenizing then tells the two apart.
"""

from __future__ import annotations

import re
from typing import Any

START, END = "\U0010fffe", "\U0010ffff"
"""Around a control token that is text. No text has these: Unicode keeps them for programs' own use."""

MARKED = re.compile(f"{START}(.*?){END}", re.DOTALL)
SHAPED = re.compile(r"<\|.*\|>")
"""A token that is named so steers a model, whatever its tokenizer says of it."""


class Controls:
    """The control tokens of one tokenizer. ``are_allowed``: they are what they say in rows too."""

    def __init__(self, tokenizer: Any, *, are_allowed: bool = False) -> None:
        self._tokenizer = tokenizer
        names = [] if are_allowed else sorted(_names(tokenizer), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names))) if names else None
        self._ids = frozenset(tokenizer.convert_tokens_to_ids(names))

    def quoted(self, text: str) -> str:
        """A row's text with its control tokens marked as text; without any it is as it was."""
        if self._pattern is None:
            return text
        bare = text.replace(START, "").replace(END, "")
        return self._pattern.sub(f"{START}\\g<0>{END}", bare)

    def ids(self, text: str, *, with_ends: bool) -> list[int]:
        """Token ids; ``with_ends``: with what the tokenizer puts before and after any text."""
        if START not in text:
            return list(self._tokenizer(text, add_special_tokens=with_ends)["input_ids"])
        first, *rest = MARKED.split(text)
        found = self._plain(first)
        for number, piece in enumerate(rest):
            found += self._spelled(piece) if number % 2 == 0 else self._continued(piece)
        return self._with_ends(found) if with_ends else found

    def _plain(self, text: str, **options: Any) -> list[int]:
        bare = text.replace(START, "").replace(END, "")  # a template may have taken a mark from its other half
        return list(self._tokenizer(bare, add_special_tokens=False, **options)["input_ids"]) if bare else []

    def _continued(self, text: str, **options: Any) -> list[int]:
        """The ids of what follows other text: some tokenizers put a space before what begins."""
        before, ids = self._plain("\n"), self._plain(f"\n{text}", **options)
        return ids[len(before) :] if ids[: len(before)] == before else self._plain(text, **options)

    def _spelled(self, token: str) -> list[int]:
        """A control token's letters, each as often as needed on its own."""
        ids = self._continued(token, split_special_tokens=True)
        if len(token) == 1 or self._ids.isdisjoint(ids):
            return ids
        return self._spelled(token[0]) + self._spelled(token[1:])

    def _with_ends(self, ids: list[int]) -> list[int]:
        whole, bare = self._tokenizer("a")["input_ids"], self._plain("a")
        places = range(len(whole) - len(bare) + 1)
        start = next((place for place in places if whole[place : place + len(bare)] == bare), 0)
        return [*whole[:start], *ids, *whole[start + len(bare) :]]


def _names(tokenizer: Any) -> set[str]:
    """The added tokens that steer: those called special, those that the chat template writes, and those shaped so."""
    template = str(tokenizer.chat_template or "")
    return {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.content.strip() and (token.special or token.content in template or SHAPED.fullmatch(token.content))
    }
