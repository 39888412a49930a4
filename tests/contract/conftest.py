"""Fixtures of the contract suite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.models import CALLS


@pytest.fixture(autouse=True)
def calls() -> Iterator[list[Any]]:
    """What the models were called with in this test."""
    CALLS.clear()
    yield CALLS
    CALLS.clear()
