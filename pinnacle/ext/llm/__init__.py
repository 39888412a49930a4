"""Every language model class under one import path; those of plug-ins resolve when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pinnacle.base.errors import MissingPlugin

if TYPE_CHECKING:
    from pinnacle.llm.base import BaseLLMAPI as BaseLLMAPI
    from pinnacle.llm.base import BaseLLMModel as BaseLLMModel
    from pinnacle.llm.embeddings import EmbedModel as EmbedModel
    from pinnacle.llm.embeddings import cos_sim as cos_sim

_OWN = {
    "BaseLLMAPI": "pinnacle.llm.base",
    "BaseLLMModel": "pinnacle.llm.base",
    "EmbedModel": "pinnacle.llm.embeddings",
    "cos_sim": "pinnacle.llm.embeddings",
}
_PLUGINS = {
    "OpenAI": ("pinnacle_openai", "openai", "pinnacle-openai"),
    "OpenAIEmbedding": ("pinnacle_openai", "openai", "pinnacle-openai"),
    "LLM": ("pinnacle_transformers", "transformers", "pinnacle-transformers"),
    "LLMTrainingConfiguration": ("pinnacle_transformers", "transformers", "pinnacle-transformers"),
    "VllmModel": ("pinnacle_vllm", "vllm", "pinnacle-vllm"),
    "VllmAPI": ("pinnacle_vllm", "vllm", "pinnacle-vllm"),
}
"""Where a class is, the third-party package it is for, and what installs it."""

__all__ = sorted([*_OWN, *_PLUGINS])


def __getattr__(name: str) -> Any:
    if name in _OWN:
        value = getattr(importlib.import_module(_OWN[name]), name)
    elif name in _PLUGINS:
        value = _from_plugin(name)
    else:
        raise AttributeError(f"module 'pinnacle.ext.llm' has no attribute {name!r}")
    globals()[name] = value
    return value


def _from_plugin(name: str) -> Any:
    module, package, install = _PLUGINS[name]
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingPlugin(package, install, purpose=name) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
