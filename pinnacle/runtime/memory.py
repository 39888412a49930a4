"""Remembers outputs of a prediction by input, so that identical inputs are computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

MAX_ENTRIES = 100_000
MAX_BYTES = 32 * 2**20
SAMPLE = 20
LEVELS = 12
"""How deep a value is looked into: one that holds itself has no end."""


def bytes_of(values: Sequence[Any]) -> int:
    """Roughly how much memory the values take, from a few of them."""
    if not values:
        return 0
    sample = values[:: max(1, len(values) // SAMPLE)]
    return sum(_size(value) for value in sample) * len(values) // len(sample)


def _size(value: Any, levels: int = LEVELS) -> int:
    if isinstance(value, (str, bytes)):
        return len(value) + 60
    if isinstance(value, dict):
        return 200 + (sum(_size(item, levels - 1) for item in value.values()) if levels else 0)
    if isinstance(value, (list, tuple)):
        return 60 + (sum(_size(item, levels - 1) for item in value) if levels else 0)
    return int(getattr(value, "nbytes", 0)) + 60


class OutputMemory:
    """A bounded map from input identity to checked output.

    Two generations: when the young one is full, by entries or by the outputs' bytes, it
    becomes the old one, and the old one is dropped. So at least the last half of what fits
    is always known, at the cost of one dict operation an entry.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._half, self._half_bytes, self._bytes = max(1, max_entries // 2), max_bytes // 2, 0
        self._young: dict[Any, Any] = {}
        self._old: dict[Any, Any] = {}

    def knows_none_of(self, identities: list[Any]) -> bool:
        """A quick test for the usual case: all inputs new and different from each other."""
        return (
            len(set(identities)) == len(identities)
            and self._young.keys().isdisjoint(identities)
            and self._old.keys().isdisjoint(identities)
        )

    def get(self, identity: Any) -> tuple[bool, Any]:
        """(True, output) when the input was computed in this prediction."""
        if identity in self._young:
            return True, self._young[identity]
        if identity in self._old:
            return True, self._old[identity]
        return False, None

    def keep_only(self, identities: Iterable[Any]) -> None:
        """Forget the outputs of all other inputs."""
        kept = {identity: output for identity in identities for known, output in (self.get(identity),) if known}
        self._old, self._young, self._bytes = {}, kept, bytes_of(list(kept.values()))

    def put(self, identities: Sequence[Any], outputs: Sequence[Any]) -> None:
        added = bytes_of(outputs)
        if len(self._young) + len(identities) > self._half or self._bytes + added > self._half_bytes:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._bytes += added
        self._young.update(zip(identities, outputs, strict=True))
