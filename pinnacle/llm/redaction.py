"""Takes a key out of what is told of a failure, for some services repeat it; and tells what looks like one."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "[key]"
SHORTEST = 8
"""What is shorter is no secret, and could stand in any text."""

SECRET_WORDS = frozenset({
    "auth", "authorization", "apikey", "bearer", "cookie", "credential", "credentials", "jwt", "key", "pass", "passwd",
    "password", "secret", "sig", "signature", "token",
})  # fmt: skip
SECRET_VALUE = re.compile(r"(?i)^(bearer|basic|token)\s|^(sk|pk|gh[a-z]|xox[a-z]|hf|tok|glpat|AKIA|eyJ)[-_A-Z0-9]{8,}")
LONGEST_PLAIN = 24
"""A value that is longer and of one piece, letters and digits mixed, is taken for a secret too."""


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


def is_likely_secret(name: str, value: str) -> bool:
    """Whether a header's or a query's value may open a door, by its name or its look."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    if SECRET_WORDS.intersection(words) or SECRET_VALUE.search(value):
        return True
    pieces = re.findall(r"[A-Za-z0-9_+=-]+", value)
    return any(len(piece) > LONGEST_PLAIN and _is_mixed(piece) for piece in pieces)


def _is_mixed(piece: str) -> bool:
    return any(c.isdigit() for c in piece) and any(c.isalpha() for c in piece)
