"""Loads weights and tokenizers; one clear error where that cannot work."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pinnacle import ConfigError, MissingPlugin, ModelUnavailable
from pinnacle.plugin import folder_fingerprint, loading_lock
from pinnacle_transformers.quiet import quiet

MAX_SHOWN = 600
_FAILURES = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, AttributeError, AssertionError)
"""What the libraries raise for names, files, options and devices that do not work."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """What is loaded, and how: equal ones are loaded once."""

    name: str
    bits: int | None = None
    dtype: str | None = None
    device: str | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """Changes with the files of a local folder."""
        options = json.dumps(self.options, sort_keys=True, default=repr)
        return (fingerprint(self.name), self.bits, self.dtype, device_of(self), options)


def fingerprint(name: str) -> tuple[str, str | None]:
    """A name on the hub as it is; a folder with its content."""
    return name, folder_fingerprint(name)


def device_of(weights: Weights) -> str:
    """The device as given, else the best there is; with a ``device_map``, that decides."""
    import torch

    if "device_map" in weights.options:
        return "mapped"
    if weights.device is not None:
        return weights.device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def require_libraries(*more: str, purpose: str = "LLM") -> None:
    """MissingPlugin naming what is not installed of torch, transformers and others."""
    for package in ("torch", "transformers", *more):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingPlugin(package, "pinnacle-transformers", purpose=purpose) from error


def load_weights(weights: Weights, model: str) -> Any:
    """A causal language model, ready to generate, on its device.

    MissingPlugin or ModelUnavailable, naming ``model``, for what cannot work in this process.
    """
    import torch
    from transformers import AutoModelForCausalLM

    library: Any = AutoModelForCausalLM
    options: dict[str, Any] = {"dtype": getattr(torch, weights.dtype) if weights.dtype else "auto", **weights.options}
    options.setdefault("trust_remote_code", False)  # left open, the library asks whoever sits at the terminal
    device = device_of(weights)
    if weights.bits is not None:
        options["quantization_config"] = _quantization(weights, model, device)
        options.setdefault("device_map", {"": device})
    with _loading(f"model {model!r}: {weights.name!r} cannot be loaded", _hint(weights)):
        loaded, info = library.from_pretrained(weights.name, output_loading_info=True, **options)
        if "device_map" not in options:
            loaded = loaded.to(device)
    if missing := sorted(info["missing_keys"]):
        warnings.warn(
            f"model {model!r}: {weights.name!r} lacks {len(missing)} weights, which are now random ({missing[0]}, ..): "
            "its config is not that of its files, or model_kwargs changed it", stacklevel=2,
        )  # fmt: skip
    return loaded.eval()


def load_tokenizer(name: str, options: Mapping[str, Any], model: str) -> Any:
    """ModelUnavailable, naming ``model``, where there is none."""
    from transformers import AutoTokenizer

    with _loading(f"model {model!r}: the tokenizer of {name!r} cannot be loaded"):
        return AutoTokenizer.from_pretrained(name, **{"trust_remote_code": False, **options})


@contextmanager
def loading_adapter(model: str, source: str) -> Iterator[None]:
    """Around what the adapter's files are read by."""
    with _loading(f"model {model!r}: adapter {source!r} cannot be loaded"):
        yield


@contextmanager
def _loading(told: str, hint: str = "") -> Iterator[None]:
    """ModelUnavailable for what goes wrong inside; ``hint`` is for options, and not for files that are not there."""
    try:
        with loading_lock, quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what libraries tell one another
            yield
    except _FAILURES as error:
        told = told if isinstance(error, OSError) else told + hint
        raise ModelUnavailable(f"{told}: {type(error).__name__}: {str(error)[:MAX_SHOWN]}") from error


def _hint(weights: Weights) -> str:
    if weights.bits is None:
        return ""
    return f" with bits={weights.bits} on {device_of(weights)!r}; leave bits= out, or choose another device="


def _quantization(weights: Weights, model: str, device: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    library: Any = BitsAndBytesConfig
    if "quantization_config" in weights.options:
        raise ConfigError(f"model {model!r} has bits= and a quantization_config in model_kwargs; pass one of them")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingPlugin("bitsandbytes", "bitsandbytes>=0.49", purpose=f"bits={weights.bits}")
    if weights.bits == 8:
        return library(load_in_8bit=True)
    default = "bfloat16" if device.startswith("cuda") else "float32"
    compute = getattr(torch, weights.dtype or default)
    return library(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
