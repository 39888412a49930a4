"""Figure 5: SIGKILL at random moments of a predict, on each database, for each kind of model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.places import opened
from benchmarks.rows import bodies
from benchmarks.table import Table
from tests.kill_job import OUTPUT, kill_and_finish
from tests.kill_models import MODELS, window

ROWS = 20_000
KILLS = 20
SEED = 5
HEADINGS = (
    "database", "model", "kills", "rows wrong", "calls", "at most", "repeated a kill", "window", "calls again", "holds",
)  # fmt: skip


def run(databases: tuple[str, ...], *, rows: int = ROWS, kills: int = KILLS, seed: int = SEED) -> Iterator[Table]:
    """After the last kill the predict finishes: every row is right, and few calls were made twice."""
    table = Table(f"5. kill -9 at {kills} random moments of a predict over {rows:,} rows (seed {seed})", HEADINGS)
    expected = {key: body[::-1] for key, body in enumerate(bodies(rows), 1)}
    for name in databases:
        with opened(name, rows) as place:
            for identifier in MODELS:
                url = place.renew()
                with tempfile.TemporaryDirectory() as directory:
                    log = Path(directory) / "calls"
                    survived = kill_and_finish(url, identifier, log, rows=rows, kills=kills, seed=seed)
                stored = place.values(url, OUTPUT)
                wrong = sum(stored.get(key) != value for key, value in expected.items()) + len(stored.keys() - expected)
                most = rows + kills * window(identifier)
                table.add(
                    place.name, identifier, survived.kills, wrong, survived.calls, most,
                    (survived.calls - rows) / kills, window(identifier), survived.calls_when_finished,
                    holds=wrong == 0 and rows <= survived.calls <= most and survived.calls_when_finished == 0,
                )  # fmt: skip
    yield table
