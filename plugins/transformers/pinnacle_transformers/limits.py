"""Refuses a training configuration that cannot train, before anything is loaded for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pinnacle import ConfigError
from pinnacle_transformers.arguments import METHODS, arguments_of

if TYPE_CHECKING:
    from pinnacle_transformers.configuration import LLMTrainingConfiguration

SFT_LOSSES = ("nll", "dft")
DPO_LOSSES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
"""trl looks at a loss's name when the first batch is there."""

_ONE_METHODS_OWN = {"packing": "sft", "completion_only_loss": "sft", "beta": "dpo"}

_Claim = tuple[Callable[[Any], bool], str]
_AT_LEAST_1: _Claim = (lambda value: value >= 1, "at least 1")
_AT_LEAST_0: _Claim = (lambda value: value >= 0, "at least 0")
_OVER_0: _Claim = (lambda value: value > 0, "over 0")
_SHARE: _Claim = (lambda value: 0 <= value < 1, "at least 0 and under 1")
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
    "seed": _AT_LEAST_0,
    "data_seed": _AT_LEAST_0,
}


def check_limits(configuration: LLMTrainingConfiguration) -> None:
    """ConfigError naming the configuration, the value, and what to do."""
    try:
        for name, value in configuration.given().items():
            if name in _LIMITS and value is not None:
                holds, claim = _LIMITS[name]
                _require(holds(value), f"{name} is {claim}, not {value!r}")
        _check_method(configuration)
        _check_lora(configuration)
        _check_evaluation(configuration)
    except ConfigError as error:
        raise ConfigError(f"{configuration.kind} {configuration.identifier!r}: {error}") from None


def _check_method(configuration: LLMTrainingConfiguration) -> None:
    method, given = configuration.method, configuration.given()
    for name in given:
        owners = [each for each in METHODS if name in arguments_of(each)]
        owners = [_ONE_METHODS_OWN[name]] if name in _ONE_METHODS_OWN else owners
        if owners and method not in owners:
            raise ConfigError(f"{name} is an argument of method={owners[0]!r}, and the method is {method!r}")
    _check_loss(configuration)
    _require(
        not configuration.packing or configuration.max_length is not None,
        "packing fills sequences up to max_length, which is None; give it a number",
    )


def _check_loss(configuration: LLMTrainingConfiguration) -> None:
    loss, method = configuration.loss_type, configuration.method
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
