"""The update statements that put outputs into documents, each with the condition that these are unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bson.raw_bson import RawBSONDocument

from pinnacle.backends.mongodb.wire.shape import Shape
from pinnacle.backends.mongodb.wire.wire import Update

GROUP_ROWS = 100


class Row(NamedTuple):
    """One output on its way: the row as read and as it will be, in canonical bytes.

    ``mark`` is the fingerprint to record. ``recorded``: there may be bookkeeping of this row already. ``is_text``: all
    inputs are text.
    """

    position: int
    key: Any
    value: Any
    before: bytes
    after: bytes
    mark: bytes
    recorded: bool
    is_text: bool


def row_updates(rows: Sequence[Row], shape: Shape, *, is_compared: bool) -> list[Update]:
    """One statement a row; without its condition where ``is_compared`` is false (mongomock knows none)."""
    return [
        Update(
            {"_id": row.key, **(_unchanged(shape, {"$literal": RawBSONDocument(row.before)}) if is_compared else {})},
            {"$set": {shape.field: row.value}},
        )
        for row in rows
    ]


def grouped_updates(rows: Sequence[Row], shape: Shape) -> list[Update]:
    """One statement for each 100 rows, which look up by their key what they must be and what they get.

    An update pipeline's ``$set`` would put a document in the place of a scalar parent, and
    into each element of an array, where a plain ``$set`` refuses: such documents are left
    out by a condition and missed in the count.
    """
    return list(_groups(rows, shape))


def _groups(rows: Sequence[Row], shape: Shape) -> Iterator[Update]:
    for start in range(0, len(rows), GROUP_ROWS):
        group = rows[start : start + GROUP_ROWS]
        keys = [row.key for row in group]
        place = {"$indexOfArray": [{"$literal": keys}, "$_id"]}
        expected = _at(place, [RawBSONDocument(row.before) for row in group])
        condition = {"_id": {"$in": keys}, **_unchanged(shape, expected, *_fitting_parents(shape.field))}
        yield Update(condition, [{"$set": {shape.field: _at(place, [row.value for row in group])}}], multi=True)


def _at(place: Any, values: Sequence[Any]) -> Any:
    return {"$arrayElemAt": [{"$literal": values}, place]}


def _unchanged(shape: Shape, expected: Any, *more: Any) -> Mapping[str, Any]:
    """That a document's inputs and output equal the expected ones; what is missing in both is equal."""
    equal = [{"$eq": [found, f"$$was.{name}"]} for name, found in shape.expressions().items() if name != "_id"]
    return {"$expr": {"$and": [*more, {"$let": {"vars": {"was": expected}, "in": {"$and": equal}}}]}}


def _fitting_parents(path: str) -> Iterator[Any]:
    names = path.split(".")
    for depth in range(1, len(names)):
        yield {"$in": [{"$type": "$" + ".".join(names[:depth])}, ["missing", "object"]]}
