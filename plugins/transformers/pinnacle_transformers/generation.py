"""Generates text for many prompts at once, as each would come out alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from pinnacle import ConfigError
from pinnacle.plugin import Reply
from pinnacle_transformers.quiet import quiet
from pinnacle_transformers.tokens import Tokens

MAX_NEW_TOKENS = 256
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_COUNT_NGRAMS = ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size")
_PENALTIES = ("repetition_penalty", "encoder_repetition_penalty")
_ONE_TEXT = "predict gives one text for one prompt"
_REFUSED = {
    "max_length": "it counts the prompt too; pass max_new_tokens=",
    "min_length": "it counts the prompt too; pass min_new_tokens=",
    "num_return_sequences": _ONE_TEXT,
    "return_dict_in_generate": _ONE_TEXT,
    "output_scores": _ONE_TEXT,
    "output_logits": _ONE_TEXT,
    "output_attentions": _ONE_TEXT,
    "output_hidden_states": _ONE_TEXT,
}
_COUNTS = {"max_new_tokens": 1, "min_new_tokens": 0, "num_beams": 1}
_NOT_PARAMETERS = {"transformers_version", "is_assistant"}


def check_names(model: str, names: Sequence[str]) -> None:
    """ConfigError for a keyword that `generate` does not take, naming near ones, or that predict cannot serve."""
    for name in names:
        if name in _REFUSED:
            raise ConfigError(f"model {model!r} does not take {name}=: {_REFUSED[name]}")
        if name not in _known_names():
            near = get_close_matches(name, _known_names(), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(f'{known}=' for known in near)}?" if near else "see GenerationConfig."
            raise ConfigError(f"model {model!r} takes no {name}=, which is no parameter of generate(); {hint}")


def check_sampling(model: str, names: Iterable[str]) -> None:
    """ConfigError for a parameter of sampling where nothing says do_sample: it would have no effect."""
    if name := next((name for name in names if name in SAMPLING), None):
        raise ConfigError(f"model {model!r}: {name}= has no effect without do_sample=True; pass both")


def check_values(model: str, parameters: Mapping[str, Any]) -> None:
    """ConfigError for a count of tokens that `generate` cannot serve, naming it."""
    for name, least in _COUNTS.items():
        value = parameters.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError(f"model {model!r}: {name} is a whole number from {least}, not {value!r}")


def configured(recommended: Any, tokens: Tokens, parameters: Mapping[str, Any]) -> Any:
    """A GenerationConfig: the model's own, greedy unless ``do_sample`` says otherwise, and what was given.

    ConfigError for a parameter of sampling without ``do_sample=True``: it would have no effect.
    """
    check_names(tokens.model, list(parameters))
    check_values(tokens.model, parameters)
    config = copy.deepcopy(recommended)
    config.max_length = config.min_length = None
    config.max_new_tokens, config.do_sample = MAX_NEW_TOKENS, False
    if not parameters.get("do_sample"):
        check_sampling(tokens.model, [name for name, value in parameters.items() if value is not None])
        for name in SAMPLING:
            setattr(config, name, None)
    config.update(**parameters)
    if config.eos_token_id is None:
        config.eos_token_id = tokens.tokenizer.eos_token_id
    if config.pad_token_id is None:
        config.pad_token_id = tokens.pad_id
    return config


def generate(model: Any, tokens: Tokens, rows: Sequence[list[int]], config: Any, *, at_once: int) -> list[Reply]:
    """Replies to token ids, in order: generated in batches of rows of like length, padded on the left.

    Each row ends where it would end alone. Half precision, 8 bits and sampling make no promise of
    equal outputs: there a batch is another computation than a single row.
    """
    replies: dict[int, Reply] = {}
    at_once = 1 if config.prompt_lookup_num_tokens else at_once  # the library looks up for one row only
    for positions in _batches([len(row) for row in rows], at_once, alike=_reads_padding(config)):
        answers = _generated(model, tokens, [rows[i] for i in positions], config)
        replies.update(zip(positions, answers, strict=True))
    return [replies[position] for position in range(len(rows))]


def _batches(lengths: Sequence[int], at_once: int, *, alike: bool) -> Iterator[list[int]]:
    """Positions, the longest first: what does not fit into memory fails at once. ``alike``: of equal length only."""
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == at_once or (alike and lengths[position] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def _generated(model: Any, tokens: Tokens, rows: Sequence[list[int]], config: Any) -> list[Reply]:
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), config.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row)
        mask[number, width - len(row) :] = 1
    options = {"tokenizer": tokens.tokenizer} if config.stop_strings else {}
    with quiet():
        written = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config, **options
        )
    new = written[:, width:].tolist()
    return [_reply(tokens, len(row), answer, config) for row, answer in zip(rows, new, strict=True)]


def _reply(tokens: Tokens, read: int, written: list[int], config: Any) -> Reply:
    """The text up to where this row ended; what follows fills it up to the longest of its batch."""
    eos = config.eos_token_id
    ends = set(eos) if isinstance(eos, (list, tuple)) else {eos}
    end = next((number for number, token in enumerate(written, 1) if token in ends), None)
    if end is None:
        end = len(written)
        while end and written[end - 1] == config.pad_token_id:
            end -= 1
    is_cut = end == config.max_new_tokens and written[end - 1] not in ends
    return Reply(tokens.decode(written[:end]), read, end, "length" if is_cut else "stop")


def _reads_padding(config: Any) -> bool:
    """Whether a parameter looks at the prompt's tokens, and would take padding for some of them."""
    is_penalized = any(getattr(config, name, None) not in (None, 1.0) for name in _PENALTIES)
    return is_penalized or any(getattr(config, name, None) for name in _COUNT_NGRAMS)


@cache
def _known_names() -> frozenset[str]:
    from transformers import GenerationConfig

    library: Any = GenerationConfig
    names = {name for name in library().to_dict() if not name.startswith("_")}
    return frozenset(names - _NOT_PARAMETERS - _REFUSED.keys())
