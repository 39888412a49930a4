"""Finished work is kept: a predict killed with SIGKILL goes on where it stopped."""

from __future__ import annotations

import pytest

from pinnacle.backends.protocol import Capability
from tests.kill_job import OUTPUT, kill_and_finish
from tests.kill_models import MODELS, window

ROWS = 2_000
KILLS = 2


@pytest.mark.unmigrated
@pytest.mark.requires(Capability.TRANSACTIONS)
@pytest.mark.parametrize("identifier", sorted(MODELS))
def test_a_killed_predict_loses_no_row_and_repeats_little(backend, tmp_path, identifier):
    backend.create("docs", {"body": str})
    backend.insert("docs", *({"body": f"text {number}"} for number in range(ROWS)))

    survived = kill_and_finish(
        backend.address, identifier, tmp_path / "calls", rows=ROWS, kills=KILLS, seed=len(backend.name + identifier)
    )

    stored = backend.read_all("docs").values()
    assert [row[OUTPUT] for row in stored] == [row["body"][::-1] for row in stored]
    assert len(stored) == ROWS
    assert survived.kills == KILLS
    assert ROWS <= survived.calls <= ROWS + KILLS * window(identifier)
    assert survived.calls_when_finished == 0
