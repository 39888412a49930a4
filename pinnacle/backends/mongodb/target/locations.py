"""Where an output may go: what a field's path must be, and what documents may hold there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pinnacle.backends.mongodb.query import Collection
from pinnacle.backends.mongodb.target.source import OWN_PREFIX, MongoSource
from pinnacle.backends.mongodb.wire.encoding import decode, encode
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.document import MISSING, OUTPUTS_FIELD, is_index, overlap, value_at
from pinnacle.base.errors import ConfigError, Conflict, OutputTypeConflict
from pinnacle.base.refusals import foreign_side
from pinnacle.base.types import OutputType


def check_location(source: MongoSource, path: str, others: Iterable[str]) -> None:
    """Refuse a path that no field can have, or that overlaps an input or another output."""
    names = path.split(".")
    is_ours = names[0] == OUTPUTS_FIELD and len(names) == 3
    if not all(names) or any(_is_impossible(name) or (is_index(name) and not is_ours) for name in names):
        raise ConfigError(
            f"{path!r} cannot be an output's field: dots lead through embedded documents, and no part may be "
            "empty, a number, start with '$' or hold a NUL"
        )
    if names[0] == "_id":
        raise ConfigError(f"an output cannot be kept in {path!r}, as _id names the document")
    for field in source.fields.paths:
        if overlap(path, field):
            raise Conflict(f"the output's field {path!r} overlaps the input {field!r}; choose another with output=")
    for other in others:
        if overlap(path, other):
            raise Conflict(f"the output's field {path!r} overlaps the output in {other!r} of {source.table!r}")


def require_side(wire: Wire, table: str, name: str, *, is_ours: bool) -> None:
    """Refuse a name that no side collection of ``table`` can have, or that another collection has."""
    Collection(name)  # raises what is wrong with the name
    if name.startswith(OWN_PREFIX):
        raise ConfigError(f"{name!r} would be among pinnacle's own collections; name another in Side()")
    if name == table or (not is_ours and name in wire.names()):
        raise foreign_side("collection", name)


def _is_impossible(name: str) -> bool:
    return name.startswith("$") or "\x00" in name


def require_type(wire: Wire, table: str, path: str, kind: OutputType) -> None:
    """Refuse a field where some document holds a value of another type, or a parent that is no document."""
    accepted = (*kind.on_mongodb().types, "null")
    clash = wire.misfit(table, path, accepted)
    if clash is None:
        clash = _find_of_another_type(wire, table, path, kind)
    if clash is not None:
        raise OutputTypeConflict(
            f"field {path!r} of {table!r} cannot hold {kind} outputs: the document with _id {clash['_id']!r} has "
            f"another kind of value {_place(clash, path)}; choose another field with output="
        )


def _place(document: Mapping[str, Any], path: str) -> str:
    names = path.split(".")
    for depth in range(1, len(names) + 1):
        part = ".".join(names[:depth])
        value = value_at(document, part)
        if depth == len(names) or not isinstance(value, Mapping):
            return f"({type(value).__name__}) in {part!r}"
    return ""


def _find_of_another_type(wire: Wire, table: str, path: str, kind: OutputType) -> Any:
    """Output types may share a BSON type, as bytes and vectors do: look at one value."""
    is_ours = kind.on_mongodb().is_ours
    if is_ours is None:
        return None
    document = next(iter(wire.documents(table, {path: {"$exists": True, "$ne": None}}, {path: 1}, limit=1)), None)
    if document is None or (value := value_at(document, path)) is MISSING:  # there is one, which cannot be decoded
        return document
    found = encode({"": value}, wire.codec)  # what mongomock keeps as it was given, too
    return None if is_ours(decode(found, wire.codec)[""]) else document
