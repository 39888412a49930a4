"""A fit to be killed: ``python -m benchmarks.survivor FORM URL MODEL FOLDER STEPS SAVE_STEPS STEPS_LOG``.

FORM is ``lora`` or ``full``. A line of STEPS_LOG is the number of a step that was made.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.fits import select_of
from pinnacle import pinnacle

IDENTIFIER = "survivor"
FORMS: dict[str, dict[str, Any]] = {
    "lora": {"use_lora": True, "learning_rate": 1e-3},
    "full": {"use_lora": False, "learning_rate": 1e-3},
}


def main(form: str, url: str, model: str, folder: str, steps: str, save_steps: str, steps_log: str) -> None:
    from pinnacle_transformers import LLM, LLMTrainingConfiguration
    from transformers import TrainerCallback, trainer

    class Log(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with open(steps_log, "a") as file:
                file.write(f"{state.global_step}\n")

    library: Any = trainer
    library.DEFAULT_CALLBACKS.append(Log)
    with pinnacle(url) as db:
        configuration = LLMTrainingConfiguration(
            f"{IDENTIFIER}_{form}", output_dir=folder, max_steps=int(steps), save_steps=int(save_steps),
            logging_steps=1, per_device_train_batch_size=8, save_total_limit=3, **FORMS[form],
        )  # fmt: skip
        llm = LLM(IDENTIFIER, model_name_or_path=model, device="cpu")
        llm.fit(X="body", select=select_of(url), configuration=configuration, db=db, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
