"""A find() resolved to one collection, its filter and the fields that feed the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pinnacle.backends.mongodb.query import Collection, Find, FindOne, Window
from pinnacle.backends.mongodb.wire.errors import TookTooLong
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.errors import UnknownField, UnsupportedQuery, UnsupportedTable
from pinnacle.base.rows import Fields

OWN_PREFIX = "pinnacle_"
SAMPLE = 100
NAMED_DEPTH = 4
SEARCH_MS = 5_000


@dataclass(frozen=True)
class MongoSource:
    """The documents of one collection that match ``filter``; with a ``window`` only those in it.

    ``is_text_exact``: the server tells all different texts apart (there is no collation).
    """

    table: str
    filter: Mapping[str, Any]
    fields: Fields
    is_text_exact: bool
    window: Window | None = None

    def beside(self, name: str) -> str:
        """A side collection is in the same database."""
        return name

    def whole(self) -> MongoSource:
        """This source, for what is kept with its rows; UnsupportedQuery where which these are changes with the data."""
        if self.window is not None:
            raise UnsupportedQuery(
                "skip() and limit() select other documents each time the data changes; "
                "pass limit= to predict, or say which documents in find's filter"
            )
        return self


def resolve(wire: Wire, query: Any, fields: Fields, is_output: Callable[[str, str], bool]) -> MongoSource:
    """Check a query and its fields against the database; changes nothing.

    ``is_output`` tells whether a path of a collection is where an output goes, if no document has it yet.
    """
    if isinstance(query, Collection):
        query = query.find()
    _require_find(query)
    is_text_exact = _require_collection(wire, query.collection)
    for path in fields.paths:
        if not is_output(query.collection, path):
            _require_field(wire, query.collection, path)
    return MongoSource(query.collection, query.filter, fields, is_text_exact, query.window)


def resolve_stored(wire: Wire, query: Find, fields: Fields) -> MongoSource:
    """A query that was resolved before, on the collection as it is now: empty it may be, or dropped for a while."""
    is_text_exact = _require_collection(wire, query.collection)
    return MongoSource(query.collection, query.filter, fields, is_text_exact, query.window)


def _require_find(query: Any) -> None:
    if isinstance(query, FindOne):
        raise UnsupportedQuery("find_one selects an arbitrary document; use find({'_id': ...}) to say which")
    if not isinstance(query, Find):
        raise UnsupportedQuery(f"documents are chosen by Collection(...).find(...), not by {type(query).__name__}")
    if query.collection.startswith(OWN_PREFIX):
        raise UnsupportedTable(f"{query.collection!r} is pinnacle's own collection")


def _require_collection(wire: Wire, table: str) -> bool:
    """Refuse what has no documents of its own to write to; whether text is compared exactly there."""
    kind, is_text_exact = wire.described(table)
    if kind != "collection":
        raise UnsupportedTable(f"{table!r} is a {kind}: outputs are written into documents of a plain collection")
    return is_text_exact


def _require_field(wire: Wire, table: str, path: str) -> None:
    """Refuse a path that no document has; in an empty collection every path is fine."""
    names = path.split(".")
    sample = wire.documents(table, {}, limit=SAMPLE)
    known = {name for document in sample for name in _names(document)}
    if not all(names) or "\x00" in path:
        raise UnknownField(path, repr(table), known)
    if path in known or not sample or len(names) > NAMED_DEPTH:
        return
    if not _is_anywhere(wire, table, path):
        raise UnknownField(path, repr(table), known)


def _is_anywhere(wire: Wire, table: str, path: str) -> bool:
    try:
        return wire.collection(table).has_field(path, within_ms=SEARCH_MS)
    except TookTooLong:
        return True  # too many documents to look at each: a field that is nowhere gives null inputs


def _names(value: Any, prefix: str = "", depth: int = 1) -> Iterator[str]:
    for name, item in value.items():
        yield f"{prefix}{name}"
        if isinstance(item, Mapping) and depth < NAMED_DEPTH:
            yield from _names(item, f"{prefix}{name}.", depth + 1)
