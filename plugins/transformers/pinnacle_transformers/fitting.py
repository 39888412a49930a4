"""What a fit may be asked of an LLM, and what becomes of its checkpoints: new fields, a merged model, a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinnacle import Checkpoint, ConfigError, Run, Settings
from pinnacle.plugin import folder_artifacts, folder_fingerprint, unpack
from pinnacle_transformers.consent import check_configuration
from pinnacle_transformers.folders import check_output_dir
from pinnacle_transformers.limits import require_packages
from pinnacle_transformers.loading import Weights, load_tokenizer, load_weights, loading_adapter, require_libraries

if TYPE_CHECKING:
    from pinnacle_transformers.model import LLM


def check(model: LLM, configuration: Any) -> None:
    """ConfigError or MissingPlugin for what cannot work, before anything is read or written."""
    from pinnacle_transformers.configuration import LLMTrainingConfiguration

    require_libraries("peft", "trl", "datasets", purpose="fit()")
    if not isinstance(configuration, LLMTrainingConfiguration):
        raise ConfigError(f"LLM is trained by an LLMTrainingConfiguration, not {type(configuration).__name__}")
    if not configuration.log_to_db and configuration.output_dir is None:
        raise ConfigError("log_to_db=False keeps the checkpoints on the disk; say where with output_dir=")
    configuration.check()
    check_configuration(configuration)
    if resumed_from := configuration.arguments.get("resume_from_checkpoint"):
        raise ConfigError(
            f"resume_from_checkpoint={resumed_from!r}: a fit that was interrupted goes on by "
            "itself when it is called again; leave it out. To begin from other weights, name them as the model's"
        )
    bits = configuration.bits if configuration.bits is not None else model.bits
    if bits is not None and not configuration.use_lora:
        raise ConfigError(
            f"model {model.identifier!r} has bits={bits}, and weights that were rounded cannot be trained in full: "
            "pass use_lora=True, or leave bits= out"
        )
    with warnings.catch_warnings():  # said when they are made to train
        warnings.simplefilter("ignore")
        arguments = configuration.library_arguments(configuration.output_dir or tempfile.gettempdir())
    require_packages(arguments)
    _check_adapter(model, configuration)
    check_output_dir(configuration.output_dir, model.identifier, may_overwrite=configuration.overwrite_output_dir)


def _check_adapter(model: LLM, configuration: Any) -> None:
    """A model that has an adapter goes on training this one."""
    source = model.adapter_source()
    if source is None:
        return
    remedy = (
        f"train {model.identifier!r}.merge() instead, or db.load('model', {model.identifier!r}, version=...) of before"
    )
    if not configuration.use_lora:
        raise ConfigError(f"model {model.identifier!r} has an adapter, and use_lora=False trains all weights: {remedy}")
    from peft import PeftConfig

    with loading_adapter(model.identifier, source):
        stored: Any = PeftConfig.from_pretrained(source)
    for label in ("lora_r", "lora_alpha", "lora_dropout", "lora_bias", "lora_target_modules"):
        own, name = getattr(configuration, label), label if label == "lora_alpha" else label.removeprefix("lora_")
        kept = getattr(stored, name, own)
        kept = sorted(kept) if isinstance(kept, set) else kept
        is_left_open = label == "lora_target_modules" and own in (None, "all-linear")  # which peft resolves to names
        if not is_left_open and kept != (sorted(own) if isinstance(own, list) else own):
            raise ConfigError(
                f"model {model.identifier!r} goes on with its adapter, which has {label}={kept!r}, not {own!r}: pass "
                f"the same, or {remedy}"
            )


def learned_from(model: LLM, run: Run, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The model's fields with a checkpoint's files, or with the output folder where checkpoints stay on the disk."""
    if checkpoint is not None and checkpoint.form == "adapter":
        return {"adapter": dict(checkpoint.files), "weight_files": model.weight_files, "fitted_by": run}
    if checkpoint is not None:
        return {"adapter": None, "weight_files": dict(checkpoint.files), "fitted_by": run}
    configuration: Any = run.configuration
    folder = str(Path(configuration.output_dir).absolute())
    if configuration.use_lora:
        return {"adapter": None, "adapter_id": folder, "adapter_weights": folder_fingerprint(folder), "fitted_by": run}
    return {
        "adapter": None, "weight_files": None, "model_name_or_path": folder, "weights": folder_fingerprint(folder),
        "fitted_by": run,
    }  # fmt: skip


def merged(model: LLM, identifier: str) -> LLM:
    """A model of its own with full weights; its files are in pinnacle's cache until they are stored."""
    weights, adapter = model.weights_source(), model.adapter_source()
    if adapter is None:
        raise ConfigError(f"model {model.identifier!r} has no adapter to merge")
    content = json.dumps([weights, folder_fingerprint(weights), adapter, folder_fingerprint(adapter), model.dtype])
    folder = Settings.from_environment().cache_dir / "merged" / hashlib.sha256(content.encode()).hexdigest()
    if not folder.is_dir():
        _merge(model, folder)
    return dataclasses.replace(
        model, identifier=identifier, version=None, bits=None, adapter_id=None, store_adapter=False, adapter=None,
        adapter_weights=None, weight_files=_with_cache(folder), fitted_by=None,
    )  # fmt: skip


def _with_cache(folder: Path) -> Any:
    files = folder_artifacts(folder)
    for file in files.values():
        file.cache_dir = folder.parent.parent
    return files


def _merge(model: LLM, folder: Path) -> None:
    from peft import PeftModel

    adapter = str(model.adapter_source())
    folder.parent.mkdir(parents=True, exist_ok=True)
    passing = Path(tempfile.mkdtemp(prefix="merging-", dir=folder.parent))
    try:
        base = _alone(model)
        with loading_adapter(model.identifier, adapter):
            whole: Any = PeftModel.from_pretrained(base, adapter)
            whole.merge_and_unload().save_pretrained(passing)
        load_tokenizer(model.tokenizer_source(), model.tokenizer_options(), model.identifier).save_pretrained(passing)
        if not folder.is_dir():
            passing.rename(folder)
    finally:
        shutil.rmtree(passing, ignore_errors=True)


def _alone(model: LLM) -> Any:
    """The base without ``bits``, apart from those that predict, which may have adapters put on."""
    weights = Weights(model.weights_source(), None, model.dtype, "cpu", model.model_options())
    return load_weights(weights, model.identifier)


def exported(model: LLM, path: Path) -> Path:
    """The model's files in a folder; ConfigError where that has files already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{str(path)!r} has files in it; export into a new folder")
    path.mkdir(parents=True, exist_ok=True)
    adapter, weights = model.adapter_source(), model.weights_source()
    if adapter is not None:
        _copy(adapter, path)
        config = json.loads((path / "adapter_config.json").read_text())
        if model.weight_files:
            _copy(weights, path / "base")
            weights = str((path / "base").absolute())
        config["base_model_name_or_path"] = weights
        (path / "adapter_config.json").write_text(json.dumps(config, indent=2))
    elif model.weight_files:
        _copy(str(unpack(model.weight_files)), path)
    else:
        _alone(model).save_pretrained(path)
    if not (path / "tokenizer_config.json").is_file():
        load_tokenizer(model.tokenizer_source(), model.tokenizer_options(), model.identifier).save_pretrained(path)
    return path


def _copy(source: str, path: Path) -> None:
    from huggingface_hub import snapshot_download

    folder = source if Path(source).is_dir() else snapshot_download(source)
    shutil.copytree(folder, path, dirs_exist_ok=True)
