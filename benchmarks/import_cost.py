"""What `import pinnacle` costs: CPU, wall time and modules, beside an empty interpreter and SQLAlchemy alone.

Run: python -m benchmarks.import_cost
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass

REPEATS = 7
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

    statement: str
    cpu_s: float
    wall_s: float
    modules: int
    heavy: list[str]

    def __str__(self) -> str:
        heavy = ", ".join(self.heavy) or "none"
        return f"{self.statement:<22}{self.cpu_s:>8.3f}{self.wall_s:>9.3f}{self.modules:>9}  {heavy}"


def measure(statement: str) -> Cost:
    script = SCRIPT.format(statement=statement, heavy=HEAVY)
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
        for _ in range(REPEATS)
    ]
    cpu_s, wall_s = (statistics.median(run[i] for run in runs) for i in (0, 1))
    return Cost(statement, cpu_s, wall_s, runs[-1][2], runs[-1][3])


def main() -> None:
    print(f"{'statement':<22}{'CPU s':>8}{'wall s':>9}{'modules':>9}  heavy packages loaded")
    for statement in ("pass", "import pinnacle", "import sqlalchemy"):
        print(measure(statement))
    print("bound: import pinnacle under 0.3 s of CPU, no heavy package")


if __name__ == "__main__":
    main()
