"""The models that are timed; importable, so that any process can load them again."""

from __future__ import annotations

from pinnacle import model


class Counted:
    """How many rows this process has computed with `word_count_counted`."""

    calls = 0


counted = Counted()


@model
def word_count(body: str) -> int:
    return len(body.split())


@model
def word_count_counted(body: str) -> int:
    counted.calls += 1
    return len(body.split())
