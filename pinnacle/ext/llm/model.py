"""Models that are trained, and what says how, by the import path of their own; resolved by `pinnacle.ext.llm`."""

from __future__ import annotations

from typing import Any

from pinnacle.ext import llm

_NAMES = ("LLM", "LLMTrainingConfiguration")

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'pinnacle.ext.llm.model' has no attribute {name!r}")
    return getattr(llm, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
