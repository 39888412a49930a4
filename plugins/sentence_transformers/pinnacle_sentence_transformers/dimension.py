"""Reads an embedding's size from a model folder's config files, without loading its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pinnacle_sentence_transformers.consent import is_within

_CHANGES_NOTHING = ("Normalize", "Dropout", "LayerNorm")
_POOLING_FLAGS = "pooling_mode_"


def dimension_of(folder: Path) -> int | None:
    """The size of what the folder's modules give, in order; None where a module is not known here, or a file is none
    that the library writes."""
    try:
        return _dimension(folder) if (folder / "modules.json").is_file() else None
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
        return None


def _dimension(folder: Path) -> int | None:
    size: int | None = None
    for module in _read(folder / "modules.json"):
        kind = str(module["type"]).rpartition(".")[2]
        if kind in _CHANGES_NOTHING:
            continue
        if kind not in _SIZES or not is_within(module["path"]):
            return None
        config = folder / module["path"] / "config.json"
        if not config.is_file():
            return None
        size = _SIZES[kind](_read(config))
    return size


def _pooled(config: dict[str, Any]) -> int | None:
    """Pooling modes are set side by side; older files flag them, newer ones name them."""
    size = config.get("embedding_dimension", config.get("word_embedding_dimension"))
    named = config.get("pooling_mode")
    if named is None:
        modes = sum(bool(on) for name, on in config.items() if name.startswith(_POOLING_FLAGS))
    else:
        modes = 1 if isinstance(named, str) else len(named)
    return int(size) * (modes or 1) if size else None


_SIZES: dict[str, Callable[[dict[str, Any]], int | None]] = {
    "Transformer": lambda config: config.get("hidden_size"),
    "Pooling": _pooled,
    "Dense": lambda config: config.get("out_features"),
}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
