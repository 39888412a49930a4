"""Which listeners a change concerns: by its collection and the names of the changed fields."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson.timestamp import Timestamp

from pinnacle.backends.mongodb.listeners import EVERYTHING
from pinnacle.backends.mongodb.raw import stamp
from pinnacle.backends.mongodb.wire import Shape
from pinnacle.base.document import is_index
from pinnacle.base.rows import OutputInfo

MAX_KNOWN = 10_000


class Touch(enum.Enum):
    """What of a listener's an update changed: nothing, its output alone, or what it reads."""

    NOTHING = 0
    OUTPUT = 1
    INPUT = 2


@dataclass(frozen=True)
class Route:
    """What one listener watches. ``reads`` are its inputs and what its condition reads."""

    output: int
    table: str
    reads: tuple[str, ...]
    path: str
    shape: Shape
    computed_by: bytes
    since: Timestamp

    @classmethod
    def of(cls, entry: Mapping[str, Any], info: OutputInfo) -> Route:
        shape = entry["shape"]
        reads = [*info.fields.paths, *shape.get("reads", [EVERYTHING])]
        return cls(
            info.id, info.table, tuple(dict.fromkeys(map(_without_indices, reads))), info.name,
            Shape(info.fields.paths, info.name), stamp(info.version, shape.get("parameters", "")), entry["since"],
        )  # fmt: skip

    def touch(self, names: Sequence[str]) -> Touch:
        """What an update of the fields ``names`` means; dotted paths touch what is above and below them."""
        found = Touch.NOTHING
        for name in map(_without_indices, names):
            is_output = _overlap(name, self.path)
            if any(_overlap(name, read) for read in self.reads if read or not is_output):
                return Touch.INPUT
            if is_output:
                found = Touch.OUTPUT
        return found


class Routes:
    """The routes of one database, and what they make of updates met before."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_table: dict[str, list[Route]] = {}
        for route in routes:
            self._by_table.setdefault(route.table, []).append(route)
        self._known: dict[tuple[str, tuple[str, ...] | None], list[tuple[Route, Touch]]] = {}

    @property
    def tables(self) -> frozenset[str]:
        return frozenset(self._by_table)

    @property
    def all(self) -> list[Route]:
        return [route for routes in self._by_table.values() for route in routes]

    def on(self, *tables: str | None) -> list[Route]:
        return [route for table in tables if table for route in self._by_table.get(table, ())]

    def concerned(self, table: str, names: Sequence[str] | None) -> list[tuple[Route, Touch]]:
        """The routes that a change of a document touches; ``names`` is None for more than an update."""
        change = (table, None if names is None else tuple(names))
        found = self._known.get(change)
        if found is None:
            touches = [(r, Touch.INPUT if names is None else r.touch(names)) for r in self.on(table)]
            found = [(route, touch) for route, touch in touches if touch is not Touch.NOTHING]
            if len(self._known) >= MAX_KNOWN:  # arrays name their elements: there is no end of names
                self._known.clear()
            self._known[change] = found
        return found


def _without_indices(path: str) -> str:
    """A condition looks through arrays and a change names their elements: both without these numbers."""
    return ".".join(name for name in path.split(".") if not is_index(name))


def _overlap(one: str, other: str) -> bool:
    return not one or not other or f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
