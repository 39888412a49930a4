"""Remembers outputs of a run by input, so that identical inputs are computed once."""

from __future__ import annotations

from typing import Any

MAX_ENTRIES = 100_000


class RunMemory:
    """A bounded map from input identity to checked output.

    Two generations: when the young one is full it becomes the old one, and the old one is
    dropped. At least the last ``max_entries / 2`` inputs are always known, at the cost of
    one dict operation an entry.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._half = max(1, max_entries // 2)
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
        """(True, output) when the input was computed in this run."""
        if identity in self._young:
            return True, self._young[identity]
        if identity in self._old:
            return True, self._old[identity]
        return False, None

    def put(self, identities: list[Any], outputs: list[Any]) -> None:
        if len(self._young) + len(identities) > self._half:
            self._old, self._young = self._young, {}
        self._young.update(zip(identities, outputs, strict=True))
