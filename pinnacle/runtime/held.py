"""A page of rows in a run's hands, and what has become of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pinnacle.base.rows import Failure, Page
from pinnacle.runtime.calling import Failed


@dataclass(eq=False)
class Held:
    """A claimed page and the writes it waits for.

    ``answered``: positions of inputs that are settled. ``met``: those that met an outage instead.
    """

    page: Page
    lease: str
    is_retried: bool = False
    writes: list[Future[None]] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    met: dict[int, Failed] = field(default_factory=dict)

    def is_settled(self) -> bool:
        return all(write.done() for write in self.writes)


def pick(column: Sequence[Any], positions: Sequence[int]) -> Sequence[Any]:
    """The values at ``positions``; a slice where these are consecutive."""
    first, stop = positions[0], positions[0] + len(positions)
    if positions[-1] == stop - 1 and list(positions) == list(range(first, stop)):
        return column[first:stop]
    return [column[i] for i in positions]


def failures_of(page: Page, failed: Sequence[Failed]) -> list[Failure]:
    """Failed inputs as they are set aside, with the rows of ``page`` that they are from."""
    return [
        Failure(
            page.keys[item.position], page.witnesses[item.position], type(item.error).__name__, item.message,
            item.trace, item.attempts,
        )
        for item in failed
    ]  # fmt: skip
