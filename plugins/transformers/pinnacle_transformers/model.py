"""LLM: a language model of transformers, loaded when it is first used."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pinnacle import Checkpoint, ComponentError, ConfigError, InvalidAnswer, NotFound, Run
from pinnacle.plugin import (
    Artifact,
    BaseLLMModel,
    Reply,
    Request,
    TrainingJob,
    folder_artifacts,
    folder_fingerprint,
    is_stored,
    learned,
    operational,
    unpack,
)
from pinnacle_transformers.bases import Adapter, Base, loaded
from pinnacle_transformers.consent import MODEL_KEYWORDS, TOKENIZER_KEYWORDS, consented
from pinnacle_transformers.folders import require_folder
from pinnacle_transformers.generation import (
    MAX_NEW_TOKENS,
    check_names,
    check_sampling,
    check_values,
    configured,
    generate,
)
from pinnacle_transformers.loading import Weights, load_tokenizer, require_libraries
from pinnacle_transformers.tokens import Tokens, check_tokens

BITS = (None, 4, 8)
DTYPES = (None, "float32", "bfloat16", "float16")


@dataclasses.dataclass
class LLM(BaseLLMModel):
    """A causal language model in this process: ``LLM(model_name_or_path="facebook/opt-350m").predict("Once")``.

    A string goes to the model as it is, the messages of a dialog through the tokenizer's chat template; the answer is
    what was generated, without special tokens. Keywords are those of `generate`. It is greedy unless
    ``do_sample=True``, and writes up to 256 tokens (a quarter of a small model's positions) unless ``max_new_tokens``
    says otherwise.

    ``model_name_or_path``: a folder, or a name on the Hugging Face hub; models of the same weights share them.
    ``bits``: 4 or 8 through bitsandbytes. ``adapter_id``: a PEFT adapter's folder, or its name on the hub; with
    ``store_adapter`` its files go into the database with the component (`adapter`), so that it loads where the folder
    is not. ``weights``, ``adapter_weights``: what the contents of local folders are told by, filled in at
    construction: over a folder that was trained again it is a new version. ``device``: None chooses. ``dtype``:
    "float32", "bfloat16" or "float16"; None is as the weights are stored. ``model_kwargs``, ``tokenizer_kwargs``: for
    their `from_pretrained`. What `fit` learned: ``adapter`` or, trained in full, ``weight_files`` in place of the
    weights, and the run ``fitted_by`` that made them. ``context_window``: None is what the model's config says.
    ``allow_special_tokens``: control tokens such as ``</s>`` or ``<|user|>`` do in a row's text what they say; by
    default they are text there, and control tokens in ``prompt_template``, ``system_prompt`` and the chat template.
    ``max_batch_size``: prompts generated together; fewer where a large model's memory of them does not fit the device.
    """

    _: dataclasses.KW_ONLY
    model_name_or_path: str = ""
    bits: int | None = None
    adapter_id: str | None = None
    store_adapter: bool = False
    adapter: dict[str, Artifact] | None = learned(repr=False)
    weight_files: dict[str, Artifact] | None = learned(repr=False)
    fitted_by: Run | None = learned(repr=False)
    weights: str | None = dataclasses.field(default=None, repr=False)
    adapter_weights: str | None = dataclasses.field(default=None, repr=False)
    dtype: str | None = None
    allow_special_tokens: bool = False
    device: str | None = operational(None)
    max_batch_size: int = operational(64)
    model_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model_name_or_path = str(self.model_name_or_path)
        self.adapter_id = None if self.adapter_id is None else str(self.adapter_id)
        _check(self)
        super().__post_init__()
        check_values(self.identifier, self.inference_kwargs)
        if self.store_adapter and self.adapter is None:
            self.adapter = _files_of(self)
        if not is_stored(self):  # no folder of this machine is looked into because a database names it
            self._take_fingerprints()
        self._model: tuple[Base, Adapter | None] | None = None
        self._tokenizer: Tokens | None = None

    def _take_fingerprints(self) -> None:
        if self.weights is None:
            self.weights = folder_fingerprint(self.model_name_or_path)
        if self.adapter_weights is None and self.adapter_id is not None and self.adapter is None:
            self.adapter_weights = folder_fingerprint(self.adapter_id)

    @property
    def model_name(self) -> str:
        """What the identifier is made of where none is given."""
        return self.model_name_or_path

    def init(self) -> None:
        """Load the weights and the adapter, or share those that are loaded."""
        require_libraries()
        self._check_folders()
        weights = Weights(self.weights_source(), self.bits, self.dtype, self.device, self.model_options())
        self._model = loaded(weights, self.adapter_source(), self.identifier)
        base = self._model[0]
        check_tokens(self._tokens().tokenizer, base.model, base.recommended, self.identifier)

    # -- training ----------------------------------------------------------------------------------

    def check_training(self, configuration: Any) -> None:
        """ConfigError or MissingPlugin for a fit that cannot work, before anything is read or written."""
        from pinnacle_transformers.fitting import check

        self._check_folders()
        check(self, configuration)

    def train(self, job: TrainingJob) -> None:
        """Fine-tune with trl, as ``job`` says; the model itself stays as it is."""
        from pinnacle_transformers.training import Training

        Training(self, job).run()

    def learned_from(self, run: Run, checkpoint: Checkpoint | None) -> dict[str, Any]:
        from pinnacle_transformers.fitting import learned_from

        return learned_from(self, run, checkpoint)

    def learn(self, fields: Mapping[str, Any]) -> None:
        """Take over what was learned; it is loaded when it is next used."""
        super().learn(fields)
        self._model, self._tokenizer, self._is_ready = None, None, False

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of the fit that made this version, oldest first."""
        return [] if self.fitted_by is None else self.fitted_by.checkpoints()

    def use_checkpoint(self, step: int | Checkpoint) -> None:
        """Predict with the weights of another checkpoint of the fit, by its step; on rows that is a new version.

        NotFound names the steps that there are.
        """
        wanted = step.step if isinstance(step, Checkpoint) else step
        found = {checkpoint.step: checkpoint for checkpoint in self.checkpoints()}
        if self.fitted_by is None or wanted not in found:
            known = ", ".join(map(str, found)) or "none"
            raise NotFound(f"model {self.identifier!r} has no checkpoint at step {wanted!r}; there is {known}")
        self.learn(self.learned_from(self.fitted_by, found[wanted]))
        self.version = None

    def merge(self, identifier: str | None = None) -> LLM:
        """A model of its own, by default ``{identifier}-merged``, with the adapter merged into the base's weights.

        The base is loaded without ``bits``: weights that were rounded cannot take up an adapter exactly.
        """
        from pinnacle_transformers.fitting import merged

        return merged(self, identifier or f"{self.identifier}-merged")

    def export(self, path: str | Path) -> Path:
        """Write the model into a folder in Hugging Face form, and return it: `AutoModelForCausalLM.from_pretrained`
        opens it, an adapter's also `PeftModel`."""
        from pinnacle_transformers.fitting import exported

        return exported(self, Path(path))

    # -- prompts and answers -----------------------------------------------------------------------

    def check_arguments(self, positional: int, named: Sequence[str]) -> None:
        super().check_arguments(positional, named)
        self._check_folders()
        known = self.inference_kwargs
        sent = {*self._sent(named), *(name for name in self._sent(known) if known[name] is not None)}
        if sent:
            require_libraries()
            check_names(self.identifier, sorted(sent))
        if "do_sample" not in named and not known.get("do_sample"):
            check_sampling(self.identifier, sorted(sent))

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """ConfigError for keywords whose values cannot work."""
        super().check_parameters(parameters)
        sent = {name: parameters[name] for name in self._sent(parameters)}
        check_values(self.identifier, sent)
        merged = {**self.inference_kwargs, **sent}
        if not merged.get("do_sample"):
            check_sampling(self.identifier, [name for name, value in merged.items() if value is not None])

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `Model.predict`; keywords whose values cannot work are refused before anything is written."""
        self.check_parameters(kwargs)
        return super().predict(*args, **kwargs)

    def quoted(self, text: str) -> str:
        return self._tokens().quoted(text)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by the model's tokenizer, with those it puts before any text."""
        return self._tokens().count(text)

    def cut_text(self, text: str, tokens: int) -> str:
        return self._tokens().cut(text, tokens)

    def count_request(self, request: Request) -> int:
        """Tokens the model reads, exactly: of a dialog, those of its chat template too."""
        return len(self._tokens().encode(request.content))

    def token_limit(self) -> int | None:
        """``context_window``, else the positions that a loaded model has."""
        if self.context_window is not None or self._model is None:
            return self.context_window
        return self._model[0].position_limit

    def _generate(self, messages: Any, **kwargs: Any) -> Reply:
        return self._generate_batch([messages], **kwargs)[0]

    def _generate_batch(self, prompts: list[Any], **kwargs: Any) -> list[Reply]:
        base, adapter = self._ready()
        tokens = self._tokens()
        config = configured(base.recommended, tokens, kwargs)
        rows = [tokens.encode(prompt) for prompt in prompts]
        with base.using(adapter) as model:
            return generate(model, tokens, rows, config, at_once=self.max_batch_size)

    def make_request(self, value: Any, given: Mapping[str, Any]) -> Request:
        """As for every model, and with the length of the answer settled, which the prompt must leave room for."""
        check_values(self.identifier, {**self.inference_kwargs, **given})
        if "max_new_tokens" in given or "max_new_tokens" in self.inference_kwargs:
            return super().make_request(value, given)
        limit = self.token_limit()
        new_tokens = MAX_NEW_TOKENS if limit is None else max(1, min(MAX_NEW_TOKENS, limit // 4))
        return super().make_request(value, {**given, "max_new_tokens": new_tokens})

    def ask_again(self, request: Request, reply: Reply, error: InvalidAnswer) -> Request:
        """Without a chat template the text goes on, as a dialog would."""
        reply = dataclasses.replace(reply, text=self.quoted(reply.text))
        error = InvalidAnswer(self.quoted(str(error)))
        if not isinstance(request.content, str) or self._tokens().has_template:
            return super().ask_again(request, reply, error)
        dialog = super().ask_again(request, reply, error).messages
        return dataclasses.replace(request, content="\n\n".join(str(turn["content"]) for turn in dialog))

    def _sent(self, names: Iterable[str]) -> list[str]:
        """Of keywords' names those that go to `generate` and not into the prompt."""
        return [name for name in names if name not in self.prompting.names()]

    def _check_folders(self) -> None:
        """ModelUnavailable for a path that leads nowhere, or to other weights than before; one that led to weights may
        do so again, elsewhere."""
        if self.weight_files is None:
            require_folder(self.identifier, self.model_name_or_path, self.weights)
        if self.adapter_id is not None and self.adapter is None:
            require_folder(self.identifier, self.adapter_id, self.adapter_weights)

    def _ready(self) -> tuple[Base, Adapter | None]:
        self._get_ready()
        if self._model is None:
            raise ConfigError(f"model {self.identifier!r}: init() was overridden and did not call super().init()")
        return self._model

    def _tokens(self) -> Tokens:
        """The tokenizer: the adapter's own, where it was stored with it, else the model's."""
        if self._tokenizer is None:
            with _loading_tokenizer:
                if self._tokenizer is None:
                    require_libraries()
                    tokenizer = load_tokenizer(self.tokenizer_source(), self.tokenizer_options(), self.identifier)
                    self._tokenizer = Tokens(tokenizer, self.identifier, allows_controls=self.allow_special_tokens)
        return self._tokenizer

    def model_options(self) -> dict[str, Any]:
        """``model_kwargs``; of a stored model only what can run no code, else ModelUnavailable."""
        return consented(self, "model_kwargs", MODEL_KEYWORDS, self.weight_files)

    def tokenizer_options(self) -> dict[str, Any]:
        """``tokenizer_kwargs``; of a stored model only what can run no code, else ModelUnavailable."""
        files = self.adapter if "tokenizer_config.json" in (self.adapter or {}) else self.weight_files
        return consented(self, "tokenizer_kwargs", TOKENIZER_KEYWORDS, files)

    def weights_source(self) -> str:
        """Where the base's weights are: what a fit made of them, unpacked, or as given."""
        return str(unpack(self.weight_files)) if self.weight_files else self.model_name_or_path

    def adapter_source(self) -> str | None:
        """Where the adapter is: what was stored, unpacked, or as given."""
        if self.adapter and (self.adapter_id is None or any(file.cache_dir for file in self.adapter.values())):
            return str(unpack(self.adapter))
        return self.adapter_id

    def tokenizer_source(self) -> str:
        """Where the tokenizer is: beside the adapter, where it was stored with it, else beside the weights."""
        adapter = self.adapter_source()
        is_own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
        return adapter if adapter is not None and is_own else self.weights_source()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_model": None, "_tokenizer": None, "_is_ready": False}


_loading_tokenizer = threading.Lock()


def _check(model: LLM) -> None:
    if not model.model_name_or_path:
        raise ConfigError("LLM needs model_name_or_path=, a folder or a name on the Hugging Face hub")
    if model.bits not in BITS or isinstance(model.bits, float):
        raise ConfigError(f"bits is 4, 8 or None, not {model.bits!r}")
    if model.dtype not in DTYPES:
        raise ConfigError(f"dtype is {', '.join(map(repr, DTYPES[1:]))} or None, not {model.dtype!r}")
    if model.adapter_id == "":
        raise ConfigError("adapter_id is an adapter's folder or its name on the Hugging Face hub, not ''")
    for name in ("model_kwargs", "tokenizer_kwargs"):
        if not isinstance(getattr(model, name), dict):
            raise ConfigError(f"{name} is a dict of keywords for from_pretrained, not {getattr(model, name)!r}")


def _files_of(model: LLM) -> dict[str, Artifact]:
    identifier, folder = model.identifier, model.adapter_id
    if is_stored(model):
        raise ComponentError(f"model {identifier!r} is stored with store_adapter=True and without the adapter's files")
    files = folder_artifacts(folder) if folder is not None and Path(folder).is_dir() else {}
    if "adapter_config.json" not in files:
        raise ConfigError(
            f"model {identifier!r} has store_adapter=True, and adapter_id={folder!r} is no folder with an "
            "adapter_config.json"
        )
    return files
