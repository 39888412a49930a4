"""What model calls cost, and what is kept of paid ones: what crosses between a prediction and a backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pinnacle.base import forks, limits

_MAX_PORTION_BYTES = 8 * 1024 * 1024
_COUNTERS = ("calls", "failed", "retried", "input_tokens", "output_tokens", "cached", "cost")


@dataclass(frozen=True, kw_only=True)
class UsageRow:
    """The calls of one model for one output on one day.

    ``day`` is ``YYYY-MM-DD`` in UTC; ``output`` is ``table.column``, empty for calls on
    plain values. ``calls`` are the requests sent, ``failed`` and ``retried`` ones included;
    ``cached`` the answers that were taken from the cache instead. ``cost`` is in US dollars.
    """

    day: str
    model: str
    output: str
    calls: int = 0
    failed: int = 0
    retried: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached: int = 0
    cost: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is that the counters count: day, model and output."""
        return self.day, self.model, self.output

    @property
    def counters(self) -> dict[str, Any]:
        """All that adds up, by name: whole numbers, and the cost."""
        return {name: getattr(self, name) for name in _COUNTERS}

    def __add__(self, other: UsageRow) -> UsageRow:
        """Both rows' counters, under this row's day, model and output."""
        return replace(self, **{name: mine + other.counters[name] for name, mine in self.counters.items()})


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """A batch that a provider works on, to be collected later by any process.

    ``id`` is the provider's. ``items``: of each row its key, as `dump_key` writes it, and
    the hex digest of its input, in the order submitted. ``parameters`` is canonical text;
    ``created_at`` is in seconds since 1970.
    """

    id: str
    output: int
    model: str
    version: int
    parameters: str
    created_at: float
    items: tuple[tuple[str, str], ...]


def utc_day(at_s: float) -> str:
    """The day of a time in seconds since 1970, as `UsageRow` has it."""
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


def merged(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """The rows summed by key and in its order, so that whoever locks them does so in the same order."""
    totals: dict[tuple[str, str, str], UsageRow] = {}
    for row in rows:
        totals[row.key] = totals[row.key] + row if row.key in totals else row
    return [totals[key] for key in sorted(totals)]


def newest_first(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """The rows by day, the newest first, and within a day by model and output."""
    return sorted(sorted(rows, key=lambda row: row.key), key=lambda row: row.day, reverse=True)


def portions(entries: Mapping[bytes, str]) -> Iterator[list[tuple[bytes, str]]]:
    """Entries for a cache in the order of their digests, as many at a time as one short transaction takes.

    A lone surrogate, which no database stores, becomes the JSON escape for it.
    """
    portion: list[tuple[bytes, str]] = []
    size = 0
    for digest in sorted(entries):
        encoded = entries[digest].encode("utf-8", "backslashreplace")
        if portion and (len(portion) == limits.TRIM_EVERY or size + len(encoded) > _MAX_PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append((digest, encoded.decode()))
        size += len(encoded)
    if portion:
        yield portion


class TrimSchedule:
    """When a process trims a cache: at its first put, and whenever it has put `TRIM_EVERY` entries since."""

    def __init__(self) -> None:
        self._put, self._lock = limits.TRIM_EVERY, forks.lock()

    def due(self, put: int) -> int:
        """Count ``put`` entries; how many may be deleted now, 0 where it is too early.

        Twice what was put: a cache that has grown too large shrinks, in short transactions.
        """
        with self._lock:
            self._put += put
            if self._put < limits.TRIM_EVERY:
                return 0
            allowed, self._put = 2 * self._put, 0
            return allowed
