"""Named points where a process may be made to kill itself, so that tests see what a crash there leaves behind."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping
from functools import cache

from pinnacle.base.errors import ConfigError

POINTS_VARIABLE = "PINNACLE_FAILPOINTS"
SEED_VARIABLE = "PINNACLE_FAILPOINTS_SEED"
POINTS = (
    "in-fold", "after-fold", "in-claim", "after-claim", "after-model", "before-write", "in-write", "after-write",
    "in-forget", "before-finish", "in-finish", "after-finish", "in-sweep", "in-book", "in-save", "after-save",
    "before-register", "after-register",
)  # fmt: skip
"""``in-`` is inside a transaction; ``in-write`` where a write is more than one statement. ``in-save`` is between what
a checkpoint is gone on from and the checkpoint, ``-register`` around the new version of a model that was trained.
``in-book`` is between the two halves of booking a batch of a provider's and forgetting it."""


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL, if ``PINNACLE_FAILPOINTS`` names the point, as often as it says.

    ``PINNACLE_FAILPOINTS="after-claim:0.01;in-write:0.5"`` gives probabilities, and
    ``PINNACLE_FAILPOINTS_SEED`` makes them the same again. Without it, nothing is done.
    The point is named on standard error first.
    """
    points = _points()
    if points and _chance().random() < points.get(name, 0.0):
        os.write(2, f"failpoint {name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


@cache
def _points() -> Mapping[str, float]:
    return parse(os.environ.get(POINTS_VARIABLE, ""))


@cache
def _chance() -> random.Random:
    return random.Random(os.environ.get(SEED_VARIABLE))


def parse(text: str) -> Mapping[str, float]:
    """Probabilities by point; ConfigError for a point that is not there, or what is no probability."""
    points: dict[str, float] = {}
    for part in filter(None, text.split(";")):
        name, _, chance = part.partition(":")
        try:
            points[name] = float(chance)
        except ValueError:
            points[name] = -1.0
        if name not in POINTS or not 0 <= points[name] <= 1:
            raise ConfigError(f"{POINTS_VARIABLE} takes name:probability of {', '.join(POINTS)}; not {part!r}")
    return points
