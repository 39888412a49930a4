"""mongomock for several threads: they take turns, as it changes documents in place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

_turn = threading.RLock()


class InTurns:
    """A collection or cursor of mongomock whose every call waits for those of other threads.

    Without it a reader meets documents that a writer has half changed.
    """

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        def in_turn(*args: Any, **kwargs: Any) -> Any:
            with _turn:
                result = attribute(*args, **kwargs)
                return InTurns(result) if hasattr(result, "__next__") else result

        return in_turn

    def __iter__(self) -> Iterator[Any]:
        """What a cursor finds, all of it read in one turn."""
        with _turn:
            return iter(list(self._target))
