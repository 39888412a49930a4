"""mongomock read and written as a server is, and all else that is special about it.

Every read looks at all documents, every statement is one call. It changes documents in
place: threads take turns, or a reader meets documents that a writer has half changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson.codec_options import CodecOptions
from bson.regex import Regex
from bson.timestamp import Timestamp

from pinnacle.backends.mongodb.query import Window
from pinnacle.backends.mongodb.wire.change_stream import ChangeStream
from pinnacle.backends.mongodb.wire.encoding import bson_type_of, encode
from pinnacle.backends.mongodb.wire.errors import driver_errors
from pinnacle.backends.mongodb.wire.keys import as_key, is_key, key_identity
from pinnacle.backends.mongodb.wire.shape import Shape, parents_of
from pinnacle.backends.mongodb.wire.stored_collection import Order, StoredCollection
from pinnacle.backends.mongodb.wire.wire import CollectionInfo, Update, Updated
from pinnacle.backends.protocol import Capability
from pinnacle.base import forks
from pinnacle.base.document import MISSING, value_at
from pinnacle.base.errors import BackendError, UnsupportedTable

_turn = forks.rlock()


class MongomockCollection(StoredCollection):
    """A collection whose every call waits for those of other threads."""

    def _call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        with _turn:
            return super()._call(verb, *arguments, **options)

    def _read(self, verb: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        """What is found, all of it read in one turn."""
        with _turn:
            found = list(super()._read(verb, *arguments, **options))
        yield from found


@dataclass
class MongomockWire:
    """The `Wire` of mongomock, which has neither computed projections nor raw documents.

    No condition of its holds ``$expr``: nothing tells texts apart exactly, and no update compares.
    """

    _database: Any
    codec: CodecOptions[Any]
    server: str
    name: str = "mongomock"
    capabilities: frozenset[Capability] = frozenset({Capability.DOCUMENTS})
    in_process: bool = True
    has_expressions: bool = False

    @property
    def engine(self) -> Any:
        return self._database

    def collection(self, table: str, *, durable: bool = True) -> StoredCollection:
        return MongomockCollection(self._database[table], self.server)

    def user_collection(self, table: str) -> StoredCollection:
        return self.collection(table)

    def create(self, table: str) -> None:
        """A collection of mongomock is there once it is written to."""

    def names(self) -> list[str]:
        with _turn, driver_errors(self.server):
            return list(self._database.list_collection_names())

    def uuids(self) -> dict[str, Any]:
        return dict.fromkeys(self.names())

    def described(self, table: str) -> CollectionInfo:
        """As a server tells of it. Null as a key is for servers: here it stands for none."""
        if self.collection(table).find_one({"_id": None}, {"_id": 1}) is not None:
            raise UnsupportedTable(f"a document of {table!r} has null as its _id, which cannot name a row")
        return CollectionInfo("collection", is_text_exact=False)

    def misfit(self, table: str, path: str, types: Sequence[str]) -> Mapping[str, Any] | None:
        for document in self.collection(table).find():
            above = [value_at(document, parent) for parent in parents_of(path)]
            if any(value is not MISSING and not isinstance(value, Mapping) for value in above):
                return document
            value = value_at(document, path)
            if value is not MISSING and value is not None and bson_type_of(value) not in types:
                return document
        return None

    def rows(self, table: str, shape: Shape, condition: Mapping[str, Any], after: Any, limit: int) -> list[bytes]:
        found = list(self.collection(table).find(condition))
        if after is not None:
            found = [document for document in found if _order(document["_id"]) > _order(after)]
        found.sort(key=lambda document: _order(document["_id"]))
        return [self._encode(shape.of(document)) for document in found[:limit]]

    def rows_at(self, table: str, shape: Shape, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[bytes]:
        wanted = {_order(key) for key in keys}
        return [
            self._encode(shape.of(document))
            for document in self.collection(table).find(condition)
            if _order(document["_id"]) in wanted
        ]

    def rows_of(self, table: str, shape: Shape, parents: Sequence[Any]) -> Iterator[bytes]:
        wanted = {key_identity(parent) for parent in parents}
        found = [shape.of(document) for document in self.collection(table).find()]
        found = [row for row in found if "i0" in row and key_identity(row["i0"]) in wanted]
        return map(self._encode, sorted(found, key=lambda row: _order(row.get("i1"))))

    def documents(
        self, table: str, condition: Mapping[str, Any], projection: Any = None, *, sort: Order = (), limit: int = 0,
        key: str = "_id",
    ) -> list[dict[str, Any]]:  # fmt: skip
        found = list(self.collection(table).find(condition, projection, sort=sort, limit=limit))
        return [{**document, key: as_key(document[key])} if key in document else document for document in found]

    def keys(self, table: str, after: Any, last: Any, limit: int, path: str = "_id") -> list[Any]:
        named = (value_at(document, path) for document in self.collection(table).find())
        there = (key for key in named if key is not MISSING and key is not None and is_key(key))
        found = sorted(map(as_key, there), key=_order)
        found = [key for key in found if after is None or _order(key) > _order(after)]
        return [key for key in found if last is None or _order(key) <= _order(last)][:limit]

    def keys_at(self, table: str, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[Any]:
        wanted = {_order(key) for key in keys}
        found = self.collection(table).find(condition)
        return [as_key(document["_id"]) for document in found if _order(document["_id"]) in wanted]

    def keys_in(self, table: str, condition: Mapping[str, Any], window: Window) -> list[Any]:
        found = self.collection(table).find(condition, sort=[*window.exact_order.items()])
        last = window.skip + window.limit if window.limit else None
        return sorted((as_key(document["_id"]) for document in list(found)[window.skip : last]), key=_order)

    def thawed(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        """With Python's own patterns: mongomock knows no others."""
        found: Mapping[str, Any] = _with_patterns(condition)
        return found

    def _encode(self, row: Mapping[str, Any]) -> bytes:
        return encode(row, self.codec)

    def hashes(self, table: str, first: Any, last: Any, count: int) -> set[bytes]:
        return {bytes(state["h"]) for state in self.collection(table).find()}

    def hashes_at(self, table: str, keys: Sequence[Any]) -> set[bytes]:
        return self.hashes(table, None, None, 0)

    def update(self, table: str, statements: Sequence[Update], *, durable: bool = True) -> Updated:
        collection, matched, changed = self.collection(table), 0, 0
        for condition, change, upsert, _ in statements:
            is_change = any(name.startswith("$") for name in change)
            result = collection.write("update_one" if is_change else "replace_one", condition, change, upsert=upsert)
            matched += result.matched_count or int(upsert)
            changed += result.modified_count or int(upsert and not result.matched_count)
        return Updated(matched, changed)

    def insert(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> None:
        for document in documents:
            self.collection(table).insert(dict(document))

    def insert_missing(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> list[int]:
        collection = self.collection(table)
        return [place for place, document in enumerate(documents) if not collection.insert_new(dict(document))]

    def delete(self, table: str, condition: Mapping[str, Any], *, durable: bool = True) -> int:
        return self.collection(table).delete_many(condition)

    def clock(self) -> datetime:
        return datetime.now(UTC)

    def piped(self, table: str, pipeline: Sequence[Mapping[str, Any]]) -> list[bytes]:
        raise BackendError("mongomock gives no rows as bytes")

    def operation_time(self) -> Timestamp | None:
        return None

    def changes(self, tables: Collection[str], start: Timestamp) -> ChangeStream:
        raise BackendError("mongomock tells nobody of changes")

    def close(self) -> None:
        """The data stays for whoever opens the same name in this process."""


def _with_patterns(value: Any) -> Any:
    if isinstance(value, Regex):
        return value.try_compile()
    if isinstance(value, Mapping):
        return {name: _with_patterns(part) for name, part in value.items()}
    return [_with_patterns(part) for part in value] if isinstance(value, list) else value


def _order(key: Any) -> tuple[int, Any]:
    """A total order over keys of any types: numbers, then text, then all else by its bytes."""
    identity = key_identity(key)
    return (2 if isinstance(identity, bytes) else 1 if isinstance(identity, str) else 0, identity)
