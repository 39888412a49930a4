"""mongomock read and written as a server is: every read looks at all documents, every statement is one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions
from pymongo.errors import DuplicateKeyError

from pinnacle.backends.mongodb.query import Window
from pinnacle.backends.mongodb.wire.encoding import is_key, key_bytes, key_identity
from pinnacle.backends.mongodb.wire.mongomock_turns import InTurns
from pinnacle.backends.mongodb.wire.wire import Shape, Update, Updated
from pinnacle.base.document import MISSING, value_at


@dataclass
class MemoryWire:
    """The `Wire` of mongomock, which has neither computed projections nor raw documents."""

    database: Any
    codec: CodecOptions[Any]
    in_process: bool = True

    def collection(self, table: str, *, durable: bool = True) -> Any:
        return InTurns(self.database[table])

    def user_collection(self, table: str) -> Any:
        return self.collection(table)

    def create(self, table: str) -> None:
        """A collection of mongomock is there once it is written to."""

    def rows(self, table: str, shape: Shape, condition: Mapping[str, Any], after: Any, limit: int) -> list[bytes]:
        found = list(self.collection(table).find(dict(condition)))
        if after is not None:
            found = [document for document in found if _order(document["_id"]) > _order(after)]
        found.sort(key=lambda document: _order(document["_id"]))
        return [self._encode(shape.of(document)) for document in found[:limit]]

    def rows_at(self, table: str, shape: Shape, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[bytes]:
        wanted = {_order(key) for key in keys}
        return [
            self._encode(shape.of(document))
            for document in self.collection(table).find(dict(condition))
            if _order(document["_id"]) in wanted
        ]

    def rows_of(self, table: str, shape: Shape, owners: Sequence[Any]) -> Iterator[bytes]:
        wanted = {key_identity(owner) for owner in owners}
        found = [shape.of(document) for document in self.collection(table).find()]
        found = [row for row in found if "i0" in row and key_identity(row["i0"]) in wanted]
        return map(self._encode, sorted(found, key=lambda row: _order(row.get("i1"))))

    def keys(self, table: str, after: Any, last: Any, limit: int, path: str = "_id") -> list[Any]:
        named = (value_at(document, path) for document in self.collection(table).find())
        found = sorted((key for key in named if key is not MISSING and is_key(key)), key=_order)
        found = [key for key in found if after is None or _order(key) > _order(after)]
        return [key for key in found if last is None or _order(key) <= _order(last)][:limit]

    def keys_at(self, table: str, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[Any]:
        wanted = {_order(key) for key in keys}
        found = self.collection(table).find(dict(condition))
        return [document["_id"] for document in found if _order(document["_id"]) in wanted]

    def keys_in(self, table: str, condition: Mapping[str, Any], window: Window) -> list[Any]:
        found = self.collection(table).find(dict(condition), sort=list(window.exact_order.items()))
        last = window.skip + window.limit if window.limit else None
        return sorted((document["_id"] for document in list(found)[window.skip : last]), key=_order)

    def keys_of(self, rows: Sequence[bytes]) -> list[Any]:
        return [bson.decode(row, self.codec)["_id"] for row in rows]

    def _encode(self, row: Mapping[str, Any]) -> bytes:
        return bson.encode(row, codec_options=self.codec)

    def hashes(self, table: str, first: Any, last: Any, count: int) -> set[bytes]:
        return {bytes(state["h"]) for state in self.collection(table).find()}

    def hashes_at(self, table: str, keys: Sequence[Any]) -> set[bytes]:
        return self.hashes(table, None, None, 0)

    def update(self, table: str, statements: Sequence[Update], *, durable: bool = True) -> Updated:
        collection, matched, changed = self.collection(table), 0, 0
        for condition, change, upsert, _ in statements:
            is_change = any(name.startswith("$") for name in change)
            verb = collection.update_one if is_change else collection.replace_one
            result = verb(condition, change, upsert=upsert)
            matched += result.matched_count or int(upsert)
            changed += result.modified_count or int(upsert and not result.matched_count)
        return Updated(matched, changed)

    def insert(self, table: str, documents: Sequence[Mapping[str, Any]]) -> None:
        for document in documents:
            self.collection(table).insert_one(dict(document))

    def insert_missing(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> list[int]:
        collection, there = self.collection(table), []
        for position, document in enumerate(documents):
            try:
                collection.insert_one(dict(document))
            except DuplicateKeyError:
                there.append(position)
        return there

    def delete(self, table: str, condition: Mapping[str, Any], *, durable: bool = True) -> int:
        return int(self.collection(table).delete_many(condition).deleted_count)


def _order(key: Any) -> tuple[int, Any]:
    """A total order over keys of any types: numbers, then text, then all else by its bytes."""
    if isinstance(key, (int, float)) and not isinstance(key, bool):
        return (0, key)
    if isinstance(key, str):
        return (1, key)
    return (2, key_bytes(key))
