"""A page of rows in a prediction's hands, and what has become of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pinnacle.base.rows import Failure, Key, Page, Unreadable
from pinnacle.runtime.caller import Failed, message_of, trace_of


@dataclass(eq=False, kw_only=True)
class Held:
    """A claimed page, what is known of its rows by their positions, and the writes that it waits for.

    ``taken``: keys of the page that others hold. ``followers``: of a position whose input goes to the model, the others
    that have the same input. ``settled``: positions whose output or failure is on its way to the database. ``met``:
    inputs that met an outage instead. ``is_open``: outcomes are still to come, and the lease is not to be released.
    ``is_retried``: the outputs that are remembered for its inputs are its rows' own.
    """

    page: Page
    lease: str = ""
    taken: Sequence[Key] = ()
    is_retried: bool = False
    is_open: bool = True
    followers: dict[int, list[int]] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    met: dict[int, Failed] = field(default_factory=dict)
    writes: list[Future[None]] = field(default_factory=list)

    def inputs(self, positions: Sequence[int]) -> Sequence[Any]:
        return self.page.inputs if len(positions) == len(self.page.keys) else pick(self.page.inputs, positions)

    def identities(self, positions: Sequence[int]) -> Sequence[Any]:
        """For each of the positions, a hashable that is equal where inputs are."""
        return self.page.identities if len(positions) == len(self.page.keys) else pick(self.page.identities, positions)

    def alike(self, position: int) -> list[int]:
        """The positions of all rows whose input is that of ``position``, which goes to the model for them."""
        return [position, *self.followers.get(position, ())]

    def is_written(self) -> bool:
        """Whether nothing of it is under way any more."""
        return not self.is_open and all(write.done() for write in self.writes)


def pick(column: Sequence[Any], positions: Sequence[int]) -> Sequence[Any]:
    """The values at ``positions``; a slice where these are consecutive."""
    if not positions:
        return []
    first, stop = positions[0], positions[0] + len(positions)
    if positions[-1] == stop - 1 and list(positions) == list(range(first, stop)):
        return column[first:stop]
    return [column[i] for i in positions]


def failure_of(row: Unreadable) -> Failure:
    """A row that could not be read, as it is set aside."""
    error = row.error
    return Failure(
        key=row.key,
        witness=row.witness,
        error=type(error).__name__,
        message=message_of(error),
        traceback=trace_of(error),
        attempts=1,
    )


def failures_of(page: Page, failed: Sequence[Failed]) -> list[Failure]:
    """Failed inputs as they are set aside, with the rows of ``page`` that they are from."""
    return [
        Failure(
            key=page.keys[item.position],
            witness=page.witnesses[item.position],
            error=type(item.error).__name__,
            message=item.message,
            traceback=item.trace,
            attempts=item.attempts,
        )
        for item in failed
    ]
