"""Prompt templates: literal text with named places, filled with values that are never looked into."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any

from pinnacle.base.errors import ConfigError

INPUT, CONTEXT = "input", "context"


class Template:
    """Text with places such as ``{input}``; ``{{`` and ``}}`` are literal braces.

    Places are plain names: a template cannot reach into the values that fill it, and
    braces in these stay as they are. ConfigError for anything else, or without ``{input}``.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigError(f"prompt_template is text with {{input}} in it, not {text!r}")
        self.text = text
        self._parts = _parse(text)
        self.names = frozenset(name for _, name in self._parts if name is not None)
        if INPUT not in self.names:
            raise ConfigError(f"prompt_template {text!r} has no {{input}}, the place where the input goes")

    @property
    def is_plain(self) -> bool:
        """Whether the input alone is the prompt."""
        return self._parts == [("", INPUT)]

    def fill(self, values: Mapping[str, Any]) -> str:
        """The prompt; ConfigError for a place that ``values`` does not fill."""
        if missing := sorted(self.names - values.keys()):
            raise ConfigError(
                f"prompt_template {self.text!r} has {{{missing[0]}}}, and nothing was given for it: "
                f"pass {missing[0]}=, or the field as X={{'input': ..., {missing[0]!r}: ...}}"
            )
        return "".join(literal + ("" if name is None else shown(values[name])) for literal, name in self._parts)


def shown(value: Any) -> str:
    """A value as a prompt shows it: text as it is, lists, objects and booleans as JSON."""
    if isinstance(value, (dict, list, tuple, bool)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _parse(text: str) -> list[tuple[str, str | None]]:
    """Pairs of literal text and the place after it."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"prompt_template {text!r}: {error}; write {{{{ and }}}} for braces themselves") from error
    parts: list[tuple[str, str | None]] = []
    for literal, name, spec, conversion in parsed:
        if name is not None and (not name.isidentifier() or spec or conversion):
            shown = f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
            raise ConfigError(
                f"prompt_template {text!r} has {shown}; a place is a plain name such as {{input}}, "
                "and {{ and }} are braces themselves"
            )
        parts.append((literal, name))
    return parts
