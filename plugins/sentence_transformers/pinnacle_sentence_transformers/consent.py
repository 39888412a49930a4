"""What the config files of a stored model may name: classes of the library and of torch, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinnacle import ModelUnavailable
from pinnacle.plugin import refuse_code

if TYPE_CHECKING:
    from pinnacle_sentence_transformers.model import SentenceTransformer

_LIBRARIES = ("sentence_transformers.", "torch.nn.")


def check_folder(model: SentenceTransformer, folder: Path) -> None:
    """ModelUnavailable for a class of elsewhere: the library imports the module that holds it."""
    for named in _classes_in(model, folder):
        if not str(named).startswith(_LIBRARIES):
            raise refuse_code(model, f"the class {named!r} in its config files")


def _classes_in(model: SentenceTransformer, folder: Path) -> Iterator[Any]:
    """What the library takes for paths of classes: of modules, of a router's parts, activations and tokenizers."""
    try:
        for path in sorted(folder.rglob("*.json")):
            if path.name in ("modules.json", "router_config.json", "config.json"):
                yield from _named(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"model {model.identifier!r}: its config files cannot be read: {error}") from error


def _named(config: Any) -> Iterator[Any]:
    for module in config if isinstance(config, list) else ():
        if isinstance(module, dict) and "type" in module:
            yield module["type"]
    if isinstance(config, dict):
        types = config.get("types")
        yield from types.values() if isinstance(types, dict) else ()
        yield from (config[name] for name in ("activation_function", "tokenizer_class") if _is_dotted(config.get(name)))


def _is_dotted(name: Any) -> bool:
    """Whether a name leads into a module; transformers' own config files have plain ones, which are its own."""
    return isinstance(name, str) and "." in name
