"""Raw values of a row as the model's inputs: decoded, and where a path leads inside them, walked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pinnacle.backends.sql.columns import Encoder
from pinnacle.base.encoding import tag


class Undecoded:
    """A value in the form that its database writes it in, in the place of one that the driver could not make of it."""

    def __init__(self, text: str, error: Exception) -> None:
        self.text, self.error = text, error


class Patched(list[Any]):
    """Rows of which some hold an `Undecoded` value."""


def walker(decode: Encoder | None, steps: Sequence[str]) -> Encoder | None:
    """What decodes a value and walks on inside it."""
    if not steps:
        return decode
    return lambda value: walk(value if decode is None else decode(value), steps)


def walk(value: Any, steps: Sequence[str]) -> Any:
    """What is at a path inside decoded JSON; None where there is nothing."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def told(value: Any, steps: Sequence[str]) -> Any:
    """What stands for a value of SQLite where inputs are compared: the value itself, or what is at the path as text.

    Of JSON that cannot be read it is the whole.
    """
    if not steps or value is None:
        return value
    try:
        found = walk(json.loads(value) if isinstance(value, (str, bytes)) else value, steps)
        return None if found is None else json.dumps(found, separators=(",", ":"))
    except (ValueError, RecursionError):
        return f"!{tag(value)}"


def require_decoded(values: Sequence[Any]) -> None:
    """Raise what the driver raised on one of a row's values, if it did."""
    for value in values:
        if isinstance(value, Undecoded):
            raise value.error
