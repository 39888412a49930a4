"""Runs the user's own queries and hands out Documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, overload

from pinnacle.backends.mongodb.changes.listener_registry import ListenerRegistry
from pinnacle.backends.mongodb.query import Aggregate, Collection, Count, Find, FindOne, Query, Write
from pinnacle.backends.mongodb.target.output_registry import OutputRegistry
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.document import Document, Locate
from pinnacle.base.errors import UnsupportedQuery


class Documents:
    """The documents of a result: streamed from the server each time it is iterated."""

    def __init__(self, run: Callable[[], Iterable[Mapping[str, Any]]], locate: Locate | None) -> None:
        self._run, self._locate = run, locate

    def __iter__(self) -> Iterator[Document]:
        for found in self._run():
            yield Document(found, locate=self._locate)

    @overload
    def __getitem__(self, position: int) -> Document: ...
    @overload
    def __getitem__(self, position: slice) -> list[Document]: ...
    def __getitem__(self, position: int | slice) -> Document | list[Document]:
        if isinstance(position, slice) or position < 0:
            return self.to_list()[position]
        for document in islice(self, position, None):
            return document
        raise IndexError(f"the result has no document {position}")

    def to_list(self) -> list[Document]:
        """All documents, in memory."""
        return [*self]

    def first(self) -> Document | None:
        """The first document, or None."""
        return next(iter(self), None)


def execute(wire: Wire, outputs: OutputRegistry, query: Any) -> Any:
    """Run one query on the user's database: Documents, a count, or pymongo's own write result.

    Where no server tells of changes, listeners of the collection are told here.
    """
    result = _run(wire, outputs, query)
    if wire.in_process and (table := _written_table(query)) is not None:
        ListenerRegistry(wire).mark_changed(table)
    return result


def _written_table(query: Any) -> str | None:
    """The collection that a query writes to, where it writes."""
    if isinstance(query, Aggregate) and query.pipeline:
        target = query.pipeline[-1].get("$out", query.pipeline[-1].get("$merge"))
        into = target.get("into", target.get("coll")) if isinstance(target, Mapping) else target
        return str(into.get("coll") if isinstance(into, Mapping) else into) if into is not None else None
    return query.collection if isinstance(query, Write) else None


def _run(wire: Wire, outputs: OutputRegistry, query: Any) -> Any:
    if isinstance(query, Collection):
        query = query.find()
    if not isinstance(query, Query):
        raise UnsupportedQuery(f"a query of MongoDB is Collection(...).find(...) and its kin, not {query!r}")
    collection = wire.user_collection(query.collection)
    locate = outputs.locator(query.collection)
    match query:
        case Find():
            return Documents(lambda: _find(collection, query), locate)
        case FindOne():
            found = next(collection.find_decodable(query.filter, query.projection, sort=query.order, limit=1), None)
            return None if found is None else Document(found, locate=locate)
        case Count():
            return collection.count(query.filter)
        case Aggregate():
            return _aggregate(collection, query.pipeline, locate)
        case Write():
            return _write(collection, query)
    raise UnsupportedQuery(f"{type(query).__name__} cannot be executed")


def _find(collection: StoredCollection, query: Find) -> Iterable[Mapping[str, Any]]:
    return collection.find_decodable(
        query.filter, query.projection, sort=query.order, skip=query.skipped, limit=query.limited
    )


def _aggregate(collection: StoredCollection, pipeline: Sequence[Mapping[str, Any]], locate: Locate) -> Documents:
    """A pipeline that writes runs now, once; one that only reads runs when it is iterated."""
    if pipeline and {"$out", "$merge"} & set(pipeline[-1]):
        written = list(collection.aggregate(pipeline))
        return Documents(lambda: written, locate)
    return Documents(lambda: collection.aggregate(pipeline), locate)


def _write(collection: StoredCollection, query: Write) -> Any:
    result = collection.write(query.verb, *map(_unwrapped, query.arguments), **query.options)
    if query.verb == "insert_one":
        _keep_ids(query.arguments, [result.inserted_id])
    elif query.verb == "insert_many":
        _keep_ids(query.arguments[0], result.inserted_ids)
    return result


def _keep_ids(documents: Sequence[Any], ids: Sequence[Any]) -> None:
    """As pymongo does it: a document inserted without ``_id`` gets the one it was given."""
    for document, key in zip(documents, ids, strict=True):
        document.setdefault("_id", key)


def _unwrapped(value: Any) -> Any:
    """The plain dicts and lists of ``value``, values untouched: drivers and mongomock know no Document."""
    if isinstance(value, Mapping):
        return {name: _unwrapped(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unwrapped(item) for item in value]
    return value
