"""The canonical rows of one output, wherever its values are: in the documents, or in a side collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pinnacle.backends.mongodb.target.side_collection import SideCollection
from pinnacle.backends.mongodb.wire.encoding import keys_of, output_element
from pinnacle.backends.mongodb.wire.keys import key_identity
from pinnacle.backends.mongodb.wire.row_bytes import with_output
from pinnacle.backends.mongodb.wire.shape import Shape
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.rows import Key, OutputInfo


class Rows:
    """Reads canonical rows of a collection whose documents hold their output."""

    def __init__(self, wire: Wire, table: str, shape: Shape) -> None:
        self.wire, self.table, self.shape = wire, table, shape

    def after(self, place: Any, limit: int, condition: Mapping[str, Any]) -> list[bytes]:
        """The next rows that match, by ``_id`` after ``place`` (None: from the first)."""
        return self.wire.rows(self.table, self.shape, condition, place, limit)

    def at(self, keys: Sequence[Key], condition: Mapping[str, Any]) -> list[bytes]:
        """The rows of those of ``keys`` that are there and match."""
        return self.wire.rows_at(self.table, self.shape, keys, condition)


class SideRows(Rows):
    """The same where the output is in a side collection: it is the digest of the items.

    Rows are read first and items after them. What changes in between makes a row that has
    no fingerprint, or has the one of a moment before, whose change is still to be told.
    """

    def __init__(self, wire: Wire, table: str, shape: Shape, side: str) -> None:
        super().__init__(wire, table, shape)
        self._side = SideCollection(wire, table, side)

    def after(self, place: Any, limit: int, condition: Mapping[str, Any]) -> list[bytes]:
        return self._with_digests(super().after(place, limit, condition))

    def at(self, keys: Sequence[Key], condition: Mapping[str, Any]) -> list[bytes]:
        return self._with_digests(super().at(keys, condition))

    def _with_digests(self, rows: Sequence[bytes]) -> list[bytes]:
        keys = keys_of(rows, self.wire.codec)
        digests = self._side.digests(keys) if keys else {}
        found = (digests.get(key_identity(key)) for key in keys)
        return [with_digest(row, digest) for row, digest in zip(rows, found, strict=True)]


def with_digest(row: bytes, digest: bytes | None) -> bytes:
    """A row with the digest of its items for its output; without output where there are none."""
    return row if digest is None else with_output(row, output_element(digest))


def shape_of(info: OutputInfo) -> Shape:
    """What an output's canonical rows are read from."""
    return Shape(info.fields.paths, None if info.side else info.name)


def rows_of(wire: Wire, table: str, shape: Shape, side: str | None) -> Rows:
    """The canonical rows of an output over ``table``; ``side`` is its side collection, if it has one."""
    return Rows(wire, table, shape) if side is None else SideRows(wire, table, shape, side)
