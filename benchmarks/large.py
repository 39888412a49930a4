"""Figure 2: ten times the rows take ten times the time, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

from benchmarks.bulk import check, require, timed
from benchmarks.models import word_count
from benchmarks.places import Place, opened
from benchmarks.table import Table

SMALL, LARGE = 100_000, 1_000_000
RATIO_BOUND, GROWTH_BOUND_MB = 11.0, 150.0
REPEATS_SMALL = 3
HEADINGS = ("database", "who", "small s", "large s", "ratio", "at most", "grows MB", "at most", "peak MB", "holds")


class Predicted(NamedTuple):
    """A predict in a process of its own, as `benchmarks.predictor` reports it."""

    seconds: float
    early_mb: float
    peak_mb: float


def run(databases: tuple[str, ...], *, small: int = SMALL, large: int = LARGE) -> Iterator[Table]:
    """Memory grows from what the predicting process holds after the first ``small`` rows."""
    table = Table(f"2. {large:,} rows", HEADINGS)
    for name in databases:
        if name == "mongodb":
            continue
        seconds: dict[str, list[float]] = {"ours": [], "by hand": []}
        grown = peak = 0.0
        for rows in (small, large):
            with opened(name, rows) as place:
                repeats = REPEATS_SMALL if rows == small else 1
                runs = [predicted(place, rows, small) for _ in range(repeats)]
                seconds["ours"].append(min(result.seconds for result in runs))
                seconds["by hand"].append(min(by_hand(place, name) for _ in range(repeats)))
                grown, peak = runs[-1].peak_mb - runs[-1].early_mb, runs[-1].peak_mb
        ratio = seconds["ours"][1] / seconds["ours"][0]
        holds = ratio <= RATIO_BOUND * large / (small * 10) and grown < GROWTH_BOUND_MB
        table.add(place.name, "ours", *seconds["ours"], ratio, RATIO_BOUND, grown, GROWTH_BOUND_MB, peak, holds=holds)
        table.add(place.name, "by hand", *seconds["by hand"], seconds["by hand"][1] / seconds["by hand"][0])
    yield table


def predicted(place: Place, rows: int, early: int) -> Predicted:
    """Predict in a new process, and check every row."""
    url = place.renew()
    command = [sys.executable, "-m", "benchmarks.predictor", url, str(early)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    check(place, url, rows)
    return Predicted(*json.loads(finished.stdout))


def by_hand(place: Place, name: str) -> float:
    """One of the quick ways to write; figure 1 chooses among all."""
    ways = import_module(f"benchmarks.ceilings.{name}").WAYS
    url = place.renew()
    seconds = timed(list(ways.values())[-1], url, word_count.function)
    require(bool(place.values(url, "words")), "nothing was written by hand")
    return seconds
