"""The names of vLLM's sampling parameters, known also where vLLM is not installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

PARAMETERS = frozenset({
    "allowed_token_ids", "bad_words", "best_of", "detokenize", "extra_args", "frequency_penalty", "guided_decoding",
    "ignore_eos", "include_stop_str_in_output", "length_penalty", "logit_bias", "logprobs", "max_tokens", "min_p",
    "min_tokens", "n", "presence_penalty", "prompt_logprobs", "repetition_penalty", "seed", "skip_special_tokens",
    "spaces_between_special_tokens", "stop", "stop_token_ids", "structured_outputs", "temperature", "top_k", "top_p",
    "truncate_prompt_tokens", "use_beam_search",
})  # fmt: skip
"""The fields of SamplingParams in vLLM 0.6 to 0.11, and those of beam search; "stream" is none, answers come whole."""


def sorted_out(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The sampling parameters among some keywords, and the names of the others."""
    kept = {name: value for name, value in given.items() if name in PARAMETERS}
    return kept, [name for name in given if name not in PARAMETERS]


def near(names: Iterable[str]) -> str:
    """What may have been meant, as the end of a sentence; empty where nothing is near."""
    found = [match for name in names for match in get_close_matches(name, PARAMETERS, n=1, cutoff=0.6)]
    return f"; did you mean {' or '.join(f'{name}=' for name in found)}?" if found else ""
