"""The models that are timed; importable, so that any process can load them again."""

from __future__ import annotations

from pinnacle import model


@model
def word_count(body: str) -> int:
    return len(body.split())
