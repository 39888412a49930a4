"""The registry of outputs, and the rows that were set aside with their errors."""

from __future__ import annotations

from typing import Any, Protocol

from pinnacle.base.limits import NEWEST_ERRORS
from pinnacle.base.rows import Fields, Key, OutputInfo, OutputSpec, RowError


class Outputs(Protocol):
    """The outputs of one database. What is read before pinnacle's own tables are there is empty."""

    def all(self) -> list[OutputInfo]:
        """All outputs, oldest first."""

    def of(self, model: str) -> list[OutputInfo]:
        """The outputs of one model."""

    def find(self, entity: Any, fields: Fields, model: str) -> OutputInfo | None:
        """The output of ``model`` on ``fields`` of a table or collection."""

    def column(self, entity: Any, info: OutputInfo) -> Any:
        """What a query of this database selects to get the output."""

    def rows(self, info: OutputInfo) -> Any:
        """The query for all rows of an output's table or collection."""

    def foreign(self, source: Any, spec: OutputSpec) -> int:
        """How many values at the place of an output pinnacle did not write, as long as it has written none there.

        Of an output that has rows recorded none are counted: what others put there since is healed.
        """

    def forget(self, output: int, *, drop_column: bool) -> None:
        """Remove an output's bookkeeping and batches, and with ``drop_column`` the column if pinnacle made it."""


class Errors(Protocol):
    """Rows that were set aside: they are not tried again before they are taken out.

    The newest `MAX_TRACEBACKS` of an output keep their traceback; older ones keep all else.
    """

    def newest(self, output: int | None = None, limit: int = NEWEST_ERRORS) -> list[RowError]:
        """Rows set aside, of one output or of all, newest first."""

    def counts(self) -> dict[int, int]:
        """How many rows are set aside, by output; outputs without any are left out."""

    def take(self, output: int) -> list[Key]:
        """Make an output's set-aside rows eligible again; return their keys."""
