"""Finds at rest: a resolved query as plain values, and back, and which fields its filter reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from pinnacle.backends.mongodb.query import Collection, Find
from pinnacle.backends.mongodb.target.filters import check_filter
from pinnacle.backends.mongodb.target.source import OWN_PREFIX, MongoSource
from pinnacle.backends.mongodb.wire.encoding import decode, encode, reading_of
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.errors import ComponentError, UnsupportedQuery

EVERYTHING = ""
"""Stands among the fields that a condition reads for all of them."""
_OF_FILTERS = frozenset({"$and", "$or", "$nor"})
_DOCUMENT_VARIABLES = ("$$ROOT", "$$CURRENT")


def freeze(source: MongoSource, wire: Wire, *, limited: bool = False) -> dict[str, Any]:
    """``source`` as plain values; its filter, which may hold any BSON value, as BSON.

    UnsupportedQuery for a filter with an operator that is not kept.
    """
    check_filter(source.filter, by_chance=limited)
    encoded = encode(dict(source.filter), wire.codec) if source.filter else None
    stored: dict[str, Any] = {
        "collection": source.table,
        "filter": encoded,
        "reads": sorted(set(filter_reads(source.filter))),
    }
    if reading := reading_of(wire.codec):
        stored["codec"] = reading
    if (window := source.window) is None:
        return stored
    return {**stored, "sort": [list(pair) for pair in window.order], "skip": window.skip, "limit": window.limit}


def thaw(stored: Mapping[str, Any], wire: Wire) -> Find:
    """The query that `freeze` was given.

    ComponentError where it is none that `freeze` makes, or this process reads documents otherwise.
    """
    name = stored.get("collection")
    if not isinstance(name, str) or name.startswith(OWN_PREFIX):
        raise ComponentError("what is stored of its query names no collection of yours")
    kept, here = stored.get("codec", {}), reading_of(wire.codec)
    if kept != here:
        raise ComponentError(
            f"documents of {name!r} were read {_told(kept)} and are read {_told(here)} here: open the "
            "database the same way, by the options of its URL or a Database with these codec_options, or add "
            "the listener or dataset again"
        )
    encoded = stored.get("filter")
    if not isinstance(encoded, (bytes, type(None))):
        raise ComponentError("what is stored of its query has no filter of a known form")
    condition = {} if encoded is None else decode(encoded, wire.codec)
    try:
        check_filter(condition, by_chance=True)
    except UnsupportedQuery as error:
        raise ComponentError(f"what is stored of its query cannot be used: {error}") from error
    found = Collection(name).find(wire.thawed(condition))
    return found.sort(stored.get("sort", ())).skip(stored.get("skip", 0)).limit(stored.get("limit", 0))


def read_by(parameters: str, wire: Wire) -> str:
    """A prediction's ``parameters`` with how its documents are read: other values make other outputs."""
    if not (reading := reading_of(wire.codec)):
        return parameters
    return blake2b(json.dumps([parameters, reading], sort_keys=True).encode(), digest_size=16).hexdigest()


def _told(reading: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in reading.items())
    return f"with {options}" if options else "without codec_options"


def filter_reads(condition: Mapping[str, Any]) -> Iterator[str]:
    """The paths that a filter reads; EVERYTHING where these cannot be told."""
    for name, value in condition.items():
        if name in _OF_FILTERS:
            for part in value:
                yield from filter_reads(part)
        elif name == "$expr":
            yield from _expression_reads(value)
        elif not name.startswith("$"):
            yield name
        elif name != "$comment":
            yield EVERYTHING


def _expression_reads(expression: Any) -> Iterator[str]:
    if isinstance(expression, str):
        yield from _path_reads(expression)
    elif isinstance(expression, (list, tuple)):
        for part in expression:
            yield from _expression_reads(part)
    elif isinstance(expression, Mapping) and "$literal" not in expression:
        if "$getField" in expression:
            yield EVERYTHING
        for part in expression.values():
            yield from _expression_reads(part)


def _path_reads(text: str) -> Iterator[str]:
    if not text.startswith("$"):
        return
    if not text.startswith("$$"):
        yield text[1:]
        return
    variable, _, path = text.partition(".")
    if variable in _DOCUMENT_VARIABLES:
        yield path or EVERYTHING
