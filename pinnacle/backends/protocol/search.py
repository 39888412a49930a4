"""Where search begins: what finds the rows of a source by their nearness to a vector or by their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pinnacle.backends.protocol.rows import Source
from pinnacle.base.rows import Key, OutputInfo


class Searcher(Protocol):
    """How one database searches; `Backend.searcher` of those with a capability for it, and in their `search.py`.

    Its indexes are rebuildable, and never the truth: `uncovered` counts what is missing from them.
    """

    def nearest(self, source: Source, info: OutputInfo, vector: Sequence[float], limit: int) -> list[tuple[Key, float]]:
        """The keys of the ``limit`` rows of a source whose output is nearest to ``vector``, with their distance,
        nearest first. Needs `Capability.VECTOR_SEARCH`."""

    def matching(self, source: Source, words: str, limit: int) -> list[tuple[Key, float]]:
        """The keys of the ``limit`` rows whose fields match ``words`` best, with their score, best first.
        Needs `Capability.TEXT_SEARCH`."""

    def uncovered(self, source: Source) -> int:
        """How many rows of a source no search would find yet."""
