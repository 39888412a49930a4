"""VllmModel: vLLM's engine in this process, started when it is first used."""

from __future__ import annotations

import dataclasses
import importlib
import json
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from pinnacle import ConfigError, MissingPlugin, ModelUnavailable
from pinnacle.plugin import BaseLLMModel, Reply, may_run_code, operational, refuse_code
from pinnacle_vllm.sampling import near, sorted_out

_FAILURES = (OSError, ValueError, TypeError, RuntimeError, ImportError, AssertionError)
"""What vLLM raises for names, options and devices that do not work."""
_KEYWORDS = frozenset({
    "block_size", "cpu_offload_gb", "disable_log_stats", "dtype", "enable_chunked_prefill", "enable_prefix_caching",
    "enforce_eager", "gpu_memory_utilization", "kv_cache_dtype", "limit_mm_per_prompt", "max_logprobs", "max_model_len",
    "max_num_batched_tokens", "max_num_seqs", "pipeline_parallel_size", "quantization", "revision", "seed",
    "swap_space", "tokenizer_revision",
})  # fmt: skip
"""What a stored model may pass to vLLM without consent of the process: no names of classes, and no paths."""


@dataclasses.dataclass
class VllmModel(BaseLLMModel):
    """A model that vLLM runs in this process: ``VllmModel(model_name="mistralai/Mistral-7B-Instruct-v0.2")``.

    A string goes to the model as it is, the messages of a dialog through its chat template. Keywords are vLLM's
    sampling parameters; what is not given is vLLM's default (which for ``max_tokens`` is 16). ``vllm_kwargs``: for
    ``vllm.LLM``. ``max_batch_size``: prompts handed over at once; vLLM schedules them itself. Constructing one needs
    no vLLM, and components of the same fields share one engine. ``on_ray``, which ``ray_address`` implies: to run
    there, which is not possible yet.
    """

    _: dataclasses.KW_ONLY
    model_name: str = ""
    tensor_parallel_size: int = 1
    trust_remote_code: bool = False
    vllm_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    on_ray: bool = operational(False)
    ray_address: str | None = operational(None)
    max_batch_size: int = operational(256)

    def __post_init__(self) -> None:
        _check(self)
        self.on_ray = self.on_ray or self.ray_address is not None
        super().__post_init__()
        self._engine: Engine | None = None

    def init(self) -> None:
        """Start the engine, or share one that runs. MissingPlugin or ModelUnavailable where that cannot work."""
        if self.on_ray:
            _refuse_ray(self.identifier)
        _check_consent(self)
        options = {
            "model": self.model_name, "tensor_parallel_size": self.tensor_parallel_size,
            "trust_remote_code": self.trust_remote_code, **self.vllm_kwargs,
        }  # fmt: skip
        self._engine = engine_of(options, self.identifier)

    def _generate(self, messages: Any, **kwargs: Any) -> Reply:
        return self._generate_batch([messages], **kwargs)[0]

    def _generate_batch(self, prompts: list[Any], **kwargs: Any) -> list[Reply]:
        self._get_ready()
        if self._engine is None:
            raise ConfigError(f"model {self.identifier!r}: init() was overridden and did not call super().init()")
        return self._engine.replies(prompts, kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_engine": None, "_is_ready": False}


class Engine:
    """One ``vllm.LLM`` and its lock: it serves one caller at a time."""

    def __init__(self, vllm: Any, options: Mapping[str, Any], model: str) -> None:
        self._vllm, self._model, self._lock = vllm, model, threading.Lock()
        try:
            self._llm = vllm.LLM(**options)
        except _FAILURES as error:
            raise ModelUnavailable(
                f"model {model!r}: vLLM cannot run {options['model']!r} here: {type(error).__name__}: {error}"
            ) from error

    def replies(self, prompts: list[Any], parameters: Mapping[str, Any]) -> list[Reply]:
        """Texts through ``generate``, dialogs through ``chat``, each in one call; replies in order."""
        sampling = self._sampling(parameters)
        texts = [number for number, prompt in enumerate(prompts) if isinstance(prompt, str)]
        dialogs = [number for number, prompt in enumerate(prompts) if not isinstance(prompt, str)]
        replies: dict[int, Reply] = {}
        with self._lock:
            for positions, ask in ((texts, self._llm.generate), (dialogs, self._llm.chat)):
                if positions:
                    # Its own bar would be drawn over that of the rows.
                    outputs = ask([prompts[i] for i in positions], sampling, use_tqdm=False)
                    replies |= dict(zip(positions, map(_reply, outputs), strict=True))
        return [replies[position] for position in range(len(prompts))]

    def _sampling(self, parameters: Mapping[str, Any]) -> Any:
        try:
            return self._vllm.SamplingParams(**parameters)
        except (TypeError, ValueError) as error:
            hint = near(sorted_out(parameters)[1])
            raise ConfigError(f"model {self._model!r}: vLLM's SamplingParams: {error}{hint}") from error


_engines: weakref.WeakValueDictionary[str, Engine] = weakref.WeakValueDictionary()
_starting = threading.Lock()


def engine_of(options: Mapping[str, Any], model: str) -> Engine:
    """The engine of these options: started once a process, for as long as some component holds it."""
    key = json.dumps(options, sort_keys=True, default=repr)
    with _starting:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = Engine(_imported("vllm", "vllm", "VllmModel"), options, model)
        return engine


def _imported(package: str, install: str, purpose: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingPlugin(package, install, purpose=purpose) from error


def _refuse_ray(model: str) -> None:
    _imported("ray", "ray[default]", "on_ray=True")
    raise ModelUnavailable(
        f"model {model!r}: VllmModel does not run on Ray yet; leave on_ray= and ray_address= out to run it here"
    )


def _reply(output: Any) -> Reply:
    first = output.outputs[0]
    read = None if output.prompt_token_ids is None else len(output.prompt_token_ids)
    return Reply(first.text, read, len(first.token_ids), first.finish_reason)


def _check(model: VllmModel) -> None:
    if not isinstance(model.model_name, str) or not model.model_name:
        raise ConfigError("VllmModel needs model_name=, a folder or a name on the Hugging Face hub")
    size = model.tensor_parallel_size
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(f"tensor_parallel_size is a whole number from 1, not {size!r}")
    if not isinstance(model.vllm_kwargs, dict):
        raise ConfigError(f"vllm_kwargs is a dict of keywords for vllm.LLM, not {model.vllm_kwargs!r}")
    if not all(isinstance(name, str) for name in model.vllm_kwargs):
        raise ConfigError(f"vllm_kwargs is a dict of keywords for vllm.LLM, not {model.vllm_kwargs!r}")
    if taken := sorted({"model", "tensor_parallel_size", "trust_remote_code"} & set(model.vllm_kwargs)):
        raise ConfigError(f"vllm_kwargs holds {taken[0]!r}, which is a field of VllmModel; pass it there")


def _check_consent(model: VllmModel) -> None:
    """ModelUnavailable where a stored model asks for what can run code."""
    if may_run_code(model):
        return
    if model.trust_remote_code:
        raise refuse_code(model, f"trust_remote_code={model.trust_remote_code!r}")
    if asked := sorted(model.vllm_kwargs.keys() - _KEYWORDS):
        raise refuse_code(model, f"vllm_kwargs {asked[0]}={model.vllm_kwargs[asked[0]]!r}")
