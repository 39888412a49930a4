"""What model calls cost, the cache of paid results, and the batches that providers work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pinnacle.base.usage import BatchJob, UsageRow


class Ledger(Protocol):
    """The books of one database.

    What is read before pinnacle's own tables are there is empty; what is written makes them.
    """

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        """Add to the counters of each row's day, model and output, whoever else adds to them at the same time.

        Makes pinnacle's own tables if they are not there. Commits before it returns: all rows
        or none where there are transactions, row by row elsewhere.
        """

    def usage(self, model: str | None = None) -> list[UsageRow]:
        """The counters, of one model or of all: the newest day first, within a day by model and output."""

    def cached(self, digests: Sequence[bytes]) -> dict[bytes, str]:
        """What the cache of paid results has under these digests: the JSON texts that have not expired."""

    def cache(self, entries: Mapping[bytes, str], ttl_s: float) -> None:
        """Keep JSON texts under digests of 16 bytes for ``ttl_s`` seconds, each in place of an earlier one.

        Makes pinnacle's own tables if they are not there. Commits before it returns. Now and
        then entries that have expired are deleted, and the oldest beyond `MAX_CACHE_ENTRIES`.
        """

    def clear_cache(self) -> None:
        """Erase the cache of paid results."""

    def save_batch(self, job: BatchJob) -> None:
        """Record a batch that a provider has accepted; saving it again changes nothing. Commits before it returns."""

    def batches(self, output: int) -> list[BatchJob]:
        """The recorded batches of an output, oldest first."""

    def delete_batch(self, batch: str) -> bool:
        """Forget the batch of that id; whether it was there."""

    def book_batch(self, batch: str, rows: Sequence[UsageRow]) -> bool:
        """Forget the batch of that id and add what it cost, as `add_usage` does: both, whatever happens in between and
        whoever else does it, where it is done again until it has returned; whether the batch was there, which it is for
        one of all who ask. Of a batch the rows are always of the same day, model and output."""
