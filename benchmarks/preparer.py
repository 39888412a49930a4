"""Rows made ready to train on, in a process of its own: ``python -m benchmarks.preparer HOW URL MODEL FOLDER``.

HOW is ``ours``, a fit up to its first step; ``by_hand``, a bare loop that reads, tokenizes and writes Arrow; or
``loaded``, which only loads the libraries and the model. Prints as JSON the seconds and the process's peak memory.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.fits import select_of
from benchmarks.fitter import texts
from pinnacle import pinnacle

CHUNK_ROWS, MAX_LENGTH = 1_000, 128


def main(how: str, url: str, model: str, folder: str) -> None:
    base = load_all(model)
    began = time.perf_counter()
    seconds = 0.0
    if how == "ours":
        del base
        seconds = first_step(url, model, folder) - began
    elif how == "by_hand":
        write_arrow(url, model, Path(folder))
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "arrow_mb": size_mb(Path(folder))}))


def load_all(model: str) -> Any:
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import pinnacle_transformers
    import trl

    _ = pinnacle_transformers.LLMTrainingConfiguration, trl.SFTTrainer  # type: ignore[attr-defined]
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    bars: Any = logging
    bars.disable_progress_bar()
    library: Any = AutoModelForCausalLM
    return library.from_pretrained(model)


class FirstStep(Exception):
    """Training begins: enough was seen."""


def first_step(url: str, model: str, folder: str) -> float:
    """When a fit's first step began."""
    from pinnacle_transformers import LLM, LLMTrainingConfiguration
    from transformers import TrainerCallback, trainer

    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise FirstStep(time.perf_counter())

    library: Any = trainer
    library.DEFAULT_CALLBACKS.append(Stop)
    with pinnacle(url) as db:
        llm = LLM("fitted", model_name_or_path=model, device="cpu")
        configuration = LLMTrainingConfiguration("one_step", output_dir=folder, max_steps=1, max_length=MAX_LENGTH)
        try:
            llm.fit(X="body", select=select_of(url), configuration=configuration, db=db, progress=False)
        except FirstStep as stopped:
            return float(stopped.args[0])
    raise RuntimeError("the fit made no step")


def write_arrow(url: str, model: str, folder: Path) -> None:
    """Token ids and labels of every row, a thousand rows at a time."""
    import pyarrow as pa
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    schema = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})
    folder.mkdir()
    rows = iter(texts(url))
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while chunk := [text + tokenizer.eos_token for text in islice(rows, CHUNK_ROWS)]:
            ids = tokenizer(chunk, truncation=True, max_length=MAX_LENGTH)["input_ids"]
            column = pa.array(ids, pa.list_(pa.int32()))
            writer.write_batch(pa.record_batch([column, column], schema=schema))


def peak_mb() -> float:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.arrow")) / 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
