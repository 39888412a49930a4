"""LLMTrainingConfiguration: how a language model is trained, as users write it, and as trl and peft take it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pinnacle import ConfigError, MissingPlugin
from pinnacle.plugin import Destination, TrainingConfiguration, operational, resolved_secret, secret, server_of
from pinnacle_transformers.arguments import arguments_of, checked, config_class, default_of, known_arguments, plain
from pinnacle_transformers.folders import series_in
from pinnacle_transformers.limits import check_limits
from pinnacle_transformers.renamed import OLD_NAMES, OLDER, current

DISPLAY = frozenset({
    "disable_tqdm", "log_level", "log_level_replica", "log_on_each_node", "project", "report_to", "run_name",
    "trackio_bucket_id", "trackio_space_id", "trackio_static_space_id",
})  # fmt: skip
"""Arguments that say what is shown of a training and where, and nothing about what comes of it."""

_HOLDERS = ("arguments", "display")
_HALF = ("fp16", "bf16", "fp16_full_eval", "bf16_full_eval", "tf32")
_REFUSALS = (ValueError, TypeError, RuntimeError, OSError, KeyError, AttributeError, ImportError)
"""What the libraries raise for values and files that do not work."""


@dataclasses.dataclass(init=False)
class LLMTrainingConfiguration(TrainingConfiguration):
    """How a model is fine-tuned: ``LLMTrainingConfiguration("quick", num_train_epochs=1, learning_rate=1e-4)``.

    Takes the fields below, and every argument of `transformers.TrainingArguments` and of trl's `SFTConfig` and
    `DPOConfig`, under the names of transformers 4 too; those not given stay as trl has them. Unknown names are a
    TypeError, values that cannot work and those that are said elsewhere (``model_init_kwargs``) a ConfigError, and an
    old argument that has no effect any more a warning.

    ``arguments`` holds what was given of the libraries' arguments, by the names of now, and ``display`` those that
    only say what is shown: ``configuration.arguments["learning_rate"]``. Both can be given as well; what is given by
    its own name goes before what they say. So `dataclasses.replace` takes any argument, and leaves the others.

    ``method``: "sft", or "dpo" over pairs of answers. ``max_length``: tokens of a row beyond which it is cut; None
    cuts nothing. ``use_lora``: train an adapter (``lora_*``) and not the model itself. ``lora_target_modules``: names
    of layers; None is every linear layer but the output head. ``bits``: load the model in 4 or 8; None is as the
    model says. ``validation_fraction``: the share of rows that is held out for evaluation.
    ``early_stopping_patience``: evaluations without a better one after which it ends. ``log_to_db``: keep the
    training's metrics in the database. ``overwrite_output_dir``: what an earlier run left in ``output_dir`` may go.

    A change of ``display``, ``output_dir``, ``overwrite_output_dir``, ``log_to_db`` or ``hub_token`` is no new
    version. ``hub_token`` is stored only as ``"env:NAME"``.
    """

    method: str = "sft"
    max_length: int | None = 512
    use_lora: bool = True
    lora_r: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_target_modules: str | list[str] | None = None
    lora_bias: str = "none"
    bits: int | None = None
    validation_fraction: float = 0.0
    early_stopping_patience: int | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    output_dir: str | None = operational(None)
    overwrite_output_dir: bool = operational(False)
    log_to_db: bool = operational(True)
    display: dict[str, Any] = operational(dataclasses.MISSING, default_factory=dict)
    hub_token: str | None = secret()

    def __init__(
        self,
        identifier: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        display: Mapping[str, Any] | None = None,
        stored_origin: Any = None,
        **given: Any,
    ) -> None:
        self.identifier, self.version, self.stored_origin = identifier, None, stored_origin
        with self._named():
            told = self._take({**_mapping("arguments", arguments), **_mapping("display", display)}, given)
        for line in told:
            warnings.warn(f"{self.label}: {line}", stacklevel=2)
        self.__post_init__()

    def __post_init__(self) -> None:
        super().__post_init__()
        with self._named():
            check_limits(self)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.kind} {self.identifier!r}"

    def destination(self) -> Destination:
        """The hub, which ``hub_token`` is for."""
        return server_of(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")

    def check(self) -> None:
        """Check what was set since it was made as what is given then; ConfigError for what is no field of it."""
        ours = {field.name for field in dataclasses.fields(self)}
        for name in {name for name in vars(self) if not name.startswith("_")} - ours:
            raise ConfigError(f"{self.label}: {name} was set, which is no field; set arguments[{name!r}] instead")
        dataclasses.replace(self)

    @property
    def checkpoints_kept(self) -> int | None:
        """How many checkpoints of a run stay; None keeps all."""
        kept = self.arguments.get("save_total_limit")
        return None if kept is None else max(1, int(kept))

    def series_on_disk(self, run: str) -> list[dict[str, Any]]:
        """See `TrainingConfiguration.series_on_disk`."""
        return [] if self.output_dir is None else series_in(Path(self.output_dir), run)

    def given(self) -> dict[str, Any]:
        """What is not as it is by default, by name; without secrets."""
        own = {
            name: value
            for name, field in _own_fields(type(self)).items()
            if not field.metadata.get("secret") and not _is_same(value := getattr(self, name), _default(field))
        }
        return {**own, **self.arguments, **self.display}

    def library_arguments(self, output_dir: str, *, on_cpu: bool | None = None) -> Any:
        """trl's `SFTConfig` or `DPOConfig`, of what was given alone: the rest is trl's own defaults.

        ``on_cpu``: None asks the machine. There fp16 and its like are turned off, with one warning, and trl's default
        of bf16 without one; ``bf16=True`` beside ``use_cpu=True`` is kept. Nothing is reported anywhere unless
        ``report_to`` says so. ConfigError for what the libraries refuse.
        """
        library = config_class(self.method)
        sent = copy.deepcopy({**self.arguments, **self.display, **self._own_arguments(), "output_dir": output_dir})
        if sent.get("report_to") is None:
            sent["report_to"] = "none"
        self._fit_machine(sent, on_cpu)
        takes = {field.name for field in dataclasses.fields(library) if field.init}
        if "activation_checkpointing" in takes and sent.get("activation_checkpointing") is None:
            # trl's default is under the name that transformers warns of.
            sent["activation_checkpointing"] = default_of(self.method, "gradient_checkpointing")
        sent = {name if name in takes else OLDER.get(name, name): value for name, value in sent.items()}
        try:
            if isinstance(sent.get("parallelism_config"), dict):
                from accelerate import ParallelismConfig

                sent["parallelism_config"] = ParallelismConfig(**sent["parallelism_config"])
            return library(**sent)
        except _REFUSALS as error:
            if isinstance(error, ImportError) and self.arguments.get("deepspeed") is not None:
                raise MissingPlugin("deepspeed", "deepspeed", purpose="deepspeed=") from error
            told = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{self.label}: the libraries refuse it: {told}") from error

    def lora_config(self, model: Any) -> Any:
        """peft's `LoraConfig` for a loaded transformers model; None where ``use_lora`` is False.

        ConfigError for a name in ``lora_target_modules`` that no layer of the model has.
        """
        if not self.use_lora:
            return None
        from peft import LoraConfig
        from transformers.pytorch_utils import Conv1D

        _require_layers(self, model)
        library: Any = LoraConfig
        return library(
            task_type="CAUSAL_LM",
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            bias=self.lora_bias,
            target_modules=copy.copy(self.lora_target_modules) or "all-linear",
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in model.modules()),
        )

    def __repr__(self) -> str:
        shown = [repr(self.identifier), *(f"{name}={value!r}" for name, value in self.given().items())]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _take(self, held: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
        """Keep arguments, each where it belongs; returns what of them has no effect. Unknown names are a TypeError."""
        known = {**arguments_of("sft"), **arguments_of("dpo")}
        fields = _own_fields(type(self))
        for name in (*held, *given):
            if not any(name in names for names in (fields, known, OLD_NAMES, OLDER)):
                raise TypeError(_unknown(type(self), name))
        held, told = current(_plain(held), {})
        taken, told_too = current(_plain(given), held)
        self.arguments, self.display = {}, {}
        for name, field in fields.items():
            value = checked(name, str(field.type), taken.pop(name) if name in taken else _default(field))
            setattr(self, name, float(value) if isinstance(field.default, float) else value)
        for name, value in taken.items():
            holder = self.display if name in DISPLAY else self.arguments
            holder[name] = checked(name, known.get(name, ""), value)
        return told + told_too

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors that say which configuration it is."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(f"{self.label}: {error}") from None

    def _own_arguments(self) -> dict[str, Any]:
        """Of our fields those that trl's class takes, where they say anything."""
        sent: dict[str, Any] = {"max_length": self.max_length}
        if (token := resolved_secret(self.hub_token, self)) is not None:
            sent["hub_token"] = token
        if self.early_stopping_patience is not None and "metric_for_best_model" not in self.arguments:
            sent["metric_for_best_model"] = "loss"  # early stopping has no default for what is to get better
        return sent

    def _fit_machine(self, sent: dict[str, Any], on_cpu: bool | None) -> None:
        """Settle what only an accelerator can do: the libraries would fail, or warn at every step."""
        import torch
        from transformers.utils.import_utils import is_torch_bf16_gpu_available

        has_accelerator = torch.accelerator.is_available()
        is_asked_for = bool(sent.get("use_cpu"))
        if not (is_asked_for or (on_cpu if on_cpu is not None else not has_accelerator)):
            if sent.get("bf16") is None and not sent.get("fp16") and not is_torch_bf16_gpu_available():
                sent["bf16"] = False
            return
        if has_accelerator or int(os.environ.get("WORLD_SIZE", "1")) > 1:
            sent["use_cpu"] = True  # without it several processes on CPUs do not know of each other
        kept = ("bf16", "bf16_full_eval") if is_asked_for else ()
        off = [name for name in _HALF if sent.get(name) and name not in kept]
        sent.update(dict.fromkeys(off, False))
        if sent.get("bf16") is None:
            sent["bf16"] = False
        sent.setdefault("dataloader_pin_memory", False)
        if off:
            asked = " and ".join(f"{name}=True" for name in off)
            warnings.warn(f"{self.label}: {asked} is turned off: it trains on the CPU", stacklevel=3)


def _own_fields(cls: type[LLMTrainingConfiguration]) -> dict[str, dataclasses.Field[Any]]:
    """The fields that hold one value each, and not arguments of the libraries."""
    others = ("identifier", "version", "stored_origin", *_HOLDERS)
    return {field.name: field for field in dataclasses.fields(cls) if field.name not in others}


def _mapping(holder: str, arguments: Any) -> Mapping[str, Any]:
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ConfigError(f"{holder} is a dict of arguments by name, not {arguments!r}")
    return arguments or {}


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: plain(name, value) for name, value in arguments.items()}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _is_same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _unknown(cls: type[LLMTrainingConfiguration], name: str) -> str:
    known = {*known_arguments(), *_own_fields(cls)}
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see transformers.TrainingArguments for all"
    return f"{cls.__name__} takes no argument {name!r}; {hint}"


def _require_layers(configuration: LLMTrainingConfiguration, model: Any) -> None:
    """ConfigError for a listed name that no layer has; a pattern is peft's to read."""
    targets = configuration.lora_target_modules
    layers = {name for name, _ in model.named_modules()}
    for target in targets if isinstance(targets, list) else ():
        if not _is_named(target, layers):
            near = get_close_matches(target, sorted({name.rpartition(".")[2] for name in layers}), n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ConfigError(
                f"{configuration.label}: the model has no layer {target!r}, which lora_target_modules names{hint}"
            )


def _is_named(target: str, layers: Iterable[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for name in layers)
