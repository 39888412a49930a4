"""Fine-tuning 4: a million rows of text as a training set: memory before the first step, and rows a second."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.fits import random_llama, reported
from benchmarks.places import opened
from benchmarks.table import Table

ROWS = 1_000_000
HIDDEN, LAYERS, VOCABULARY = 64, 2, 8_000
MEMORY_BOUND_MB = 1536.0
HEADINGS = (
    "database", "rows", "model MB", "peak MB", "above it", "at most", "ours rows/s", "by hand", "ratio", "holds",
)  # fmt: skip


def run(databases: tuple[str, ...], *, rows: int = ROWS) -> Iterator[Table]:
    """Memory is the most that a fresh process ever had, before its first step; and with the model loaded alone."""
    table = Table(f"Fine-tuning 4. {rows:,} rows before the first step", HEADINGS)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        model = Path(directory) / "model"
        random_llama(model, hidden=HIDDEN, layers=LAYERS, vocabulary=VOCABULARY)
        for name in databases:
            with opened(name, rows) as place:
                url = place.renew()
                sides = {
                    how: reported("benchmarks.preparer", how, url, model, Path(directory) / f"{name}-{how}")
                    for how in ("loaded", "by_hand", "ours")
                }
            loaded, by_hand, ours = (sides[how] for how in ("loaded", "by_hand", "ours"))
            above = ours["peak_mb"] - loaded["peak_mb"]
            rate, hand_rate = rows / ours["seconds"], rows / by_hand["seconds"]
            table.add(
                place.name, rows, loaded["peak_mb"], ours["peak_mb"], above, MEMORY_BOUND_MB, rate, hand_rate,
                ours["seconds"] / by_hand["seconds"], holds=above < MEMORY_BOUND_MB,
            )  # fmt: skip
            table.notes.append(
                f"{place.name}: by hand it is {by_hand['arrow_mb']:,.0f} MB of Arrow, and "
                f"{by_hand['peak_mb'] - loaded['peak_mb']:,.0f} MB above the model's"
            )
    table.notes.append(
        "ours is from the call of fit to its first step: it counts and fingerprints the rows, loads the model and "
        "makes the trainer; by hand is a bare loop that reads, tokenizes and writes Arrow"
    )
    yield table
