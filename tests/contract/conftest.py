"""Fixtures of the contract suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pinnacle import Database, Settings, pinnacle
from pinnacle.backends.mongodb.changes import backlogs
from pinnacle.runtime import keeper, worker
from tests.contract.trainable import AT_STEP
from tests.llms import DOWN, DOWN_AFTER
from tests.models import ABSENT_PARTS, CALLS


@pytest.fixture(autouse=True)
def calls() -> Iterator[list[Any]]:
    """What the models were called with in this test."""
    CALLS.clear()
    yield CALLS
    CALLS.clear()
    ABSENT_PARTS.clear()


@pytest.fixture(autouse=True)
def brisk_workers(monkeypatch) -> None:
    """Workers of this process look sooner than they need to outside of tests, which wait for them."""
    monkeypatch.setattr(worker, "REGISTRY_S", 0.1)
    monkeypatch.setattr(worker, "FOLLOW_S", 0.2)
    monkeypatch.setattr(keeper, "POLL_S", 0.2)
    monkeypatch.setattr(backlogs, "SWEEP_EVERY_S", 0.2)


@pytest.fixture
def cache_dir(tmp_path, monkeypatch) -> Iterator[Path]:
    """Where fits of this test work and unpack; nothing is done at their steps any more afterwards."""
    monkeypatch.setenv("PINNACLE_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    AT_STEP.clear()


@pytest.fixture
def outage() -> Iterator[list[bool]]:
    """Not empty while the provider of `tests.llms` does not answer."""
    yield DOWN
    DOWN.clear()
    DOWN_AFTER.clear()


@pytest.fixture
def impatient(backend) -> Iterator[Database]:
    """A handle whose predictions wait for a provider no longer than this."""
    with pinnacle(backend.address, settings=Settings(outage_patience_s=0.2)) as handle:
        yield handle


@pytest.fixture
def elsewhere(backend) -> Iterator[Database]:
    """Another handle on the same database: another process, for all that the first can tell."""
    with backend.open() as handle:
        yield handle
