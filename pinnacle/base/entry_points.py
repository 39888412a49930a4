"""What installed packages offer by entry points: read anew only where packages were installed since."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint

Stamp = tuple[tuple[str, int], ...]


def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
    """Those of a group, or of one name in it, as `importlib.metadata.entry_points` finds them: that reads a file of
    every installed package at each call."""
    return [point for point in _group(_stamp(), group) if name is None or point.name == name]


def _stamp() -> Stamp:
    """Another one once a package was installed or removed, or is looked for in another place."""
    return tuple((place, _changed_at(place or os.curdir)) for place in sys.path)


def _changed_at(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=16)
def _group(stamp: Stamp, group: str) -> Sequence[EntryPoint]:
    return tuple(importlib.metadata.entry_points(group=group))
