"""Watches one listener while it is tortured: ``python -m benchmarks.torture_checker URL OUTPUT LEAST``.

It goes on until SIGTERM, and until ``LEAST`` checks are made.

A row that pinnacle calls fresh in a snapshot must have, in that snapshot, the output that its inputs give. Prints,
as JSON, a `Checked`.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from benchmarks.torture_models import LANGUAGE
from benchmarks.torture_verdict import Look

PACE_S = 0.05
MAX_FINDINGS = 20


@dataclass
class Checked:
    """``checks``: rows called fresh that were compared with a recomputation. ``oldest_s``: the longest time that a
    row was not fresh in all snapshots in a row, whatever was written to it meanwhile."""

    snapshots: int = 0
    checks: int = 0
    oldest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Sight(Protocol):
    """One listener's rows and pinnacle's own verdict on them."""

    def look(self) -> Look: ...

    def orphans(self) -> list[Any]: ...

    def close(self) -> None: ...


def check(sight: Sight, output: str, stop: threading.Event, least_checks: int) -> Checked:
    found, since = Checked(), dict[Any, float]()
    while not stop.is_set() or found.checks < least_checks:
        now = time.monotonic()
        look = sight.look()
        found.snapshots += 1
        selected = {key: row for key, row in look.rows.items() if output == "summary" or row.language == LANGUAGE}
        if look.read != len(selected) or look.set_aside:
            found.wrong.append(f"{len(selected)} rows, of which {look.read} were read and {look.set_aside} set aside")
        for key, row in selected.items():
            if key in look.stale:
                continue
            found.checks += 1
            if not row.is_right(output):
                found.wrong.append(f"row {key} is called fresh: {row}")
        waiting = look.stale | {k for k, row in look.rows.items() if k not in selected and row.headline is not None}
        since = {key: since.get(key, now) for key in waiting}
        found.oldest_s = max([found.oldest_s, *(now - at for at in since.values())])
        found.wrong = found.wrong[:MAX_FINDINGS]
        time.sleep(PACE_S)
    return found


def opened(url: str, output: str) -> Sight:
    language = LANGUAGE if output == "headline" else None
    if url.startswith("mongodb"):
        from benchmarks.torture_mongo import MongoSight

        return MongoSight(url, output, language)
    from benchmarks.torture_sql import SqlSight

    return SqlSight(url, output, language)


def main(url: str, output: str, least_checks: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sight = opened(url, output)
    print(json.dumps(asdict(check(sight, output, stop, int(least_checks)))))
    sight.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
