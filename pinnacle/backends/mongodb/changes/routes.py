"""Which listeners a change concerns: by its collection and the names of the changed fields."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson.timestamp import Timestamp

from pinnacle.backends.mongodb.target.canonical_rows import shape_of
from pinnacle.backends.mongodb.target.frozen_finds import EVERYTHING
from pinnacle.backends.mongodb.target.records import BROKEN, moment_of, whole_of
from pinnacle.backends.mongodb.target.side_collection import POSITION, VALUE, parent_field
from pinnacle.backends.mongodb.wire.row_bytes import stamp
from pinnacle.backends.mongodb.wire.shape import Shape
from pinnacle.base.document import is_index, overlap
from pinnacle.base.rows import OutputInfo

MAX_KNOWN = 10_000


class Touch(enum.Enum):
    """What of a listener's an update changed: nothing, its output alone, or what it reads."""

    NOTHING = 0
    OUTPUT = 1
    INPUT = 2


@dataclass(frozen=True)
class Route:
    """What one listener watches. ``reads`` are its inputs and what its condition reads.

    ``path`` is where its output is in the documents, None where it is in the collection ``side``.
    """

    output: int
    table: str
    reads: tuple[str, ...]
    path: str | None
    shape: Shape
    computed_by: bytes
    since: Timestamp
    side: str | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any], info: OutputInfo) -> Route:
        shape = entry["shape"]
        whole_of(entry.get("revision", 0)), whole_of(entry.get("processed", 0))  # which the server adds to
        reads = [*info.fields.paths, *shape.get("reads", [EVERYTHING])]
        return cls(
            info.id, info.table, tuple(dict.fromkeys(map(_without_indices, reads))),
            None if info.side else info.name, shape_of(info),
            stamp(info.version, shape.get("parameters", "")), moment_of(entry["since"]), info.side,
        )  # fmt: skip

    def touch(self, names: Sequence[str]) -> Touch:
        """What an update of the fields ``names`` means; dotted paths touch what is above and below them."""
        found = Touch.NOTHING
        for name in map(_without_indices, names):
            is_output = self.path is not None and overlap(name, self.path)
            if any(overlap(name, read) for read in self.reads if read or not is_output):
                return Touch.INPUT
            if is_output:
                found = Touch.OUTPUT
        return found

    def touches_item(self, names: Sequence[str] | None) -> bool:
        """Whether a change of a document in ``side`` is one of the item; ``names`` as for `Routes.concerned`."""
        parts = (parent_field(self.table), POSITION, VALUE)
        return names is None or any(overlap(name, part) for name in names for part in parts)

    def moves_item(self, names: Sequence[str] | None) -> bool:
        """Whether such a change may have given the item to another parent than its ``_id`` names."""
        return names is None or any(overlap(name, parent_field(self.table)) for name in names)


def route_of(entry: Mapping[str, Any], info: OutputInfo) -> Route | None:
    """The route of a listener; none of one whose document somebody broke, which is paused by that."""
    try:
        return Route.of(entry, info)
    except BROKEN:
        return None


class Routes:
    """The routes of one database, and what they make of updates met before."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_table: dict[str, list[Route]] = {}
        self._by_side: dict[str, list[Route]] = {}
        for route in routes:
            self._by_table.setdefault(route.table, []).append(route)
            if route.side is not None:
                self._by_side.setdefault(route.side, []).append(route)
        self._known: dict[tuple[str, tuple[str, ...] | None], list[tuple[Route, Touch]]] = {}

    @property
    def tables(self) -> frozenset[str]:
        """The collections whose changes are to be told."""
        return frozenset(self._by_table) | frozenset(self._by_side)

    @property
    def all(self) -> list[Route]:
        return [route for routes in self._by_table.values() for route in routes]

    def on(self, table: str) -> list[Route]:
        """The routes of documents in ``table``."""
        return self._by_table.get(table, [])

    def kept_in(self, table: str) -> list[Route]:
        """The routes whose items are in ``table``."""
        return self._by_side.get(table, [])

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
