"""Fine-tuning 1: a fit beside the same training written by hand with trl and peft."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.bulk import require
from benchmarks.fits import largest_difference, random_llama, reported
from benchmarks.places import Place, opened
from benchmarks.table import Table

ROWS, STEPS, SAVE_STEPS, ROUNDS = 400, 48, 24, 3
HIDDEN, LAYERS, VOCABULARY = 256, 8, 8_000
WEIGHTS_AT_LEAST = 10_000_000
TIME_BOUND, LOSS_BOUND = 1.05, 1e-6
TIME_HEADINGS = (
    "database", "from", "ours s", "median", "by hand s", "median", "ratio", "of pairs", "bound", "holds",
)  # fmt: skip
SAME_HEADINGS = ("database", "entries logged", "loss", "all that is logged", "adapter", "at most", "holds")
BY_HAND, ADAPTER = "by hand", "adapter_model.safetensors"
Side = dict[str, Any]


def run(databases: tuple[str, ...], *, rounds: int = ROUNDS, steps: int = STEPS) -> Iterator[Table]:
    """Each training is a fresh process, all by turns: the same rows, seeds and arguments, saves at the same steps."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        weights = random_llama(directory / "model", hidden=HIDDEN, layers=LAYERS, vocabulary=VOCABULARY)
        require(weights >= WEIGHTS_AT_LEAST, f"the model has {weights:,} weights only")
        places = [stack.enter_context(opened(name, ROWS)) for name in databases]
        taken = [one_round(places, directory, number, steps) for number in range(rounds)]
        title = f"Fine-tuning 1. LoRA on {weights / 1e6:.1f} million weights, {steps} steps, beside one by hand"
        times, same = Table(title, TIME_HEADINGS), Table("Fine-tuning 1. Differences of the two", SAME_HEADINGS)
        for place in places:
            compare(times, place.name, [(sides[place.name], sides[BY_HAND]) for sides in taken])
            compare_results(same, place.name, taken[0][place.name], taken[0][BY_HAND])
    times.notes += [
        f"{rounds} rounds; the best of each side is judged, and the median of the rounds' ratios is shown beside",
        f"ours stores {steps // SAVE_STEPS} checkpoints with their state and a new version of the model in the "
        "database; by hand saves as often into a folder, as ours does too",
    ]
    same.notes.append("the largest difference of any entry of the log, but for run times, and of any adapter weight")
    yield times
    yield same


def one_round(places: list[Place], directory: Path, number: int, steps: int) -> dict[str, Side]:
    """By hand once, on the first database, and ours on each; now the one first and now the other."""
    found: dict[str, Side] = {}
    sides = [(BY_HAND, places[0]), *((place.name, place) for place in places)]
    for label, place in sides if number % 2 == 0 else reversed(sides):
        side, folder = "by_hand" if label == BY_HAND else "ours", directory / f"{label}-{number}"
        arguments = (side, place.renew(), directory / "model", folder, steps, SAVE_STEPS)
        found[label] = {**reported("benchmarks.fitter", *arguments), "adapter": load_file(folder / ADAPTER)}
    return found


def compare(table: Table, name: str, rounds: list[tuple[Side, Side]]) -> None:
    """Seconds from the first step to the end, judged; CPU seconds of it, and those of the whole process."""

    def add(what: str, seconds: Callable[[Side], float], bound: float | None = None) -> None:
        ours, theirs = [seconds(one) for one, _ in rounds], [seconds(other) for _, other in rounds]
        best = min(ours) / min(theirs)
        paired = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        cells = (name, what, min(ours), statistics.median(ours), min(theirs), statistics.median(theirs), best, paired)
        if bound is None:
            table.add(*cells)
        else:
            table.add(*cells, bound, holds=best <= bound)

    add("the first step", lambda side: side["training_s"], TIME_BOUND)
    add("- CPU", lambda side: side["training_cpu_s"])
    add("the start", lambda side: side["start_s"] + side["training_s"])
    add("- of it start-up", lambda side: side["start_s"])


def compare_results(table: Table, name: str, ours: Side, theirs: Side) -> None:
    """The losses, all else that was logged, and the adapters, of one run of each side."""
    entries = list(zip(ours["history"], theirs["history"], strict=True))
    losses = [abs(one["loss"] - other["loss"]) for one, other in entries if "loss" in other]
    logged = [abs(one[key] - other[key]) for one, other in entries for key in other]
    adapter = largest_difference(ours["adapter"], theirs["adapter"])
    worst = max(*losses, *logged, adapter)
    table.add(name, len(entries), max(losses), max(logged), adapter, LOSS_BOUND, holds=worst <= LOSS_BOUND)
