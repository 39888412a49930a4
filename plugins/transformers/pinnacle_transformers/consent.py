"""What a stored model may ask of transformers without consent of the process: keywords that can run no code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pinnacle.plugin import Artifact, may_run_code, refuse_code

if TYPE_CHECKING:
    from pinnacle_transformers.configuration import LLMTrainingConfiguration
    from pinnacle_transformers.model import LLM

MODEL_KEYWORDS = frozenset({
    "attention_bias", "attention_dropout", "attn_implementation", "device_map", "dtype", "hidden_dropout",
    "local_files_only", "low_cpu_mem_usage", "max_memory", "max_position_embeddings", "quantization_config", "revision",
    "rope_parameters", "rope_scaling", "rope_theta", "sliding_window", "tie_word_embeddings", "torch_dtype",
    "trust_remote_code", "use_cache", "use_safetensors", "variant",
})  # fmt: skip
TOKENIZER_KEYWORDS = frozenset({
    "add_bos_token", "add_eos_token", "add_prefix_space", "add_special_tokens", "additional_special_tokens",
    "bos_token", "chat_template", "clean_up_tokenization_spaces", "cls_token", "do_lower_case", "eos_token",
    "extra_special_tokens", "fix_mistral_regex", "legacy", "local_files_only", "mask_token", "model_max_length",
    "pad_token", "padding_side", "revision", "sep_token", "spaces_between_special_tokens", "split_special_tokens",
    "strip_accents", "tokenize_chinese_chars", "truncation_side", "trust_remote_code", "unk_token", "use_fast",
})  # fmt: skip


_ARGUMENTS = frozenset({
    "accelerator_config", "deepspeed", "fsdp", "fsdp_config", "hub_model_id", "liger_kernel_config",
    "parallelism_config", "project", "push_to_hub", "report_to", "torch_compile", "torch_compile_backend",
    "trackio_bucket_id", "trackio_space_id", "trackio_static_space_id", "use_liger_kernel",
})  # fmt: skip
"""What of a training imports packages by name, reads files, or sends weights and metrics away."""


def check_configuration(configuration: LLMTrainingConfiguration) -> None:
    """ModelUnavailable where a stored configuration asks for more than to train."""
    if may_run_code(configuration):
        return
    given = {**configuration.arguments, **configuration.display}
    if asked := sorted(given.keys() & _ARGUMENTS):
        raise refuse_code(configuration, f"{asked[0]}={given[asked[0]]!r}")
    if configuration.overwrite_output_dir:  # which deletes what is in there
        raise refuse_code(configuration, f"overwrite_output_dir=True in {configuration.output_dir!r}")


def consented(model: LLM, name: str, allowed: Collection[str], files: Mapping[str, Artifact] | None) -> dict[str, Any]:
    """The keywords in a field of the model. ModelUnavailable where one of them can run code, and the model is stored,
    or was made here and is to run the code of ``files`` that came from a database."""
    options: dict[str, Any] = dict(getattr(model, name))
    is_stored = not all(file.may_be_code for file in (files or {}).values())
    if is_stored or not may_run_code(model):
        for keyword, value in options.items():
            if keyword not in allowed or _runs_code(keyword, value):
                raise refuse_code(model, f"{name} {keyword}={value!r}")
    return options


def _runs_code(keyword: str, value: Any) -> bool:
    """Whether a keyword that is harmless otherwise runs code by its value."""
    if keyword == "trust_remote_code":
        return value not in (False, None)
    if keyword == "use_safetensors":  # else weights may be pickles
        return value not in (True, None)
    # A name with a slash is a kernel of the hub: compiled code.
    return keyword == "attn_implementation" and "/" in str(value)
