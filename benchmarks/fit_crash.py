"""Fine-tuning 3: kill -9 at random moments of a fit, its output folder deleted, and the same call again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bulk import require
from benchmarks.fits import QUIET, largest_difference, random_llama
from benchmarks.places import Place, opened
from benchmarks.survivor import FORMS, IDENTIFIER
from benchmarks.table import Table
from pinnacle import pinnacle
from pinnacle.components.run import losses

ROWS, STEPS, SAVE_STEPS, KILLS = 200, 60, 7, 3
HIDDEN, LAYERS, VOCABULARY = 64, 2, 1_000
BOUND = 1e-5
LONGEST_PAUSE_S, POLL_S, PATIENCE_S = 0.2, 0.002, 300.0
WEIGHTS = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}
HEADINGS = (
    "database", "trained", "killed at steps", "went on from", "weights", "losses", "at most", "holds",
)  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """What a fit left in the database, and the steps that its processes made, each in order."""

    weights: dict[str, Any]
    losses: dict[int, float]
    resumed: int
    made: list[list[int]]


def run(databases: tuple[str, ...], *, seed: int, kills: int = KILLS, steps: int = STEPS) -> Iterator[Table]:
    """Final weights and logged losses, as they are in the database, beside those of a fit that nobody killed."""
    table = Table(f"Fine-tuning 3. kill -9 at {kills} random moments of {steps} steps (seed {seed})", HEADINGS)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        random_llama(directory / "model", hidden=HIDDEN, layers=LAYERS, vocabulary=VOCABULARY)
        places = [stack.enter_context(opened(name, ROWS)) for name in databases]
        for form in FORMS:
            calm = fitted(places[0], directory, form, [], steps)
            for place in places:
                chance = random.Random(f"{seed} {form} {place.name}")
                third = steps // kills
                moments = [chance.randint(max(1, third * i), third * (i + 1) - 1) for i in range(kills)]
                add(table, place.name, form, calm, fitted(place, directory, form, moments, steps, chance))
    table.notes.append(
        f"a checkpoint every {SAVE_STEPS} steps; the output folder is deleted after every kill. The largest "
        "difference of any weight and of any logged loss, to the fit that ran through"
    )
    yield table


def add(table: Table, name: str, form: str, calm: Fitted, killed: Fitted) -> None:
    require(calm.losses.keys() == killed.losses.keys(), "the losses are not those of the same steps")
    weights = largest_difference(calm.weights, killed.weights)
    loss = max(abs(calm.losses[step] - killed.losses[step]) for step in calm.losses)
    died, again = [made[-1] for made in killed.made[:-1]], [made[0] - 1 for made in killed.made[1:]]
    holds = weights <= BOUND and loss <= BOUND and killed.resumed == len(died) and sum(again) > 0
    table.add(
        name, form, ", ".join(map(str, died)), ", ".join(map(str, again)), weights, loss, BOUND, holds=holds
    )  # fmt: skip


def fitted(
    place: Place, directory: Path, form: str, moments: list[int], steps: int, chance: random.Random | None = None
) -> Fitted:
    """A fit killed soon after each of these steps, and then left alone."""
    url, folder = place.renew(), directory / "output"
    made = []
    for moment in [*moments, None]:
        shutil.rmtree(folder, ignore_errors=True)
        log = directory / "steps"
        log.write_text("")
        arguments = [form, url, directory / "model", folder, steps, SAVE_STEPS, log]
        command = [sys.executable, "-m", "benchmarks.survivor", *map(str, arguments)]
        with subprocess.Popen(command, env={**os.environ, **QUIET}, stderr=subprocess.PIPE, text=True) as job:
            if moment is not None and chance is not None:
                wait_for(job, log, moment)
                time.sleep(chance.uniform(0, LONGEST_PAUSE_S))
                job.kill()
            _, told = job.communicate(timeout=PATIENCE_S)
        require((job.returncode == 0) == (moment is None), f"the fit ended with {job.returncode}: {told[-2000:]}")
        made.append([int(line) for line in log.read_text().splitlines()])
    shutil.rmtree(folder)
    return left(url, form, made)


def wait_for(job: subprocess.Popen[str], log: Path, step: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (lines := log.read_text().splitlines()) or int(lines[-1]) < step:
        require(job.poll() is None, f"the fit ended with {job.returncode} before step {step}")
        require(time.monotonic() < deadline, f"step {step} was not made in {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)


def left(url: str, form: str, made: list[list[int]]) -> Fitted:
    from safetensors.torch import load

    with pinnacle(url) as db:
        stored: Any = db.load("run", IDENTIFIER)
        final = next(checkpoint for checkpoint in stored.checkpoints() if checkpoint.is_final)
        weights = load(final.files[WEIGHTS[form]].read())
        return Fitted(weights, dict(losses(stored.series())["loss"]), stored.resumed, made)
