"""Names that training arguments had in transformers 4 and early trl, and what they are now."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from pinnacle import ConfigError

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "xpu_backend": "ddp_backend",
    "torchdynamo": "torch_compile_backend",
    "push_to_hub_token": "hub_token",
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
    "max_seq_length": "max_length",
    "use_liger": "use_liger_kernel",
    "use_liger_loss": "use_liger_kernel",
}
"""The same argument under a newer name."""

OLDER = {new: old for old, new in RENAMED.items() if old.startswith("gradient_checkpointing")}
"""What releases of transformers that this plug-in runs with still call an argument."""

_MOVED = {
    "dispatch_batches": ("accelerator_config", "dispatch_batches"),
    "split_batches": ("accelerator_config", "split_batches"),
    "fsdp_min_num_params": ("fsdp_config", "min_num_params"),
    "fsdp_transformer_layer_cls_to_wrap": ("fsdp_config", "transformer_layer_cls_to_wrap"),
}
"""Arguments that are keys of a dict by now."""

_SWITCHES = {
    "adafactor": ("optim", "adafactor"),
    "group_by_length": ("train_sampling_strategy", "group_by_length"),
}
"""Flags that are now a value of another argument."""

_LISTED = {
    "include_inputs_for_metrics": ("include_for_metrics", "inputs"),
    "tpu_metrics_debug": ("debug", "tpu_metrics_debug"),
}
"""Flags that are now an item of a list."""

_AMP = ("auto", "amp", "cuda_amp", "cpu_amp")
_NO_LONGER: dict[str, tuple[tuple[Any, ...], str]] = {
    "logging_dir": ((), "TensorBoard's folder is what the environment variable TENSORBOARD_LOGGING_DIR names"),
    "save_safetensors": ((True,), "weights are always saved as safetensors"),
    "use_mps_device": ((True, False), "a device of Apple's is used where there is one"),
    "jit_mode_eval": ((False,), "evaluation is never compiled by TorchScript"),
    "use_ipex": ((False,), "Intel's extension of PyTorch is not used"),
    "fp16_opt_level": (("O1",), "mixed precision is PyTorch's own, which has no levels"),
    "fp16_backend": (_AMP, "mixed precision is PyTorch's own"),
    "half_precision_backend": (_AMP, "mixed precision is PyTorch's own"),
    "tpu_num_cores": ((), "whoever starts the processes decides on their number"),
    "past_index": ((-1,), "past states are not fed back to the model"),
    "sharded_ddp": (("", False, []), "sharded training is what fsdp= turns on"),
    "mp_parameters": (("",), "SageMaker's model parallelism is not used"),
    "ray_scope": (("last",), "no hyperparameters are searched here"),
    "use_legacy_prediction_loop": ((False,), "there is one evaluation loop"),
    "dataset_batch_size": ((1000,), "rows are tokenized in batches of the library's own size"),
    "num_of_sequences": ((1024,), "packing goes by max_length alone"),
    "chars_per_token": ((3.6,), "packing counts tokens"),
    "max_prompt_length": ((512,), "a prompt and its answer are cut together, to max_length"),
    "max_completion_length": ((), "a prompt and its answer are cut together, to max_length"),
    "generate_during_eval": ((False,), "nothing is generated while a training evaluates"),
}
"""Arguments without an effect: values that lose nothing by it, and what holds instead."""

_COUNTED = "include_num_input_tokens_seen"
_BEHIND = {
    **{old: new for old, (new, _) in _SWITCHES.items()},
    "warmup_ratio": "warmup_steps",
    "include_tokens_per_second": _COUNTED,
}
"""The argument that says it now, where it says more than that."""

_ALL_STEPS = math.nextafter(1.0, 0.0)
"""A warmup over all steps: what is under 1 is a share of them, and 1 is one step."""

_HUB_NAMES = ("push_to_hub_model_id", "push_to_hub_organization")
_BY_HAND = ("warmup_ratio", "include_tokens_per_second", *_HUB_NAMES)
OLD_NAMES = frozenset([*RENAMED, *_MOVED, *_SWITCHES, *_LISTED, *_NO_LONGER, *_BY_HAND])


def current(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Arguments under the names that they have now, and what the old ones ask for that will not happen.

    An old name with None is as if it were not given, as it was then. ConfigError where an old and a new name are
    both given and differ.
    """
    renaming = _Renaming(given)
    for name, value in given.items():
        if name in OLD_NAMES and value is not None:
            renaming.take(name, value)
    return renaming.arguments, renaming.told


def without(held: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of ``held``, arguments under the names of now, where ``changes``, under any, take their place.

    Of an argument that an old name says a part of, the rest stays. `current` puts both together.
    """
    left = dict(held)
    for name, value in changes.items():
        if name not in OLD_NAMES:
            left.pop(name, None)
        elif value is not None and name not in _NO_LONGER:
            _take_out(left, name, value, changes)
    return left


def _take_out(left: dict[str, Any], old: str, value: Any, changes: Mapping[str, Any]) -> None:
    if old in _MOVED:
        holder, key = _MOVED[old]
        if isinstance(known := left.get(holder), Mapping):
            left[holder] = {each: kept for each, kept in known.items() if each != key}
    elif old in _LISTED:
        holder, item = _LISTED[old]
        left[holder] = [each for each in _items(left.get(holder)) if each != item]
    elif old in _HUB_NAMES and "hub_model_id" in left:
        left.update({name: earlier(name, left.get) for name in _HUB_NAMES if name not in changes})
        left.pop("hub_model_id")
    elif old in RENAMED or (old in _BEHIND and value != earlier(old, left.get)):
        left.pop(RENAMED.get(old) or _BEHIND[old], None)
    if (holder := {**_MOVED, **_LISTED}.get(old, ("", ""))[0]) and not left.get(holder):
        left.pop(holder, None)


def earlier(old: str, read: Callable[[str], Any]) -> Any:
    """What an old name says, where ``read`` tells the arguments of now.

    AttributeError for one that has no effect any more, and for what a file says.
    """
    if old in _NO_LONGER:
        raise AttributeError(f"{old} has no effect any more: {_NO_LONGER[old][1]}")
    if old in _MOVED:
        holder, key = _MOVED[old]
        if isinstance(known := read(holder) or {}, str):
            raise AttributeError(f"{old} is now {key!r} of {holder}, which is the file {known!r}")
        return known.get(key, 0 if key == "min_num_params" else None)
    if old in _LISTED:
        holder, item = _LISTED[old]
        return item in _items(read(holder))
    if old in _HUB_NAMES:
        organization, _, name = (read("hub_model_id") or "").rpartition("/")
        return (name if old == "push_to_hub_model_id" else organization) or None
    said = read(RENAMED.get(old) or _BEHIND[old])
    if old == "warmup_ratio":
        return 0.0 if not said or said >= 1 else 1.0 if said == _ALL_STEPS else float(said)
    if old == "include_tokens_per_second":
        return said not in (None, False, "no")
    return said == _SWITCHES[old][1] if old in _SWITCHES else said


def _items(known: Any) -> list[Any]:
    return known.split() if isinstance(known, str) else list(known or [])


class _Renaming:
    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.arguments = {name: value for name, value in given.items() if name not in OLD_NAMES}
        self.told: list[str] = []
        self._sources: dict[str, str] = {}
        self._by_hand: dict[str, Callable[[str, Any], None]] = {
            "warmup_ratio": self._warmup,
            "include_tokens_per_second": self._tokens_per_second,
            **dict.fromkeys(_HUB_NAMES, self._hub_model),
        }

    def take(self, old: str, value: Any) -> None:
        if old in RENAMED:
            self._put(RENAMED[old], value, old)
        elif old in _MOVED:
            self._move(old, value)
        elif old in _SWITCHES:
            if _flag(old, value):
                self._put(*_SWITCHES[old], old)
        elif old in _LISTED:
            if _flag(old, value):
                self._list(old)
        elif old in _NO_LONGER:
            harmless, instead = _NO_LONGER[old]
            if not any(type(value) is type(each) and value == each for each in harmless):
                self.told.append(f"{old}={value!r} has no effect any more: {instead}.")
        else:
            self._by_hand[old](old, value)

    def _put(self, new: str, value: Any, old: str) -> None:
        if new in self.arguments and self.arguments[new] != value:
            raise ConfigError(
                f"{old} is now {self._sources.get(new, new)}, and both are given and differ; leave {old} out"
            )
        self.arguments[new] = value
        self._sources[new] = old

    def _move(self, old: str, value: Any) -> None:
        holder, key = _MOVED[old]
        known = self.arguments.get(holder) or {}
        if not isinstance(known, Mapping):
            raise ConfigError(f"{old} is now {key!r} of {holder}, which is {known!r} here; say it there")
        if old == "fsdp_transformer_layer_cls_to_wrap" and isinstance(value, str):
            value = [value]
        if key in known and known[key] != value:
            raise ConfigError(f"{old} is now {key!r} of {holder}, and both are given and differ; leave {old} out")
        self.arguments[holder] = {**known, key: value}

    def _list(self, old: str) -> None:
        holder, item = _LISTED[old]
        items = _items(self.arguments.get(holder))
        self.arguments[holder] = items if item in items else [*items, item]

    def _warmup(self, old: str, ratio: Any) -> None:
        if type(ratio) not in (int, float) or not 0 <= ratio <= 1:
            raise ConfigError(f"{old} is between 0 and 1, not {ratio!r}")
        steps = self.arguments.get("warmup_steps") or 0
        share = _ALL_STEPS if ratio == 1 else float(ratio)
        if steps in (0, share):
            self.arguments["warmup_steps"] = share
        elif share:
            raise ConfigError(f"{old}={ratio!r} and warmup_steps={steps!r} are both given; leave one of them out")

    def _tokens_per_second(self, old: str, value: Any) -> None:
        if _flag(old, value) and self.arguments.get(_COUNTED) in (None, False, "no"):
            self.arguments[_COUNTED] = "all"

    def _hub_model(self, old: str, value: Any) -> None:
        folder = os.path.basename(os.path.normpath(self.given.get("output_dir") or ""))
        name = self.given.get("push_to_hub_model_id") or folder
        organization = self.given.get("push_to_hub_organization")
        if name == ".":
            raise ConfigError(f"{old} needs a name beside it; pass hub_model_id={f'{organization}/NAME'!r} instead")
        self._put("hub_model_id", f"{organization}/{name}" if organization else name, old)


def _flag(old: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{old} is True or False, not {value!r}")
    return value
