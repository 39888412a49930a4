"""Counts what a prediction would compute, and neither calls nor writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pinnacle.base.rows import Page
from pinnacle.runtime.caller import Caller
from pinnacle.runtime.memory import OutputMemory
from pinnacle.runtime.result import PredictResult


def count_only(
    pages: Iterable[Page], caller: Caller, result: PredictResult, on_progress: Callable[[int], None]
) -> None:
    """Add to ``result`` the inputs that would be computed, those that are NULL, those that are alike, and the rows that
    cannot be read."""
    memory = OutputMemory()
    for page in pages:
        for value, identity in zip(page.inputs, page.identities, strict=True):
            if caller.model.skip_null and caller.has_null(value):
                result.empty += 1
            elif memory.get(identity)[0]:
                result.deduplicated += 1
            else:
                memory.put([identity], [None])
                result.computed += 1
        result.failed += len(page.unreadable)
        on_progress(len(page.keys) + len(page.unreadable))
