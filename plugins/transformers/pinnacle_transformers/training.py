"""Trains an LLM for one fit: reads the rows, loads the weights, lets trl train, and tells of the end."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.metadata
import json
import logging
import shutil
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pinnacle
from pinnacle import ConfigError, PinnacleError, TrainingError
from pinnacle.plugin import DataFacts, Start, TrainingJob, loading_lock
from pinnacle_transformers.configuration import LLMTrainingConfiguration
from pinnacle_transformers.examples import Counted, Examples, require_rows
from pinnacle_transformers.failures import remedy_of, told_with_a_remedy
from pinnacle_transformers.folders import MARK, STATE
from pinnacle_transformers.loading import Weights, load_tokenizer, load_weights, loading_adapter
from pinnacle_transformers.quiet import quiet
from pinnacle_transformers.scoring import MetricError, Scoring
from pinnacle_transformers.states import with_pickles
from pinnacle_transformers.tokens import check_tokens

if TYPE_CHECKING:
    from pinnacle_transformers.model import LLM

log = logging.getLogger(__name__)

TRAIN, VALID = "train", "valid"
_training = threading.RLock()
"""One fit of a process trains at a time: the libraries draw random numbers for all of them from one place."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")


@dataclasses.dataclass
class Prepared:
    """The sets as Arrow files by name, the folder that training goes on from, and where the library writes."""

    files: dict[str, str]
    resumed_from: str | None
    output_dir: str


class Training:
    """One fit of one LLM."""

    def __init__(self, model: LLM, job: TrainingJob) -> None:
        if not isinstance(job.configuration, LLMTrainingConfiguration):
            raise ConfigError(f"LLM is trained by an LLMTrainingConfiguration, not {type(job.configuration).__name__}")
        self.model, self.job, self.configuration = model, job, job.configuration
        self.output_dir = Path(self.configuration.output_dir or job.work_dir / "output")
        self.args = self.configuration.library_arguments(str(self.output_dir), on_cpu=model.device == "cpu" or None)
        tokenizer = load_tokenizer(model.tokenizer_source(), model.tokenizer_options(), model.identifier)
        self.tokenizer = _as_configured(tokenizer, self.args, self.configuration)

    def run(self) -> None:
        """Read, train, and store what the fit ended with."""
        with told_with_a_remedy(self.args, self.output_dir):
            prepared = self._prepared()
            sets = self._sets(prepared.files)
            with _training, _quiet_libraries():
                with loading_lock, self._refusals():
                    trainer, watcher = self._trainer(sets, prepared)
                trainer.train(resume_from_checkpoint=prepared.resumed_from)
                self._finish(trainer, watcher, sets)
            del trainer, watcher
        _free()

    # -- rows --------------------------------------------------------------------------------------

    def _prepared(self) -> Prepared:
        """The sets on the disk, and the run begun; of several processes the first does it for all."""
        prepared = None
        if self.job.is_main:
            files, counted = self._read()
            require_rows(counted, self.model.identifier)
            facts = self._facts(files, counted)
            self._check_evaluation(facts.rows)
            start = self.job.record.begin(facts)
            self._make_output_dir(start)
            prepared = Prepared(files, self._resumed(start), str(self.output_dir))
        if self.args.world_size > 1:
            from accelerate.utils import broadcast_object_list

            prepared = broadcast_object_list([prepared])[0]
        if prepared is None:
            raise TrainingError("the first of the processes that train together did not tell where to begin")
        self.output_dir = Path(prepared.output_dir)
        self.args.output_dir = prepared.output_dir
        return prepared

    def _read(self) -> tuple[dict[str, str], dict[str, Counted]]:
        options = self.configuration.arguments
        asked = {name: options.get(name) for name in ("completion_only_loss", "assistant_only_loss")}
        learns_prompt = False in asked.values()
        files: dict[str, str] = {}
        counted: dict[str, Counted] = {}
        for name, rows in self.job.sets.items():
            if rows.fold == VALID and not self.job.sets[TRAIN].folds[VALID]:
                continue
            examples = Examples(
                self.tokenizer, self.job.fields.arguments or rows.names, method=self.configuration.method,
                max_length=self.configuration.max_length, keep_end=self.args.truncation_mode == "keep_end",
                packs=bool(options.get("packing")), learns_prompt=learns_prompt,
                asks_for={name for name, is_asked in asked.items() if is_asked},
                model=self.model.identifier, by_place=self.job.fields.arguments is None,
                allows_controls=self.model.allow_special_tokens,
            )  # fmt: skip
            path = self.job.work_dir / "data" / f"{len(files)}.arrow"
            with quiet():  # of long rows, which are counted
                counted[name] = examples.write(rows.keyed(), path)
            files[name] = str(path)
            if name == TRAIN and not counted[name].rows:
                break  # nothing to train on: said by the record, with the reasons
        return files, counted

    def _facts(self, files: Mapping[str, str], counted: Mapping[str, Counted]) -> DataFacts:
        rows = {name: found.rows for name, found in counted.items()}
        if rows[TRAIN]:
            rows = {name: len(examples) for name, examples in self._sets(files).items()}
        left_out: Counter[str] = Counter()
        for found in counted.values():
            left_out += found.left_out
        others = {fold for fold in self.job.sets[TRAIN].folds if fold not in (TRAIN, VALID)}
        for fold in others:
            left_out[f"of fold {fold!r}"] += self.job.sets[TRAIN].folds[fold]
        data_seed = self.args.data_seed
        return DataFacts(
            rows, dict(left_out),
            {name: found.cut for name, found in counted.items()},
            {"seed": self.args.seed, "data_seed": self.args.seed if data_seed is None else data_seed},
            {"pinnacle": pinnacle.__version__} | _versions(LIBRARIES), _device(self.args),
        )  # fmt: skip

    def _check_evaluation(self, rows: Mapping[str, int]) -> None:
        has_sets = len(rows) > 1
        strategy = str(getattr(self.args.eval_strategy, "value", self.args.eval_strategy))
        if not has_sets and strategy != "no":
            raise ConfigError(
                f"eval_strategy={strategy!r} needs rows to evaluate on: give some rows "
                "_fold='valid', or pass validation_sets=[Dataset(name, select=...)] or validation_fraction="
            )
        if not has_sets and self.job.metrics:
            raise ConfigError(f"metrics={list(self.job.metrics)!r} are computed on validation sets, and there is none")

    def _sets(self, files: Mapping[str, str]) -> dict[str, Any]:
        """The sets by name, "train" the first; a share of it is "valid" where that is asked for."""
        import datasets

        sets = {name: datasets.Dataset.from_file(path) for name, path in files.items()}
        fraction = self.configuration.validation_fraction
        if fraction and VALID not in sets:
            if len(sets[TRAIN]) * fraction < 1 or len(sets[TRAIN]) < 2:
                raise TrainingError(f"validation_fraction={fraction} of {len(sets[TRAIN])} rows is less than one row")
            split = sets[TRAIN].train_test_split(test_size=fraction, seed=self.args.seed)
            sets |= {TRAIN: split["train"], VALID: split["test"]}
        return sets

    # -- where the library writes -----------------------------------------------------------------

    def _make_output_dir(self, start: Start) -> None:
        self.output_dir.mkdir(parents=True, exist_ok=True)
        if not start.is_resumed:
            for old in self.output_dir.glob("checkpoint-*"):
                shutil.rmtree(old)
            (self.output_dir / STATE).unlink(missing_ok=True)
        (self.output_dir / MARK).write_text(json.dumps({"model": self.model.identifier, "run": start.run}))

    def _resumed(self, start: Start) -> str | None:
        """The folder that training goes on from, with what the library wants to find in it."""
        if start.folder is not None:
            with_pickles(start.folder)
            self._put_best_in_place(start.folder)
            return str(start.folder)
        if not start.is_resumed or self.configuration.log_to_db:
            return None
        from transformers.trainer_utils import get_last_checkpoint

        for folder in self.output_dir.glob("checkpoint-*"):
            if not (folder / STATE).is_file():  # it was being written, or being deleted
                shutil.rmtree(folder)
        last: Any = get_last_checkpoint
        found: str | None = last(str(self.output_dir))
        return found

    def _put_best_in_place(self, folder: Path) -> None:
        """The best checkpoint so far where the library looks for it, also when the output folder is gone."""
        state = json.loads((folder / STATE).read_text())
        if state.get("best_model_checkpoint"):
            best = self.output_dir / Path(state["best_model_checkpoint"]).name
            kept = folder.parent / best.name
            if kept.is_dir():
                shutil.copytree(kept, best, dirs_exist_ok=True)
            state["best_model_checkpoint"] = str(best)
            (folder / STATE).write_text(json.dumps(state))

    # -- training ----------------------------------------------------------------------------------

    def _trainer(self, sets: Mapping[str, Any], prepared: Prepared) -> tuple[Any, Any]:
        from transformers import EarlyStoppingCallback
        from transformers.trainer_callback import PrinterCallback

        from pinnacle_transformers.trainers import WatchedDPO, WatchedSFT, Watcher

        others = {name: rows for name, rows in sets.items() if name != TRAIN}
        self._settle_arguments(list(others))
        base, peft_config = self._weights()
        check_tokens(self.tokenizer, base, base.generation_config, self.model.identifier)
        watcher = Watcher(self.job, "adapter" if self.configuration.use_lora else "full", list(others))
        trainer_class: Any = WatchedSFT if self.configuration.method == "sft" else WatchedDPO
        trainer = trainer_class(
            base, args=self.args, train_dataset=sets[TRAIN], eval_dataset=others or None,
            processing_class=self.tokenizer, peft_config=peft_config, callbacks=[watcher],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        stopping = EarlyStoppingCallback(self.configuration.early_stopping_patience or 1)
        if self.configuration.early_stopping_patience is not None:
            trainer.add_callback(stopping)
        if prepared.resumed_from is not None:
            _resume(Path(prepared.resumed_from), trainer, watcher, stopping)
        trainer.scoring = Scoring(self.job.metrics, self.tokenizer, self.args.per_device_eval_batch_size)
        if self.configuration.method == "sft":
            trainer.scored_sets = others  # a row by itself, also where they are packed
        watcher.trainer = trainer
        return trainer, watcher

    def _settle_arguments(self, validation_sets: list[str]) -> None:
        """Say in the library's arguments what is already done, and what pinnacle does itself."""
        args = self.args
        if self.configuration.method == "sft":
            args.assistant_only_loss = False  # the labels say it
            if not args.packing:
                args.max_length = None  # what is longer is cut
        elif not self.configuration.use_lora:  # trl loads what the model is compared with
            args.model_init_kwargs = self.model.model_options() or None
        args.disable_tqdm = self.configuration.display.get("disable_tqdm", True)  # the run has a line of its own
        if self.configuration.output_dir is None:
            args.save_total_limit = 1  # the database has them all
        if args.metric_for_best_model is not None and validation_sets:
            args.metric_for_best_model = _metric_of(args.metric_for_best_model, validation_sets)

    def _weights(self) -> tuple[Any, Any]:
        """The model to train, apart from those that predict, and the adapter to put on it, if it has none yet."""
        model, configuration = self.model, self.configuration
        bits = configuration.bits if configuration.bits is not None else model.bits
        dtype = model.dtype or (None if configuration.use_lora else "float32")
        device = "cpu" if self.args.device.type == "cpu" else str(self.args.device)
        source = Weights(model.weights_source(), bits, dtype, device, model.model_options())
        base = load_weights(source, model.identifier)
        if bits is not None:
            from peft import prepare_model_for_kbit_training

            prepare: Any = prepare_model_for_kbit_training
            base = prepare(
                base, use_gradient_checkpointing=self.args.gradient_checkpointing,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            )  # fmt: skip
        adapter = model.adapter_source()
        if adapter is not None:
            from peft import PeftModel

            with loading_adapter(model.identifier, adapter):
                return PeftModel.from_pretrained(base, adapter, is_trainable=True), None
        return base, configuration.lora_config(base) if configuration.use_lora else None

    def _finish(self, trainer: Any, watcher: Any, sets: Mapping[str, Any]) -> None:
        """Evaluate where it was not, store the weights the fit ended with, and leave them in the output folder."""
        from pinnacle_transformers.trainers import tidy

        state, args = trainer.state, self.args
        trainer.check(state.global_step)
        if len(sets) > 1 and str(getattr(args.eval_strategy, "value", args.eval_strategy)) == "no":
            try:
                trainer.evaluate()
            except MetricError as error:  # nothing hangs on it, and the training is done
                log.warning("%s; model %r is kept all the same", error, self.model.identifier)
        best = _step_of(state.best_model_checkpoint)
        step = best if args.load_best_model_at_end and best is not None else state.global_step
        final = self.output_dir if self.configuration.output_dir is not None else self.job.work_dir / "final"
        trainer.save_model(str(final))
        if self.job.is_main:
            tidy(final)
            state.save_to_json(str(final / STATE))
        if step not in watcher.saved and step != best:
            watcher.save(final, state, with_state=False)
        if self.job.is_main:
            self.job.record.finish(step, best=best)
        if args.world_size > 1:
            trainer.accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """ConfigError, naming the configuration, for what the libraries refuse when they are about to train."""
        try:
            yield
        except (ValueError, OSError, ImportError) as error:
            if isinstance(error, PinnacleError) or remedy_of(error, self.args, self.output_dir):
                raise
            raise ConfigError(f"{self.configuration.label}: {error}") from error


def _resume(folder: Path, trainer: Any, watcher: Any, stopping: Any) -> None:
    """Give the trainer and its callbacks what they knew at the checkpoint in a folder."""
    from pinnacle_transformers.trainers import SUMS

    state = json.loads((folder / STATE).read_text())
    watcher.resume(state)
    if (folder / SUMS).is_file():  # written last: a process may have been killed before it
        trainer.kept_sums = json.loads((folder / SUMS).read_text())
    trainer.is_over = _callback_state(state, "TrainerControl", "args").get("should_training_stop", False)
    vars(stopping).update(_callback_state(state, "EarlyStoppingCallback", "attributes"))


def _as_configured(tokenizer: Any, args: Any, configuration: LLMTrainingConfiguration) -> Any:
    """The tokenizer with the end and the chat template that trl would give it, before any row is read."""
    label = configuration.label
    ending, template = getattr(args, "eos_token", None), getattr(args, "chat_template_path", None)
    if ending is not None:
        if ending not in tokenizer.get_vocab():
            raise ConfigError(f"{label}: eos_token={ending!r} is no token of the model's tokenizer")
        tokenizer.eos_token = ending
    if template is not None:
        if not Path(template).is_file() or Path(template).suffix not in (".jinja", ".j2"):
            raise ConfigError(
                f"{label}: chat_template_path={template!r} is no .jinja file here; name one, or give the model "
                "tokenizer_kwargs={'chat_template': ...}"
            )
        tokenizer.chat_template = Path(template).read_text()
    return tokenizer


def _metric_of(name: str, sets: list[str]) -> str:
    """A metric's whole name, ``eval_<set>_<metric>``; without a set's name it is the first set's."""
    if any(name.startswith((f"eval_{each}_", f"{each}_")) for each in sets):
        return name
    return f"eval_{sets[0]}_{name.removeprefix('eval_')}"


def _step_of(checkpoint: str | None) -> int | None:
    return None if checkpoint is None else int(checkpoint.rpartition("-")[2])


def _callback_state(state: Mapping[str, Any], name: str, part: str) -> dict[str, Any]:
    """What the library kept of one of its callbacks in a checkpoint's state."""
    kept = state.get("stateful_callbacks", {}).get(name, {})
    found: dict[str, Any] = (kept[0] if isinstance(kept, list) and kept else kept or {}).get(part, {})
    return found


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _device(args: Any) -> str:
    import torch

    if args.device.type == "cuda":
        return f"{args.world_size} x {torch.cuda.get_device_name(args.device)}"
    return str(args.device.type) if args.world_size == 1 else f"{args.world_size} x {args.device.type}"


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """The run's own line shows the progress: no bars and notes of the libraries."""
    import datasets

    had_bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with quiet(), warnings.catch_warnings():
            for library in LIBRARIES:  # what they tell one another while they train
                warnings.filterwarnings("ignore", module=library)
            yield
    finally:
        if had_bars:
            datasets.enable_progress_bars()


def _free() -> None:
    """Give back what training held: the weights, the optimizer, the device's cache."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
