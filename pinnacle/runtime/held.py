"""A page of rows in a prediction's hands, and what has become of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pinnacle.base.rows import Failure, Key, OutputBatch, Page, Unreadable
from pinnacle.runtime.outcomes import Failed, Outcomes, message_of, pick, trace_of


@dataclass(eq=False, kw_only=True)
class Held:
    """A claimed page, what is known of its rows by their positions, and the writes that it waits for.

    ``taken``: keys of the page that others hold. ``asked``: positions whose inputs go to the model. ``followers``: of
    one of these the others that have the same input; ``others``: rows of later pages that have it. ``settled``:
    positions whose output or failure is on its way to the database; ``left``: those to come back to. ``is_retried``:
    the outputs that are remembered for its inputs are its rows' own. ``write_whole``: tried first with a batch that may
    be all of the page; writes it with all that its claim needs, or nothing (False).
    """

    page: Page
    lease: str = ""
    taken: Sequence[Key] = ()
    is_retried: bool = False
    write_whole: Callable[[OutputBatch], bool] | None = None
    asked: Sequence[int] = ()
    followers: dict[int, list[int]] = field(default_factory=dict)
    others: dict[int, list[tuple[Held, int]]] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)
    writes: list[Future[None]] = field(default_factory=list)

    def inputs(self, positions: Sequence[int]) -> Sequence[Any]:
        return self.page.inputs if len(positions) == len(self.page.keys) else pick(self.page.inputs, positions)

    def identities(self, positions: Sequence[int]) -> Sequence[Any]:
        """For each of the positions, a hashable that is equal where inputs are."""
        return self.page.identities if len(positions) == len(self.page.keys) else pick(self.page.identities, positions)

    def alike(self, position: int) -> list[int]:
        """The positions of all rows whose input is that of ``position``, which goes to the model for them."""
        return [position, *self.followers.get(position, ())]

    def rows_alike(self, position: int) -> list[tuple[Held, int]]:
        """The same, with the rows of later pages."""
        return [*((self, alike) for alike in self.alike(position)), *self.others.get(position, ())]

    def under_way(self) -> list[int]:
        """All positions whose outcomes are still to come."""
        if not self.is_open:
            return []
        return [i for i in range(len(self.page.keys)) if i not in self.settled and i not in self.left]

    def unsettled(self) -> list[int]:
        """What went to the model and has not come back."""
        return [position for position in self.asked if position not in self.settled and position not in self.left]

    def shared(self, outcomes: Outcomes) -> dict[Held, Outcomes]:
        """The outcomes with those of all rows that have the same inputs, by page."""
        if not self.followers and not self.others:
            return {self: outcomes}
        shared: defaultdict[Held, Outcomes] = defaultdict(Outcomes)
        for position, output in zip(outcomes.positions, outcomes.outputs, strict=True):
            for held, alike in self.rows_alike(position):
                shared[held].positions.append(alike)
                shared[held].outputs.append(output)
        for item in outcomes.failed:
            for held, alike in self.rows_alike(item.position):
                shared[held].failed.append(Failed(alike, item.error, item.attempts))
        return shared

    @property
    def is_open(self) -> bool:
        """Whether outcomes are still to come, and the lease is not to be released."""
        return len(self.settled) + len(self.left) < len(self.page.keys)

    def is_written(self) -> bool:
        """Whether nothing of it is under way any more."""
        return not self.is_open and all(write.done() for write in self.writes)


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
