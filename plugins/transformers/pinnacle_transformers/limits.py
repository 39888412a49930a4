"""Refuses a training configuration that cannot train, before anything is loaded for it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pinnacle import ConfigError, MissingPlugin
from pinnacle_transformers.arguments import METHODS, arguments_of

if TYPE_CHECKING:
    from pinnacle_transformers.configuration import LLMTrainingConfiguration

SFT_LOSSES = ("nll", "dft")
DPO_LOSSES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
"""trl looks at a loss's name when the first batch is there."""

_ELSEWHERE = {
    "dataset_text_field": ("text", "X= of fit() says which field is the text"),
    "dataset_kwargs": ({}, "LLM reads and tokenizes the rows itself, and transform= of fit() changes them"),
    "model_init_kwargs": ({}, "LLM(..., model_kwargs={...}) says how the model is loaded"),
    "trust_remote_code": (False, "LLM(..., model_kwargs={'trust_remote_code': True}) says it"),
}
"""Arguments for what trl is not left to do: the value that asks for nothing, and what is done instead."""

_REPORTERS = {
    "azure_ml": ("azureml-sdk", "azureml"),
    "comet_ml": ("comet-ml", "comet_ml"),
    "flyte": ("flytekit", "flytekit"),
    "kubeflow": (None, "the environment of a Kubeflow job"),
}
"""What is installed and imported where that is not called as in ``report_to``."""

_Claim = tuple[Callable[[Any], bool], str]
_AT_LEAST_1: _Claim = (lambda value: value >= 1, "at least 1")
_AT_LEAST_0: _Claim = (lambda value: value >= 0, "at least 0")
_OVER_0: _Claim = (lambda value: value > 0, "over 0")
_SHARE: _Claim = (lambda value: 0 <= value < 1, "at least 0 and under 1")
_PART: _Claim = (lambda value: 0 <= value <= 1, "between 0 and 1")
_LIMITS: dict[str, _Claim] = {
    "lora_r": _AT_LEAST_1,
    "lora_alpha": _OVER_0,
    "lora_dropout": _SHARE,
    "lora_bias": (lambda value: value in ("none", "all", "lora_only"), "'none', 'all' or 'lora_only'"),
    "max_length": _AT_LEAST_1,
    "bits": (lambda value: value in (4, 8), "4, 8 or None"),
    "method": (lambda value: value in METHODS, "'sft' or 'dpo'"),
    "beta": _OVER_0,
    "neftune_noise_alpha": _OVER_0,
    "early_stopping_patience": _AT_LEAST_1,
    "validation_fraction": _SHARE,
    "max_steps": (lambda value: value == -1 or value >= 1, "at least 1, or -1 for all of num_train_epochs"),
    "save_total_limit": _AT_LEAST_1,
    "save_steps": _OVER_0,
    "eval_steps": _OVER_0,
    "logging_steps": _OVER_0,
    "per_device_train_batch_size": _AT_LEAST_1,
    "per_device_eval_batch_size": _AT_LEAST_1,
    "gradient_accumulation_steps": _AT_LEAST_1,
    "num_train_epochs": _OVER_0,
    "learning_rate": _AT_LEAST_0,
    "weight_decay": _AT_LEAST_0,
    "max_grad_norm": _AT_LEAST_0,
    "adam_beta1": _SHARE,
    "adam_beta2": _SHARE,
    "label_smoothing_factor": _SHARE,
    "seed": (lambda value: 0 <= value < 2**32, "at least 0 and under 2**32"),
    "data_seed": _AT_LEAST_0,
    "warmup_steps": (lambda value: value >= 0, "a number of steps, or under 1 a share of them"),
    "adam_epsilon": _AT_LEAST_0,
    "router_aux_loss_coef": _AT_LEAST_0,
    "torch_empty_cache_steps": _AT_LEAST_1,
    "eval_delay": _AT_LEAST_0,
    "eval_accumulation_steps": _AT_LEAST_1,
    "dataloader_num_workers": _AT_LEAST_0,
    "dataloader_prefetch_factor": _AT_LEAST_1,
    "ddp_bucket_cap_mb": _AT_LEAST_1,
    "ddp_timeout": _AT_LEAST_1,
    "dataset_num_proc": _AT_LEAST_1,
    "pad_to_multiple_of": (lambda value: isinstance(value, str) or value >= 1, "at least 1"),
    "label_smoothing": _SHARE,
    "ld_alpha": _PART,
    "discopop_tau": _OVER_0,
    "precompute_ref_batch_size": _AT_LEAST_1,
    "ref_model_mixup_alpha": _PART,
    "ref_model_sync_steps": _AT_LEAST_1,
}
_MAY_BE_ENDLESS = {"max_grad_norm"}
"""Where infinity has a meaning: gradients are measured and not clipped."""


def check_limits(configuration: LLMTrainingConfiguration) -> None:
    """ConfigError naming the value, and what to do."""
    for name, value in configuration.given().items():
        is_fine = _is_finite(value) or (name in _MAY_BE_ENDLESS and value == math.inf)
        _require(is_fine, f"{name}={value!r} has a number that is not finite; give one that is, or leave it out")
        if name in _LIMITS and value is not None:
            holds, claim = _LIMITS[name]
            _require(holds(value), f"{name} is {claim}, not {value!r}")
    _check_method(configuration)
    _check_lora(configuration)
    _check_evaluation(configuration)


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def require_packages(arguments: Any) -> None:
    """MissingPlugin or ConfigError for a package that trl's arguments ask for, which it would look for later."""
    from transformers.utils.import_utils import is_liger_kernel_available

    if arguments.use_liger_kernel and not is_liger_kernel_available():
        raise MissingPlugin("liger-kernel", "liger-kernel>=0.3.0", purpose="use_liger_kernel=True")
    for name in arguments.report_to:
        _require_reporter(name)


def _require_reporter(name: str) -> None:
    from transformers.integrations import integration_utils

    library: Any = integration_utils
    known = library.INTEGRATION_TO_CALLBACK
    if name not in known:
        near = get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it is 'all', 'none' or of {', '.join(known)}"
        raise ConfigError(f"report_to={name!r} is unknown to transformers; {hint}")
    usable = {*library.get_available_reporting_integrations()}
    usable |= {"azure_ml"} if library.is_azureml_available() else set()
    usable |= {"flyte"} if library.is_flytekit_available() else set()
    if name in usable:
        return
    package, module = _REPORTERS.get(name, (name, name))
    if package is not None and importlib.util.find_spec(module) is None:
        raise MissingPlugin(package, package, purpose=f"report_to={name!r}")
    raise ConfigError(f"report_to={name!r} needs {module}, which is not set up here; set it up, or leave it out")


def _check_method(configuration: LLMTrainingConfiguration) -> None:
    method, given = configuration.method, configuration.given()
    for name in given:
        owners = [each for each in METHODS if name in arguments_of(each)]
        if owners and method not in owners:
            raise ConfigError(f"{name} is an argument of method={owners[0]!r}, and the method is {method!r}")
    for name, (nothing, instead) in _ELSEWHERE.items():
        value = given.get(name)
        _require(value in (None, nothing), f"{name}={value!r} has no effect: {instead}; leave it out")
    _check_loss(configuration)
    _require(
        not given.get("packing") or configuration.max_length is not None,
        "packing fills sequences up to max_length, which is None; give it a number",
    )


def _check_loss(configuration: LLMTrainingConfiguration) -> None:
    loss, method = configuration.arguments.get("loss_type"), configuration.method
    losses = loss if isinstance(loss, list) and method == "dpo" else [] if loss is None else [loss]
    known = DPO_LOSSES if method == "dpo" else SFT_LOSSES
    for each in losses:
        if method == "sft" and each in DPO_LOSSES:
            raise ConfigError(f"loss_type={each!r} is a loss of method='dpo', and the method is 'sft'")
        _require(each in known, f"loss_type is {_one_of(known)} where method={method!r}, not {each!r}")
    smoothing = configuration.arguments.get("label_smoothing", 0.0)
    _require("exo_pair" not in losses or smoothing > 0, "loss_type='exo_pair' needs label_smoothing=, such as 1e-3")
    _require(
        "robust" not in losses or 0 <= smoothing < 0.5,
        f"loss_type='robust' needs a label_smoothing under 0.5, not {smoothing!r}",
    )


def _check_lora(configuration: LLMTrainingConfiguration) -> None:
    targets = configuration.lora_target_modules
    are_names = isinstance(targets, list) and bool(targets) and all(isinstance(name, str) for name in targets)
    if targets is not None and not are_names and not (isinstance(targets, str) and targets):
        raise ConfigError(f"lora_target_modules is the name of layers, a list of names, or None, not {targets!r}")
    if configuration.bits is not None and not configuration.use_lora:
        raise ConfigError(
            f"bits={configuration.bits} with use_lora=False: quantized weights cannot be trained themselves; "
            "leave bits out, or train an adapter with use_lora=True"
        )


def _check_evaluation(configuration: LLMTrainingConfiguration) -> None:
    strategy = configuration.arguments.get("eval_strategy") or "no"
    _require(
        configuration.early_stopping_patience is None or strategy != "no",
        "early_stopping_patience= counts evaluations, and there are none; give eval_strategy= too",
    )


def _require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise ConfigError(otherwise)


def _one_of(names: Iterable[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}"
