"""Loaded models, each once a process, and the adapters on them, each for those alone who asked for it."""

from __future__ import annotations

import copy
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from pinnacle import ModelUnavailable
from pinnacle.plugin import loading_lock
from pinnacle_transformers.loading import Weights, fingerprint, load_weights, loading_adapter

PLAIN_INITS = (True, False, "gaussian", "orthogonal")
"""Ways a LoRA adapter may begin that leave the base's weights as they are."""


class Adapter:
    """An adapter on a base, by the name it has there; it is taken off when nobody holds this any more."""

    def __init__(self, name: str) -> None:
        self.name = name


class Base:
    """A loaded model. ``lock`` is held for as long as one generates: which adapter is on is state of the model."""

    def __init__(self, model: Any) -> None:
        from transformers import GenerationConfig

        self.model, self.lock = model, threading.Lock()
        # generate() fills in what a call leaves open from the model's own settings, sampling too.
        self.recommended = copy.deepcopy(model.generation_config)
        library: Any = GenerationConfig
        model.generation_config = library()
        self._with_adapters: Any = None
        self._adapters: weakref.WeakValueDictionary[tuple[Any, ...], Adapter] = weakref.WeakValueDictionary()
        self._names = itertools.count(1)
        self._unused: deque[str] = deque()

    @property
    def position_limit(self) -> int | None:
        """Tokens that prompt and answer may have together, where the model's config tells."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None

    def adapter(self, source: str, model: str) -> Adapter:
        """The adapter in a folder, or by its name on the hub; loaded once for all who ask."""
        with self.lock:
            self._take_off_unused()
            key = fingerprint(source)
            adapter = self._adapters.get(key)
            if adapter is None:
                adapter = self._adapters[key] = self._put_on(source, model)
            return adapter

    @contextmanager
    def using(self, adapter: Adapter | None) -> Iterator[Any]:
        """The model with this adapter alone, or bare, for as long as the context lasts."""
        with self.lock:
            self._take_off_unused()
            if adapter is not None:
                self._with_adapters.set_adapter(adapter.name)
            is_bare = adapter is None and self._with_adapters is not None
            with self._with_adapters.disable_adapter() if is_bare else nullcontext():
                yield self.model

    def _put_on(self, source: str, model: str) -> Adapter:
        from peft import PeftConfig, PeftModel

        adapter = Adapter(f"adapter{next(self._names)}")
        try:
            with loading_adapter(model, source):
                if self._with_adapters is None:
                    config: Any = PeftConfig.from_pretrained(source)
                    config.inference_mode = True
                    self._with_adapters = PeftModel(self.model, config, adapter_name=adapter.name)
                self._with_adapters.load_adapter(source, adapter_name=adapter.name, torch_device=str(self.model.device))
        except BaseException:  # an adapter is put on whole or not at all; raised again
            self._take_off(adapter.name)
            raise
        self._with_adapters.eval()
        # A finalizer runs at any moment, also while the lock is held: it only makes a note.
        weakref.finalize(adapter, self._unused.append, adapter.name)
        return adapter

    def _take_off_unused(self) -> None:
        while self._unused:
            self._take_off(self._unused.popleft())

    def _take_off(self, name: str) -> None:
        names = [] if self._with_adapters is None else list(self._with_adapters.peft_config)
        if names == [name]:
            self.model = self._with_adapters.unload()
            self._with_adapters = None
        elif name in names:
            self._with_adapters.set_adapter(next(other for other in names if other != name))
            self._with_adapters.delete_adapter(name)


_bases: weakref.WeakValueDictionary[tuple[Any, ...], Base] = weakref.WeakValueDictionary()


def loaded(weights: Weights, adapter: str | None, model: str) -> tuple[Base, Adapter | None]:
    """The base, shared by all that name the same weights, and an adapter on it.

    An adapter that changes the base's own weights gets a base of its own, on which it is always on.
    """
    with loading_lock:
        if adapter is None or _leaves_base_alone(adapter, model):
            base = _cached(weights.key, lambda: load_weights(weights, model))
            return base, None if adapter is None else base.adapter(adapter, model)
        return _cached((*weights.key, fingerprint(adapter)), lambda: _joined(weights, adapter, model)), None


def _cached(key: tuple[Any, ...], load: Callable[[], Any]) -> Base:
    base = _bases.get(key)
    if base is None:
        base = _bases[key] = Base(load())
    return base


def _joined(weights: Weights, adapter: str, model: str) -> Any:
    from peft import PeftModel

    base = load_weights(weights, model)
    with loading_adapter(model, adapter):
        return PeftModel.from_pretrained(base, adapter).eval()


def _leaves_base_alone(adapter: str, model: str) -> bool:
    """Whether switching this adapter off gives the bare model back, exactly. ModelUnavailable for virtual tokens."""
    from peft import PeftConfig

    with loading_adapter(model, adapter):
        config: Any = PeftConfig.from_pretrained(adapter)
    if getattr(config, "megatron_config", None):  # peft imports the module that it names
        raise ModelUnavailable(f"model {model!r}: adapter {adapter!r} is for Megatron, which LLM does not load")
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if config.is_prompt_learning:
        raise ModelUnavailable(
            f"model {model!r}: adapter {adapter!r} is of kind {kind}, whose virtual tokens peft misplaces in batches; "
            "LLM takes adapters of layers, such as LORA and IA3"
        )
    return (
        kind == "LORA"
        and config.bias == "none"
        and config.init_lora_weights in PLAIN_INITS
        and not getattr(config, "target_parameters", None)
        and not getattr(config, "trainable_token_indices", None)
    )
