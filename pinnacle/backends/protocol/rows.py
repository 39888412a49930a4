"""The rows of a query, and one output over them: read, claimed against other owners, written, set aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.rows import Failure, Fields, Key, OutputBatch, OutputInfo, Page

NO_OUTPUT = "pinnacle_rows"
"""The name of the output that a `Target` is over which only reads: no row has it."""


class Source(Protocol):
    """A query resolved to one table or collection with keys, inputs and a condition.

    Each backend has its own; callers hand it back to `plan` and `bind` as they got it.
    """

    @property
    def table(self) -> str:
        """The table's or collection's name, with its schema where it has one."""

    @property
    def fields(self) -> Fields:
        """The fields, by the names the database knows."""

    def beside(self, name: str) -> str:
        """The full name of a side table that is called ``name``, as `table` would give it."""


class Target(Protocol):
    """One output over one source, ready to be filled. Safe to use from two threads:
    one that reads and claims, one that writes."""

    @property
    def info(self) -> OutputInfo: ...

    def count(self) -> int:
        """Rows the source selects now."""

    def read(self, after: Key | None, limit: int, *, overwrite: bool = False) -> Page:
        """The next ``limit`` rows in key order after ``after``; only those that need work.

        A row needs no work when its fingerprint is current (fresh), or when it was set
        aside with its error for the same inputs and version. ``overwrite`` returns all.
        One short statement; no cursor stays open.
        """

    def reread(self, keys: Sequence[Key], *, overwrite: bool = False) -> Page:
        """Those of ``keys`` that are still there, still selected, and need work."""

    def claim(self, owner: str, page: Page, done: Sequence[str], ttl_s: float) -> tuple[str, Sequence[int], bool]:
        """Lease the rows of ``page`` that no other live owner holds.

        Returns a lease id, the positions granted, and whether the page must be read
        again because another owner released rows since it was read. ``done`` are leases
        of this owner to release in the same transaction.
        """

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend all leases of ``owner`` by ``ttl_s`` seconds from now."""

    def release(self, owner: str) -> None:
        """Give up all leases of ``owner``."""

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        """The values as they will be stored, and by position those that fit neither the
        output type nor this database."""

    def prepare(self, batch: OutputBatch) -> OutputBatch:
        """Encode a batch for `write`: work for the caller's thread while the writer's waits for
        the database. Optional; `write` prepares what was not."""

    def write(self, batch: OutputBatch) -> Sequence[int]:
        """Write outputs and bookkeeping where the inputs are still those that were read.

        Commits before it returns, in transactions sized to about 20 ms. Returns the
        positions not written because the row was changed, deleted or locked by others.
        Raises Conflict when a newer version of the model has begun to write, RowRejected
        when the database refuses one value (nothing of that transaction is kept).
        """

    def fail(self, failures: Sequence[Failure]) -> None:
        """Set rows aside with their errors, where their inputs are still those that were read."""

    def absent(self, keys: Sequence[Key]) -> tuple[list[Key], list[Key]]:
        """Those of ``keys`` whose row is gone, and those whose row is there but not selected."""

    def forget(self, keys: Sequence[Key]) -> None:
        """Erase what is kept of rows that are gone: bookkeeping, errors, side rows."""

    def blank(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Clear the output and its bookkeeping of rows that are not selected (still not, when it is done).

        Returns the keys left as they were, because others hold their rows locked.
        """

    def orphans(self, after: Key | None, last: Key | None, *, selected: bool) -> list[Key]:
        """Keys beyond ``after`` up to ``last`` (None: no bound) with bookkeeping, whose row is gone, or
        with ``selected`` not among those selected."""
