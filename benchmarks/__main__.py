"""Measures and prints figures: ``python -m benchmarks [NAME ...]``; exits with 1 when one misses its bound."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator

from benchmarks import bulk, contention, import_cost, kills, large, minilm
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
    listed = "\n".join(f"  {name:<12}{what}" for name, (what, _) in FIGURES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Measure figures, each beside its ceiling in the same run; all of them by default:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figures", nargs="*", metavar="NAME", help="a figure from the list above")
    parser.add_argument("--database", nargs="+", choices=NAMES, default=NAMES, help="only on these, not on all three")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side in figures 1 and 4 (5)")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.figures) - FIGURES.keys():
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    return asked


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    sys.exit(main(sys.argv[1:]))
