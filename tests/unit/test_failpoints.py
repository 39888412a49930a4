from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pinnacle.base.errors import ConfigError
from pinnacle.base.failpoints import POINTS, POINTS_VARIABLE, SEED_VARIABLE, parse

ROOT = Path(__file__).parents[2]
SCRIPT = (
    "from pinnacle.base.failpoints import failpoint\nfor turn in range(1000): print(turn); failpoint('after-claim')"
)


def turns(points: str, seed: str = "1") -> tuple[int, int]:
    """How a process ended that came by ``after-claim`` up to 1000 times, and how often it did."""
    environment = {**os.environ, POINTS_VARIABLE: points, SEED_VARIABLE: seed, "PYTHONUNBUFFERED": "1"}
    ended = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, cwd=ROOT, capture_output=True, text=True)
    return ended.returncode, len(ended.stdout.split())


def test_a_point_that_is_not_named_does_nothing():
    assert turns("") == (0, 1000)
    assert turns("after-fold:1") == (0, 1000)


def test_a_named_point_kills_as_often_as_it_says_and_at_the_same_time_for_the_same_seed():
    assert turns("after-claim:1") == (-signal.SIGKILL, 1)
    status, survived = turns("after-claim:0.05")
    assert status == -signal.SIGKILL
    assert 1 < survived < 200
    assert turns("after-claim:0.05") == (status, survived)


def test_all_points_can_be_given_at_once():
    assert parse(";".join(f"{name}:0.5" for name in POINTS)) == dict.fromkeys(POINTS, 0.5)


@pytest.mark.parametrize("wrong", ["nowhere:0.1", "after-claim:often", "after-claim:2", "after-claim"])
def test_what_is_no_point_or_no_probability_is_refused(wrong):
    with pytest.raises(ConfigError, match="name:probability"):
        parse(wrong)
