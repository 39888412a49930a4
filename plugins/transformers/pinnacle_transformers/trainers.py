"""The libraries' trainers, watched: what they log and save is told, and a loss that is no number ends them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from transformers import TrainerCallback

from pinnacle import ConfigError, TrainingError
from pinnacle.plugin import SavedWeights, TrainingJob, loading_lock
from pinnacle_transformers.scoring import Scoring
from pinnacle_transformers.states import without_pickles

_library: Any = trl

SUMS = "sums.json"
LIBRARY_FILES = {"training_args.bin", "trainer_state.json", "README.md", SUMS}
WEIGHT_SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model"}


class Watched:
    """What both trainers have in common beside the library's own: checked losses, and metrics of generated text."""

    scoring: Scoring | None = None
    scored_sets: Mapping[str, Any] | None = None
    """The validation sets as they are scored; None where they are those of the losses."""
    unchecked: Any = None
    """The sum of the losses since the last check: one that is no number stays in it."""
    is_over: bool = False
    """Whether training was at its end when it was interrupted: the library would make one more step."""
    kept_sums: Mapping[str, Any] | None = None
    """What `sums` gave at the checkpoint that training goes on from."""

    def sums(self: Any) -> dict[str, Any]:
        """What was summed up since the last entry of the log, and of all steps: no library keeps it for us."""
        return {
            "loss": float(self.accelerator.gather(self._tr_loss).mean()), "total": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged, "metrics": dict(self._metrics["train"]),
            "tokens": self._total_train_tokens,
        }  # fmt: skip

    def mean_loss(self: Any) -> float:
        """Of all steps, those before an interruption too."""
        return float(self._total_loss_scalar / max(1, self.state.global_step))

    def _take_over(self: Any) -> None:
        """Go on with the sums of before an interruption, once the library has begun its own."""
        kept, self.kept_sums = self.kept_sums, None
        if kept is None:
            return
        self._tr_loss += kept["loss"]
        self._total_loss_scalar, self._globalstep_last_logged = kept["total"], kept["last_logged"]
        self._metrics["train"].update(kept["metrics"])
        self._total_train_tokens = kept["tokens"]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        self._take_over()
        if self.is_over:
            self.control.should_training_stop = True  # type: ignore[attr-defined]
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        self._take_over()  # there may have been no epoch left
        return super()._finalize_training(*args, **kwargs)  # type: ignore[misc]

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """In the types that were trained: adapters are read as float32, and those of quantized weights are none."""
        trained = {name: weight.dtype for name, weight in self._trained()}
        with loading_lock:
            super()._load_from_checkpoint(*args, **kwargs)  # type: ignore[misc]
        for name, weight in self._trained():
            weight.data = weight.data.to(trained[name])

    def _trained(self: Any) -> Iterator[tuple[str, Any]]:
        return ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.unchecked = loss.detach() if self.unchecked is None else self.unchecked + loss.detach()
        return loss

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)  # type: ignore[misc]
        if isinstance(eval_dataset, str):
            metrics = of_set(metrics, metric_key_prefix)
        if isinstance(eval_dataset, str) and self.scoring is not None:
            sets = self.scored_sets or self.eval_dataset  # type: ignore[attr-defined]
            scores = self.scoring.scores(self.model, sets[eval_dataset], metric_key_prefix)  # type: ignore[attr-defined]
            if scores:
                self.log(dict(scores))  # type: ignore[attr-defined]
                metrics.update(scores)
        best = self.args.metric_for_best_model  # type: ignore[attr-defined]
        if eval_dataset is None and best is not None and f"eval_{best.removeprefix('eval_')}" not in metrics:
            known = ", ".join(sorted(name for name in metrics if name.startswith("eval_")))
            raise ConfigError(f"metric_for_best_model={best!r} is no metric of the evaluation, which has {known}")
        return metrics

    def check(self, step: int) -> None:
        """TrainingError where a loss since the last check, or a weight, is no number."""
        total, self.unchecked = self.unchecked, None
        if total is not None and not math.isfinite(float(total)):
            raise _diverged("the loss", step)


class WatchedSFT(Watched, _library.SFTTrainer):  # type: ignore[misc]
    """Supervised fine-tuning by trl."""


class WatchedDPO(Watched, _library.DPOTrainer):  # type: ignore[misc]
    """Direct preference optimisation by trl."""


class Watcher(TrainerCallback):
    """Tells a job's record of steps, logs and checkpoints."""

    def __init__(self, job: TrainingJob, form: str, sets: Sequence[str]) -> None:
        self._job, self._form, self._sets = job, form, sets
        self._loss: float | None = None
        self._metrics: dict[str, float] = {}
        self.saved: set[int] = set()
        self.trainer: Any = None

    def resume(self, state: Mapping[str, Any]) -> None:
        """Know what was logged and saved before an interruption."""
        self.saved.add(int(state["global_step"]))
        for entry in state.get("log_history", ()):
            self._take({name: value for name, value in entry.items() if isinstance(value, (int, float))})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.device.type == "cpu" or control.should_log or control.should_save:
            self.trainer.check(state.global_step)
        if self._job.is_main:
            self._job.record.progress(state.global_step, state.max_steps, state.epoch or 0.0)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        values = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, (int, float))}
        values.pop("epoch", None)
        if "train_loss" in values:  # the library's is of the steps since an interruption, as its rates are
            if self.trainer.is_over:
                values = {name: value for name, value in values.items() if not name.startswith("train_")}
            values["train_loss"] = self.trainer.mean_loss()
        values = self._take(values)
        state.log_history[-1] = {"step": state.global_step, "epoch": float(state.epoch or 0.0), **values}
        if self._job.is_main:
            self._job.record.log(state.global_step, float(state.epoch or 0.0), values)

    def _take(self, values: dict[str, float]) -> dict[str, float]:
        values = self._with_set(values)
        self._loss = values.get("loss", self._loss)
        self._metrics.update({name: value for name, value in values.items() if name.startswith("eval_")})
        return values

    def _with_set(self, values: dict[str, float]) -> dict[str, float]:
        """trl calls its own metrics ``eval_entropy``, of whichever set: name the set, as the others do."""
        name = next((name for name in self._sets if f"eval_{name}_loss" in values), None)
        return values if name is None else of_set(values, f"eval_{name}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:
            self.trainer.accelerator.wait_for_everyone()  # each process writes random numbers of its own
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        sums = self.trainer.sums()
        if self._job.is_main:
            tidy(folder)
            (folder / SUMS).write_text(json.dumps(sums))
        # Optimizers that are sharded over processes keep their state elsewhere.
        self.save(folder, state, with_state=(folder / "optimizer.pt").is_file())

    def save(self, folder: Path, state: Any, *, with_state: bool) -> None:
        """Tell of the weights in a folder, with what is needed to go on from them."""
        check_weights(self.trainer.model, state.global_step)
        self.saved.add(state.global_step)
        if not self._job.is_main:
            return
        scratch = self._job.work_dir / "state"
        kept = {}
        if with_state:
            kept = {name: folder / name for name in ("trainer_state.json", SUMS)} | without_pickles(folder, scratch)
        self._job.record.save(
            SavedWeights(
                state.global_step, float(state.epoch or 0.0), self._form, weight_files(folder), kept, self._loss,
                dict(self._metrics), is_best=state.best_global_step == state.global_step,
            )
        )  # fmt: skip
        for path in kept.values():
            if path.parent == scratch:
                path.unlink()


def of_set(values: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Metrics of an evaluation by names that tell of which set they are: ``prefix`` is ``eval_<set>``."""
    others = {name for name in values if name.startswith("eval_") and not name.startswith(f"{prefix}_")}
    return {prefix + name.removeprefix("eval") if name in others else name: value for name, value in values.items()}


def tidy(folder: Path) -> None:
    """Without what the library leaves beside a model: its pickled arguments, and the adapter that DPO compares with."""
    (folder / "training_args.bin").unlink(missing_ok=True)
    shutil.rmtree(folder / "ref", ignore_errors=True)


def weight_files(folder: Path) -> dict[str, Path]:
    """What others open a folder's model by: weights, configs and the tokenizer, and nothing pickled."""
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in LIBRARY_FILES and path.suffix in WEIGHT_SUFFIXES
    }


def check_weights(model: Any, step: int) -> None:
    """TrainingError where a weight that is trained is no number."""
    for weight in model.parameters():
        if weight.requires_grad and not bool(torch.isfinite(weight).all()):
            raise _diverged("a weight", step)


def _diverged(what: str, step: int) -> TrainingError:
    return TrainingError(
        f"{what} is no finite number at step {step}: training diverged. Lower learning_rate=, raise warmup_steps=, or "
        "lower max_grad_norm=; with fp16=True try bf16=True"
    )
