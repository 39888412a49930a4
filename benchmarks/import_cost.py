"""Figure 6: what `import pinnacle` costs beside SQLAlchemy alone, and what pip installs for it."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pinnacle
from benchmarks.table import Table
from pinnacle.base.distribution import DISTRIBUTION

REPEATS = 7
CPU_BOUND_S = 0.3
HEAVY = ("sqlalchemy", "numpy", "alembic", "click", "psycopg", "pymongo", "torch")
SCRIPT = """
import json, os, sys, time
cpu, wall = os.times(), time.perf_counter()
{statement}
now = os.times()
loaded = {{name.split(".")[0] for name in sys.modules}}
print(json.dumps([now.user + now.system - cpu.user - cpu.system, time.perf_counter() - wall, len(sys.modules),
                  sorted(loaded.intersection({heavy!r}))]))
"""


@dataclass(frozen=True)
class Cost:
    """Medians over fresh interpreters."""

    cpu_s: float
    wall_s: float
    modules: int
    heavy: list[str]


def run() -> Iterator[Table]:
    headings = ("statement", "CPU s", "wall s", "modules", "heavy packages loaded", "at most CPU s", "holds")
    table = Table("6. What the import costs", headings)
    for statement in ("pass", "import pinnacle", "import sqlalchemy"):
        cost = measure(statement)
        shown = (statement, f"{cost.cpu_s:.3f}", f"{cost.wall_s:.3f}", cost.modules, ", ".join(cost.heavy) or "none")
        if statement == "import pinnacle":
            table.add(*shown, CPU_BOUND_S, holds=cost.cpu_s < CPU_BOUND_S and not cost.heavy)
        else:
            table.add(*shown)
    yield table
    weight = Table("6. What pip installs for the core alone", ("package", "MB"))
    sizes = {name: size_of(name) / 1e6 for name in required(DISTRIBUTION)}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        weight.add(name, size)
    weight.add("all", sum(sizes.values()))
    yield weight


def measure(statement: str) -> Cost:
    script = SCRIPT.format(statement=statement, heavy=HEAVY)
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
        for _ in range(REPEATS)
    ]
    cpu_s, wall_s = (statistics.median(run[i] for run in runs) for i in (0, 1))
    return Cost(cpu_s, wall_s, runs[-1][2], runs[-1][3])


def required(name: str, known: frozenset[str] = frozenset()) -> frozenset[str]:
    """A distribution and all it requires without extras, as installed here."""
    known = known | {name}
    for requirement in distribution(name).requires or ():
        needed, _, marker = requirement.partition(";")
        found = re.match(r"[\w.-]+", needed)
        if found and not re.search("extra|python_version|platform", marker) and found[0].lower() not in known:
            known = required(found[0].lower(), known)
    return known


def size_of(name: str) -> int:
    """Bytes of a distribution's files, without bytecode; of this one its folder, wherever it is installed from."""
    if name == "pinnacle":
        files = list(Path(pinnacle.__file__).parent.rglob("*"))
    else:
        files = [Path(str(file.locate())) for file in distribution(name).files or ()]
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")
