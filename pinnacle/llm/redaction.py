"""Takes a key out of what is told of a failure: some services repeat the key that they refuse."""

from __future__ import annotations

from typing import Any

HIDDEN = "[key]"
SHORTEST = 8
"""What is shorter is no secret, and could stand in any text."""


def hide(error: BaseException, secret: str | None) -> None:
    """Replace ``secret`` in an error's message and fields, and in those of the errors that it came from."""
    if secret is None or len(secret) < SHORTEST:
        return
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.args = tuple(without(item, secret) for item in current.args)
        for name, value in list(vars(current).items()):
            if (hidden := without(value, secret)) is not value:
                setattr(current, name, hidden)
        waiting += [current.__cause__, current.__context__]


def without(value: Any, secret: str) -> Any:
    """Text, and plain lists and dicts of it, without the secret; the same object where it is not in there."""
    if isinstance(value, str):
        return value.replace(secret, HIDDEN) if secret in value else value
    if type(value) is list and secret in repr(value):
        return [without(item, secret) for item in value]
    if type(value) is dict and secret in repr(value):
        return {name: without(item, secret) for name, item in value.items()}
    return value
