"""Fixtures of the integration tests."""

from __future__ import annotations

import pytest

from pinnacle.runtime import keeper, worker


@pytest.fixture
def impatient_workers(monkeypatch) -> None:
    """Workers of this process look more often than they need: no test waits for a pause."""
    monkeypatch.setattr(worker, "REGISTRY_S", 0.1)
    monkeypatch.setattr(keeper, "VERIFY_S", 0.2)
    monkeypatch.setattr(keeper, "POLL_S", 0.1)
