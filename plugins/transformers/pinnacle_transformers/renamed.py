"""Names that training arguments had in transformers 4 and early trl, and what they are now: the table `OLD_NAMES`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pinnacle import ConfigError

ALL_STEPS = math.nextafter(1.0, 0.0)
"""A warmup over all steps: what is under 1 is a share of them, and 1 is one step."""


def current(given: Mapping[str, Any], held: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """``held`` with what is ``given`` in its place, under the names of now, and what old names ask for in vain.

    An old name that says a part of an argument leaves the rest of it as it is held. An old name with None is as if it
    were not given, as it was then. ConfigError where an old and a new name are both given and differ.
    """
    taken = _Taken(given, held)
    for name, value in given.items():
        if name in OLD_NAMES and value is not None:
            OLD_NAMES[name].take(name, value, taken)
    return taken.arguments, taken.told


class _Taken:
    """The arguments so far; ``said`` are those that this call itself gives, with the name that each was given by."""

    def __init__(self, given: Mapping[str, Any], held: Mapping[str, Any]) -> None:
        new = {name: value for name, value in given.items() if name not in OLD_NAMES}
        self.given = given
        self.arguments = {**held, **new}
        self.said = {name: name for name in new}
        self.told: list[str] = []

    def put(self, new: str, value: Any, old: str) -> None:
        if new in self.said and self.arguments[new] != value:
            raise ConfigError(f"{old} is now {self.said[new]}, and both are given and differ; leave {old} out")
        self.arguments[new] = value
        self.said.setdefault(new, old)

    def drop(self, new: str) -> None:
        """Take out what is held; what is given stays."""
        if new not in self.said:
            self.arguments.pop(new, None)


class OldName(Protocol):
    """What became of an argument."""

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        """Say under the names of now what ``old=value`` says; ConfigError where that cannot be."""


@dataclass(frozen=True)
class Renamed:
    """The same argument under a newer name."""

    new: str

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        taken.put(self.new, value, old)


@dataclass(frozen=True)
class KeyOf:
    """A key of an argument that is a dict."""

    holder: str
    key: str

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        known = taken.arguments.get(self.holder) or {}
        if not isinstance(known, Mapping):
            raise ConfigError(f"{old} is now {self.key!r} of {self.holder}, which is {known!r} here; say it there")
        if self.key == "transformer_layer_cls_to_wrap" and isinstance(value, str):
            value = [value]
        if taken.said.get(self.holder) == self.holder and known.get(self.key, value) != value:
            raise ConfigError(
                f"{old} is now {self.key!r} of {self.holder}, and both are given and differ; leave {old} out"
            )
        taken.arguments[self.holder] = {**known, self.key: value}


@dataclass(frozen=True)
class ValueOf:
    """A flag that is now a value of another argument; False takes that value out."""

    new: str
    value: str

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        if _flag(old, value):
            taken.put(self.new, self.value, old)
        elif taken.arguments.get(self.new) == self.value:
            taken.drop(self.new)


@dataclass(frozen=True)
class ItemOf:
    """A flag that is now an item of a list; False takes it out of what is held."""

    holder: str
    item: str

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        known = taken.arguments.get(self.holder) or []
        items = known.split() if isinstance(known, str) else list(known)
        if _flag(old, value):
            taken.arguments[self.holder] = items if self.item in items else [*items, self.item]
        elif items == [self.item]:
            taken.drop(self.holder)
        elif self.item in items and self.holder not in taken.said:
            taken.arguments[self.holder] = [each for each in items if each != self.item]


@dataclass(frozen=True)
class WarmupShare:
    """A share of all steps, which ``warmup_steps`` takes by now; 0 says nothing beside a number of steps."""

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ConfigError(f"{old} is between 0 and 1, not {value!r}")
        share, steps = ALL_STEPS if value == 1 else float(value), taken.arguments.get("warmup_steps") or 0
        is_said = "warmup_steps" in taken.said
        if share and is_said and steps not in (0, share):
            raise ConfigError(f"{old}={value!r} and warmup_steps={steps!r} are both given; leave one of them out")
        if share or (steps < 1 and not is_said):
            taken.arguments["warmup_steps"] = share


@dataclass(frozen=True)
class TokensCounted:
    """A flag behind which all tokens are counted, unless it is said which."""

    new: str

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        is_counted = taken.arguments.get(self.new) not in (None, False, "no")
        if _flag(old, value) and not is_counted:
            taken.put(self.new, "all", old)
        elif not value:
            taken.drop(self.new)


@dataclass(frozen=True)
class HubName:
    """A part of ``hub_model_id``, "organization/name"; the name is the output folder's where none is given."""

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        organization, _, name = (taken.arguments.get("hub_model_id") or "").rpartition("/")
        organization = taken.given.get("push_to_hub_organization") or organization
        folder = os.path.basename(os.path.normpath(taken.arguments.get("output_dir") or ""))
        name = taken.given.get("push_to_hub_model_id") or name or folder
        if name == ".":
            raise ConfigError(f"{old} needs a name beside it; pass hub_model_id={f'{organization}/NAME'!r} instead")
        taken.put("hub_model_id", f"{organization}/{name}" if organization else name, old)


@dataclass(frozen=True)
class Gone:
    """An argument without an effect: values that lose nothing by it, and what holds instead."""

    harmless: tuple[Any, ...]
    instead: str

    def take(self, old: str, value: Any, taken: _Taken) -> None:
        if not any(type(value) is type(each) and value == each for each in self.harmless):
            taken.told.append(f"{old}={value!r} has no effect any more: {self.instead}.")


def _flag(old: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{old} is True or False, not {value!r}")
    return value


_AMP = ("auto", "amp", "cuda_amp", "cpu_amp")
_CUT = "a prompt and its answer are cut together, to max_length"

OLD_NAMES: Mapping[str, OldName] = {
    "evaluation_strategy": Renamed("eval_strategy"),
    "per_gpu_train_batch_size": Renamed("per_device_train_batch_size"),
    "per_gpu_eval_batch_size": Renamed("per_device_eval_batch_size"),
    "no_cuda": Renamed("use_cpu"),
    "xpu_backend": Renamed("ddp_backend"),
    "torchdynamo": Renamed("torch_compile_backend"),
    "push_to_hub_token": Renamed("hub_token"),
    "gradient_checkpointing": Renamed("activation_checkpointing"),
    "gradient_checkpointing_kwargs": Renamed("activation_checkpointing_kwargs"),
    "max_seq_length": Renamed("max_length"),
    "use_liger": Renamed("use_liger_kernel"),
    "use_liger_loss": Renamed("use_liger_kernel"),
    "dispatch_batches": KeyOf("accelerator_config", "dispatch_batches"),
    "split_batches": KeyOf("accelerator_config", "split_batches"),
    "fsdp_min_num_params": KeyOf("fsdp_config", "min_num_params"),
    "fsdp_transformer_layer_cls_to_wrap": KeyOf("fsdp_config", "transformer_layer_cls_to_wrap"),
    "adafactor": ValueOf("optim", "adafactor"),
    "group_by_length": ValueOf("train_sampling_strategy", "group_by_length"),
    "include_inputs_for_metrics": ItemOf("include_for_metrics", "inputs"),
    "tpu_metrics_debug": ItemOf("debug", "tpu_metrics_debug"),
    "warmup_ratio": WarmupShare(),
    "include_tokens_per_second": TokensCounted("include_num_input_tokens_seen"),
    "push_to_hub_model_id": HubName(),
    "push_to_hub_organization": HubName(),
    "logging_dir": Gone((), "TensorBoard's folder is what the environment variable TENSORBOARD_LOGGING_DIR names"),
    "save_safetensors": Gone((True,), "weights are always saved as safetensors"),
    "use_mps_device": Gone((True, False), "a device of Apple's is used where there is one"),
    "jit_mode_eval": Gone((False,), "evaluation is never compiled by TorchScript"),
    "use_ipex": Gone((False,), "Intel's extension of PyTorch is not used"),
    "fp16_opt_level": Gone(("O1",), "mixed precision is PyTorch's own, which has no levels"),
    "fp16_backend": Gone(_AMP, "mixed precision is PyTorch's own"),
    "half_precision_backend": Gone(_AMP, "mixed precision is PyTorch's own"),
    "tpu_num_cores": Gone((), "whoever starts the processes decides on their number"),
    "past_index": Gone((-1,), "past states are not fed back to the model"),
    "sharded_ddp": Gone(("", False, []), "sharded training is what fsdp= turns on"),
    "mp_parameters": Gone(("",), "SageMaker's model parallelism is not used"),
    "ray_scope": Gone(("last",), "no hyperparameters are searched here"),
    "use_legacy_prediction_loop": Gone((False,), "there is one evaluation loop"),
    "dataset_batch_size": Gone((1000,), "rows are tokenized in batches of the library's own size"),
    "num_of_sequences": Gone((1024,), "packing goes by max_length alone"),
    "chars_per_token": Gone((3.6,), "packing counts tokens"),
    "max_prompt_length": Gone((512,), _CUT),
    "max_completion_length": Gone((), _CUT),
    "generate_during_eval": Gone((False,), "nothing is generated while a training evaluates"),
}

OLDER = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
}
"""What releases of transformers that this plug-in runs with still call an argument."""
