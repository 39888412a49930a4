"""SentenceTransformer: an embedding model that is loaded when it is first used."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pinnacle import ComponentError, ConfigError, MissingPlugin, Model, ModelUnavailable, Vector
from pinnacle.plugin import (
    Artifact,
    OutputType,
    folder_artifacts,
    folder_fingerprint,
    is_stored,
    loading_lock,
    may_run_code,
    unpack,
)
from pinnacle_sentence_transformers.consent import check_folder
from pinnacle_sentence_transformers.dimension import dimension_of

# One thread is as fast on 16 texts as on 64, and pads them less: 4.5 s for 512 docstrings, 7.2 s at 64.
CPU_TEXTS_AT_ONCE = 16

Embeddings = npt.NDArray[np.float32]


@dataclasses.dataclass
class SentenceTransformer(Model):
    """Embeds texts: ``predict("a")`` is float32 of shape (dim,), ``predict(["a", "b"])`` of shape (2, dim).

    ``model_name_or_path``: a folder, or a name on the Hugging Face hub. ``device``: None chooses. ``normalize`` scales
    vectors to length one, ``prompt`` goes before every text, ``truncate_dim`` keeps the first numbers. ``store`` puts a
    folder's files into the database with the component (`files`), so that it loads where the folder is not.
    ``allow_special_tokens``: control tokens of the tokenizer, such as ``[SEP]``, do in a text what they say; by default
    they are text. ``weights``: what a folder's content is told by, filled in at construction: trained again, it is a
    new version.
    """

    purpose: ClassVar[str | None] = "TEXT_EMBEDDING_EXTRACTION"

    model_name_or_path: str
    _: dataclasses.KW_ONLY
    device: str | None = None
    normalize: bool = False
    prompt: str | None = None
    truncate_dim: int | None = None
    batch_size: int | None = 64
    allow_special_tokens: bool = False
    store: bool = False
    files: dict[str, Artifact] | None = dataclasses.field(default=None, repr=False)
    weights: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.model_name_or_path = str(self.model_name_or_path)
        if self.store and self.files is None:
            self.files = _files_of(self)
        if self.weights is None and self.files is None and not is_stored(self):
            self.weights = folder_fingerprint(self.model_name_or_path)
        self._encoder: _Encoder | None = None

    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> Embeddings:
        """Embeddings of ``inputs``, float32 of shape (len(inputs), dim). Keywords are those of `encode`."""
        texts = CPU_TEXTS_AT_ONCE if self._loaded().model.device.type == "cpu" else len(inputs)
        as_arrays = {"convert_to_numpy": True, "convert_to_tensor": False}
        return np.asarray(self.encode(inputs, **{"batch_size": texts, **kwargs, **as_arrays}), dtype=np.float32)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """`sentence_transformers.SentenceTransformer.encode`: its arguments, and exactly what it returns.

        This component's settings hold where an argument does not say otherwise. Safe to call from several threads.
        """
        encoder = self._loaded()
        given = dict(zip(inspect.signature(encoder.model.encode).parameters, args, strict=False)) | kwargs
        settings: dict[str, Any] = {"normalize_embeddings": self.normalize, "show_progress_bar": False}
        if given.get("prompt_name") is None:  # the library would prefer a prompt to it
            settings["prompt"] = self.prompt
        defaults = {name: value for name, value in settings.items() if name not in given}
        with encoder.lock:
            return encoder.model.encode(*args, **defaults, **kwargs)

    def embed(self, texts: str | list[str]) -> list[Embeddings]:
        """A list with one vector a text, also for a single one; each float32 of shape (dim,)."""
        many = [texts] if isinstance(texts, str) else list(texts)
        return list(self.predict(many)) if many else []

    def length_of(self, value: Any) -> int | None:
        return len(value) if isinstance(value, str) else None

    def resolved_output_type(self) -> OutputType:
        """``Vector(dim)``; from the model's config files where they tell, else by loading it."""
        if isinstance(self.output_type, OutputType):
            return self.output_type
        size = dimension_of(self._folder()) if self._is_local() else None
        if size is None:
            return Vector(int(self._loaded().model.get_embedding_dimension()))
        return Vector(min(size, self.truncate_dim or size))

    def _is_local(self) -> bool:
        return self.files is not None or Path(self.model_name_or_path).is_dir()

    def _folder(self) -> Path:
        """Where the files are: the folder as given, or what was stored, unpacked."""
        if self.files and any(artifact.cache_dir for artifact in self.files.values()):
            return unpack(self.files)
        return Path(self.model_name_or_path)

    def _loaded(self) -> _Encoder:
        if self._encoder is None:
            with loading_lock:
                if self._encoder is None:
                    self._encoder = self._load()
        return self._encoder

    def _load(self) -> _Encoder:
        try:
            with _without_kernels():
                import sentence_transformers
        except ImportError as error:
            raise MissingPlugin("sentence-transformers", "sentence-transformers", purpose="embeddings") from error
        source = str(self._folder()) if self._is_local() else self.model_name_or_path
        if self._is_local() and not may_run_code(self):
            check_folder(self, Path(source))
        with _without_progress_bar():
            model = sentence_transformers.SentenceTransformer(
                source, device=self.device, truncate_dim=self.truncate_dim
            )
        _check_tokens(self.identifier, model)
        if not self.allow_special_tokens and hasattr(tokenizer := model.tokenizer, "split_special_tokens"):
            tokenizer.split_special_tokens = True  # what is put before and after each text stays what it is
        return _Encoder(model)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_encoder": None}


class _Encoder:
    """A loaded model and its lock: tokenizers keep state, and are not for two threads at once."""

    def __init__(self, model: Any) -> None:
        self.model, self.lock = model, threading.Lock()


def _check_tokens(identifier: str, model: Any) -> None:
    """ModelUnavailable for a tokenizer with tokens that the embedding lacks: they fail deep in the library."""
    weights = getattr(model[0], "auto_model", None)
    if weights is None:
        return
    rows = weights.get_input_embeddings().weight.shape[0]
    lacking = [token for token, number in model.tokenizer.get_vocab().items() if number >= rows]
    if lacking:
        raise ModelUnavailable(
            f"model {identifier!r}: its tokenizer has {len(lacking)} tokens that its weights lack, such as "
            f"{lacking[0]!r}: the embedding has {rows} rows. Use the tokenizer that belongs to the weights, or give"
            " these rows for them and save both: resize_token_embeddings(len(tokenizer))"
        )


@contextmanager
def _without_kernels() -> Iterator[None]:
    """Keep bitsandbytes, which the library imports where it is installed, from saying that it has no kernel for 4 bits
    on this CPU: nothing here computes in 4 bits."""
    told = logging.getLogger("bitsandbytes.backends.cpu.ops")
    told.addFilter(_is_no_missing_kernel)
    try:
        yield
    finally:
        told.removeFilter(_is_no_missing_kernel)


def _is_no_missing_kernel(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Failed to load CPU gemm_4bit_forward")


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Keep transformers' bar for loading weights off the terminal, which shows the rows' progress."""
    from transformers.utils import logging

    bars: Any = logging
    was_shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            bars.enable_progress_bar()


def _files_of(model: SentenceTransformer) -> dict[str, Artifact]:
    identifier, folder = model.identifier, Path(model.model_name_or_path)
    if is_stored(model):  # no folder of this machine is read into a database because that names it
        raise ComponentError(f"model {identifier!r} is stored with store=True and without its files")
    files = folder_artifacts(folder) if folder.is_dir() else {}
    if not files:
        raise ConfigError(f"model {identifier!r} has store=True, and {str(folder)!r} is no folder with files to store")
    return files
