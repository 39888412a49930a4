"""What the config files of a stored model may name: classes of the library and of torch, files of its own folder, and
keywords that can run no code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pinnacle import ModelUnavailable
from pinnacle.plugin import refuse_code

if TYPE_CHECKING:
    from pinnacle_sentence_transformers.model import SentenceTransformer

_LIBRARIES = ("sentence_transformers.", "torch.nn.")
_PASSED_ON = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
"""What a module's config file has the library pass to transformers."""
_ELSEWHERE = ("tokenizer_name_or_path", "cache_dir", "backend")
_KEYWORDS = frozenset({
    "add_pooling_layer", "add_prefix_space", "attention_dropout", "attn_implementation", "cls_token", "do_lower_case",
    "dtype", "hidden_dropout", "low_cpu_mem_usage", "mask_token", "max_length", "max_pixels",
    "max_position_embeddings", "min_pixels", "model_max_length", "pad_token", "padding", "padding_side",
    "reference_compile", "revision", "rope_parameters", "rope_scaling", "rope_theta", "sep_token", "strip_accents",
    "tokenize_chinese_chars", "torch_dtype", "truncation", "truncation_side", "trust_remote_code", "unk_token",
    "use_cache", "use_fast",
})  # fmt: skip
"""Those that name no files and no code; ``trust_remote_code`` the library leaves out by itself."""


def check_folder(model: SentenceTransformer, folder: Path) -> None:
    """ModelUnavailable for what the library would import, run or read of elsewhere because a config file says so."""
    for name, config in _configs(model, folder):
        for asked in _keywords_asked(config) if name.startswith("sentence_") else _classes_asked(config):
            raise refuse_code(model, f"{asked} in its config files")


def _classes_asked(config: Any) -> Iterator[str]:
    yield from (f"the class {named!r}" for named in _classes(config) if not str(named).startswith(_LIBRARIES))


def _keywords_asked(config: Any) -> Iterator[str]:
    for keyword, value in _keywords(config):
        if keyword not in _KEYWORDS or (keyword == "attn_implementation" and "/" in str(value)):
            yield f"{keyword}={value!r}"


def is_within(path: Any) -> bool:
    """Whether a path in a config file stays in the folder of that file."""
    return isinstance(path, str) and not PurePosixPath(path).is_absolute() and ".." not in path and "\0" not in path


def _configs(model: SentenceTransformer, folder: Path) -> Iterator[tuple[str, Any]]:
    try:
        for path in sorted(folder.rglob("*.json")):
            if path.name in ("modules.json", "router_config.json", "config.json") or path.name.startswith("sentence_"):
                yield path.name, json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"model {model.identifier!r}: its config files cannot be read: {error}") from error


def _keywords(config: Any) -> Iterator[tuple[str, Any]]:
    """What goes on to transformers, or leads to other files."""
    if isinstance(config, dict):
        for name in _PASSED_ON:
            passed = config.get(name, {})
            yield from passed.items() if isinstance(passed, dict) else [(name, passed)]
        yield from ((name, config[name]) for name in _ELSEWHERE if name in config)


def _classes(config: Any) -> Iterator[Any]:
    """What the library takes for paths of classes: of modules, of a router's parts, activations and tokenizers."""
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
