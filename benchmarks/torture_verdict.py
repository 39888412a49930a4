"""What must be true of the tortured rows: while it lasts, where pinnacle calls them fresh, and of all at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.torture_models import LANGUAGE, headline_of, summary_of


@dataclass(frozen=True)
class Row:
    """A row of the table. The chain in it is right where each output is that of the row's own inputs."""

    body: str | None
    language: str
    summary: str | None
    headline: str | None

    def is_right(self, output: str) -> bool:
        if output == "summary":
            return self.summary == summary_of(self.body)
        return self.headline == headline_of(self.summary)

    def is_done(self) -> bool:
        """Whether nothing is left to do: both outputs are right, and cleared where they are not asked for."""
        title = headline_of(summary_of(self.body)) if self.language == LANGUAGE else None
        return self.summary == summary_of(self.body) and self.headline == title


@dataclass(frozen=True)
class Look:
    """All rows in one snapshot, and what pinnacle said of those that a listener selects."""

    rows: Mapping[Any, Row]
    stale: set[Any]
    read: int
    set_aside: int


@dataclass(frozen=True)
class Calls:
    """Model calls: all, those that an input had beyond its right, and those for texts that were never committed."""

    made: int
    again: int
    uncommitted: int


def counted_calls(folder: Path, excused: Iterable[str], undone: Iterable[str]) -> Calls:
    """An input may be computed once, and once more for each change that took its outputs away."""
    made: Counter[tuple[str, str]] = Counter()
    for log in folder.glob("*.calls"):
        for line in log.read_text().splitlines():
            model, _, text = line.partition(" ")
            made[model, text] += 1
    allowed: Counter[tuple[str, str]] = Counter()
    for body in excused:
        allowed["summarize", body] += 1
        allowed["entitle", str(summary_of(body))] += 1
    again = sum(max(0, count - 1 - allowed[call]) for call, count in made.items())
    uncommitted = sum(made["summarize", text] for text in undone)
    return Calls(sum(made.values()), again, uncommitted)
