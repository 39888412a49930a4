"""A training in a process of its own: ``python -m benchmarks.fitter ours|by_hand URL MODEL FOLDER STEPS SAVE_STEPS``.

Trains the model in the folder MODEL on the rows of ``docs``, by `fit` or as one writes it with trl and peft, and leaves
the adapter in FOLDER. Prints as JSON the seconds up to the first step, those from it to the end, and what was logged.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable
from typing import Any

import psutil  # type: ignore[import-untyped]

RUNTIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05}
ARGUMENTS = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 5, "seed": 3}


class Clock:
    """Notes when the first step began, by a callback that every trainer of the library gets."""

    began = began_cpu = 0.0

    def start(self) -> None:
        from transformers import TrainerCallback, trainer

        clock = self

        class FirstStep(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if not state.global_step:
                    clock.began, clock.began_cpu = time.time(), cpu_s()

        library: Any = trainer
        library.DEFAULT_CALLBACKS.append(FirstStep)


def ours(url: str, model: str, folder: str, steps: int, save_steps: int) -> list[dict[str, Any]]:
    from pinnacle_transformers import LLM, LLMTrainingConfiguration

    from benchmarks.fits import select_of
    from pinnacle import pinnacle

    with pinnacle(url) as db:
        llm = LLM("fitted", model_name_or_path=model, device="cpu")
        configuration = LLMTrainingConfiguration(
            "by_fit", output_dir=folder, max_steps=steps, save_steps=save_steps, **ARGUMENTS
        )
        run = llm.fit(X="body", select=select_of(url), configuration=configuration, db=db)
        series: list[dict[str, Any]] = run.series()
        return series


def by_hand(url: str, model: str, folder: str, steps: int, save_steps: int) -> list[dict[str, Any]]:
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    bars: Any = logging
    bars.disable_progress_bar()
    loader: Any = AutoModelForCausalLM
    library: Any = trl
    trainer = library.SFTTrainer(
        loader.from_pretrained(model),
        args=library.SFTConfig(
            folder, max_steps=steps, save_steps=save_steps, use_cpu=True, bf16=False, report_to="none",
            disable_tqdm=True, dataloader_pin_memory=False, **ARGUMENTS,
        ),
        train_dataset=Dataset.from_dict({"text": list(texts(url))}),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **LORA),  # type: ignore[arg-type]
    )  # fmt: skip
    trainer.train()
    trainer.save_model(folder)
    history: list[dict[str, Any]] = trainer.state.log_history
    return history


def texts(url: str) -> Iterable[str]:
    """The rows, by the database's driver."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        yield from (body for (body,) in connection.execute("SELECT body FROM docs ORDER BY id"))
        connection.close()
    elif url.startswith("mongodb"):
        import pymongo

        with pymongo.MongoClient[Any](url) as client:
            found = client.get_default_database().docs.find({}, {"body": 1}).sort("_id")
            yield from (row["body"] for row in found)
    else:
        import psycopg

        with psycopg.connect(url) as opened, opened.cursor("texts") as cursor:
            cursor.itersize = 1_000
            yield from (body for (body,) in cursor.execute("SELECT body FROM docs ORDER BY id"))


def cpu_s() -> float:
    return os.times().user + os.times().system


def main(side: str, url: str, model: str, folder: str, steps: str, save_steps: str) -> None:
    clock = Clock()
    clock.start()
    train = ours if side == "ours" else by_hand
    history = train(url, model, folder, int(steps), int(save_steps))
    ended, ended_cpu = time.time(), cpu_s()
    print(
        json.dumps(
            {
                "start_s": clock.began - psutil.Process().create_time(),
                "training_s": ended - clock.began,
                "training_cpu_s": ended_cpu - clock.began_cpu,
                "history": [{k: v for k, v in entry.items() if k not in RUNTIMES} for entry in history],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
