"""What goes to a model in one call, and what comes of it."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pinnacle.base.errors import ModelError, halts_prediction
from pinnacle.base.outages import is_outage


@dataclass(frozen=True)
class Failed:
    """One input that raised; ``others_served``: it met an outage, and later inputs met none."""

    position: int
    error: BaseException
    attempts: int
    others_served: bool = False

    @property
    def is_final(self) -> bool:
        """Whether it would fail again."""
        return isinstance(self.error, ModelError) and self.error.is_final

    @property
    def message(self) -> str:
        return message_of(self.error)

    @property
    def trace(self) -> str:
        return trace_of(self.error)


def message_of(error: BaseException) -> str:
    """What an error says of itself."""
    try:
        return str(error)
    except Exception as second:  # of the user's own exception class
        return f"its message cannot be had: str() raised {type(second).__name__}"


def trace_of(error: BaseException) -> str:
    """An error's traceback as text."""
    return "".join(traceback.format_exception(error))


def is_about_more(error: BaseException) -> bool:
    """Whether an error tells that others may fare no better: who asks hears of it before it asks more."""
    return halts_prediction(error) or is_outage(error)


@dataclass
class Outcomes:
    """A portion of finished inputs: outputs aligned with positions, and the failed ones.

    ``unanswered``: those that met an outage. ``bytes``: roughly what the outputs take.
    """

    positions: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    unanswered: list[Failed] = field(default_factory=list)
    bytes: int = 0

    def __len__(self) -> int:
        return len(self.positions) + len(self.failed)

    @property
    def is_alarming(self) -> bool:
        """Whether one of the errors is about more than its input."""
        return any(is_about_more(item.error) for item in self.failed)

    def add(self, other: Outcomes) -> None:
        self.positions = self.positions + other.positions
        self.outputs = [*self.outputs, *other.outputs]
        self.failed = self.failed + other.failed


@dataclass(frozen=True, eq=False)
class Unit:
    """Inputs of one call, or, of a model that is called one by one, of calls in a row.

    ``owner``: whose ``positions`` these are, such as a page's.
    """

    owner: Any
    positions: Sequence[int]
    inputs: Sequence[Any]
    attempt: int = 1

    def again(self, failed: Failed) -> Unit:
        """An input of it that failed, to be tried alone."""
        return Unit(
            self.owner, [self.positions[failed.position]], [self.inputs[failed.position]], failed.attempts + 1
        )  # fmt: skip


def pick(column: Sequence[Any], positions: Sequence[int]) -> Sequence[Any]:
    """The values at ``positions``; a slice where these are consecutive."""
    if not positions:
        return []
    first, stop = positions[0], positions[0] + len(positions)
    if positions[-1] == stop - 1 and list(positions) == list(range(first, stop)):
        return column[first:stop]
    return [column[i] for i in positions]


Landed = tuple[Unit, Outcomes]
"""A unit, and outcomes of its inputs by their places in it."""
