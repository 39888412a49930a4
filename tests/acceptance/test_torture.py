"""Columns cannot go stale: a short torture of listeners, with workers killed while three programs write.

The long one is ``python -m benchmarks torture``.
"""

from __future__ import annotations

import pytest

from benchmarks.torture import torture
from pinnacle.backends.protocol import Capability

pytestmark = pytest.mark.unmigrated

SECONDS = 6.0
SEED = 11
LEAST_CHECKS = 100
BOUND_S = 300.0
"""How long a row may be not fresh here, where a busy machine starts workers slowly; the long one is strict."""


@pytest.mark.requires(Capability.TRANSACTIONS)
def test_no_change_is_lost_or_paid_for_twice_when_workers_are_killed(backend):
    suffered = torture(backend.name, backend.address, seconds=SECONDS, seed=SEED, least_checks=LEAST_CHECKS)

    assert suffered.violations(BOUND_S, least_checks=LEAST_CHECKS) == []
    assert suffered.kills.total() >= 2
    assert suffered.rows > 0
