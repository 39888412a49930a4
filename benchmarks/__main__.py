"""Measures and prints figures: ``python -m benchmarks [NAME ...]``; exits with 1 when one misses its bound."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator

from benchmarks import (
    backlog,
    bulk,
    checkpoint_store,
    contention,
    fit_crash,
    fit_learns,
    fit_overhead,
    fit_rows,
    hostile,
    idle_snapshot,
    import_cost,
    kills,
    large,
    latency,
    llm_bodies,
    llm_budget,
    llm_faults,
    llm_limits,
    llm_rate,
    local_llm,
    minilm,
    poison,
    stream_cost,
    torture,
    vectors,
    waits,
    worker_memory,
    writer_cost,
)
from benchmarks.places import NAMES
from benchmarks.table import Table

FIGURES: dict[str, tuple[str, Callable[[argparse.Namespace], Iterator[Table]]]] = {
    "bulk": (
        "1 and 4: a trivial function over 100,000 rows, and again",
        lambda asked: bulk.run(asked.database, asked.repeats),
    ),
    "large": ("2: ten times the rows", lambda asked: large.run(asked.database)),
    "minilm": ("3: embeddings beside the library alone", lambda asked: minilm.run()),
    "kills": ("5: kill -9 at random moments", lambda asked: kills.run(asked.database)),
    "import": ("6: what the import and the installation cost", lambda asked: import_cost.run()),
    "contention": ("7: other processes' updates meanwhile", lambda asked: contention.run(asked.database)),
    "latency": ("listeners 1: from a commit to the output", lambda asked: latency.run(asked.database)),
    "backlog": ("listeners 2: a backlog beside the bulk predict", lambda asked: backlog.run(asked.database)),
    "writer_cost": ("listeners 3: inserts beside an outbox by hand", lambda asked: writer_cost.run(asked.database)),
    "vectors": ("listeners 3: updates of rows with a vector", lambda asked: vectors.run(asked.database)),
    "stream_cost": ("listeners 3: inserts beside a change stream", lambda asked: stream_cost.run(asked.database)),
    "torture": (
        "listeners 4: writers of every kind, workers killed all the time",
        lambda asked: torture.run(asked.database, seconds=asked.seconds, seed=asked.seed),
    ),
    "hostile": ("values 3: hostile values of every type", lambda asked: hostile.run(asked.database)),
    "waits": ("listeners 5: the application's own statements", lambda asked: waits.run(asked.database)),
    "poison": ("listeners 6: a poison row, and an outage", lambda asked: poison.run(asked.database)),
    "worker_memory": (
        "listeners 7: a worker's memory over a large backlog",
        lambda asked: worker_memory.run(asked.database, rows=asked.rows),
    ),
    "llm_rate": ("llm 1: a language model beside a bare loop", lambda asked: llm_rate.run()),
    "llm_limits": ("llm 2: a limit that is learned, and one that is declared", lambda asked: llm_limits.run()),
    "llm_faults": ("llm 3: a provider that fails, or is not there", lambda asked: llm_faults.run()),
    "llm_budget": ("llm 4: costs beside counted tokens, and budgets", lambda asked: llm_budget.run()),
    "llm_bodies": ("llm 6: answers without measure", lambda asked: llm_bodies.run()),
    "local_llm": ("llm 5: a local model over rows", lambda asked: local_llm.run()),
    "fit_overhead": (
        "fine-tuning 1: beside trl and peft by hand",
        lambda asked: fit_overhead.run(asked.database),
    ),
    "fit_learns": ("fine-tuning 2: a pattern learned, and preferred", lambda asked: fit_learns.run()),
    "fit_crash": (
        "fine-tuning 3: kill -9 at random moments of a fit",
        lambda asked: fit_crash.run(asked.database, seed=asked.seed),
    ),
    "fit_rows": ("fine-tuning 4: a million rows before the first step", lambda asked: fit_rows.run(asked.database)),
    "checkpoint_store": (
        "fine-tuning 5: a checkpoint of 500 MB into and out of the database",
        lambda asked: checkpoint_store.run(asked.database),
    ),
    "idle_snapshot": ("listeners 8: folds beside an idle session", lambda asked: idle_snapshot.run(asked.database)),
}


def main(arguments: list[str]) -> int:
    asked = parse(arguments)
    misses = 0
    for name in asked.figures or FIGURES:
        for table in FIGURES[name][1](asked):
            print(table, flush=True)
            misses += table.misses
    print(f"lines that miss their bound: {misses}")
    return int(misses > 0)


def parse(arguments: list[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {name:<17}{what}" for name, (what, _) in FIGURES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Measure figures, each beside its ceiling in the same run; all of them by default:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figures", nargs="*", metavar="NAME", help="a figure from the list above")
    parser.add_argument("--database", nargs="+", choices=NAMES, default=NAMES, help="only on these, not on all three")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side in figures 1 and 4 (5)")
    parser.add_argument("--rows", type=int, default=worker_memory.ROWS, help="the backlog of worker_memory (300,000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the torture writes (60)")
    parser.add_argument("--seed", type=int, default=1, help="of what the torture writes and of what is killed (1)")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.figures) - FIGURES.keys():
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    return asked


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    sys.exit(main(sys.argv[1:]))
