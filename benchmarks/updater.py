"""Another process's single-row updates: ``python -m benchmarks.updater DATABASE URL ROWS SECONDS``.

Prints the time of each update in milliseconds, as JSON. Updates come at a steady pace, whatever the one before took.
"""

from __future__ import annotations

import json
import random
import sys
import time

from benchmarks.places import updates

PACE_S = 0.01


def measure(name: str, url: str, rows: int, seconds: float) -> list[float]:
    chance = random.Random(7)
    times_ms = []
    with updates(name, url) as update:
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            update(chance.randint(1, rows), f"edited at {began}")
            took = time.perf_counter() - began
            times_ms.append(1000 * took)
            time.sleep(max(0.0, PACE_S - took))
    return times_ms


if __name__ == "__main__":
    database, address, count, duration = sys.argv[1:]
    print(json.dumps(measure(database, address, int(count), float(duration))))
