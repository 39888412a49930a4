"""One collection as the driver has it, whose every call raises pinnacle's errors and none of the driver's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions

from pinnacle.backends.mongodb.wire.encoding import FORGIVING, decode_keyed
from pinnacle.backends.mongodb.wire.errors import DuplicateKey, Undecodable, driver_errors
from pinnacle.backends.mongodb.wire.raw_encoding import raw_argument
from pinnacle.backends.mongodb.wire.row_bytes import split

Condition = Mapping[str, Any]
Order = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class StoredCollection:
    """Reads and writes of one collection by the driver's own calls. What is found is asked for as it is iterated."""

    _driver: Any
    _server: str
    _codec: CodecOptions[Any] | None = None
    """Of our own reads and writes: whose keys may be such as the driver does not encode."""

    def find(
        self, condition: Condition | None = None, projection: Any = None, *, sort: Order = (), skip: int = 0,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        """The documents that match; a ``limit`` of 0 is none."""
        return self._read("find", condition or {}, projection, sort=list(sort) or None, skip=skip, limit=limit)

    def find_decodable(self, condition: Condition, projection: Any = None, **options: Any) -> Iterator[dict[str, Any]]:
        """As `find`, up to the first document that cannot be decoded, which RowRejected names."""
        count = 0
        try:
            for document in self.find(condition, projection, **options):
                yield document
                count += 1
        except Undecodable:
            limit = options.get("limit", 0)
            options |= {"skip": options.get("skip", 0) + count, "limit": limit and limit - count}
            for batch in self.raw_batches(condition, projection, **options):
                yield from map(self._decoded, split(batch))

    def _decoded(self, row: bytes) -> dict[str, Any]:
        codec = self._driver.codec_options
        try:
            return bson.decode(row, codec)
        except Exception as error:  # whatever the driver makes of it
            (known,), _ = decode_keyed([row], codec.with_options(**FORGIVING))
            raise Undecodable(
                f"the document with _id {known.get('_id')!r} of {self._driver.name!r} cannot be decoded: {error}; "
                "leave it out by a condition or a projection, or open pinnacle() on a pymongo Database whose "
                "codec_options take it"
            ) from error

    def aggregate(self, pipeline: Sequence[Condition], **options: Any) -> Iterator[dict[str, Any]]:
        return self._read("aggregate", list(pipeline), **options)

    def raw_batches(
        self, condition: Condition, projection: Any, *, sort: Order = (), skip: int = 0, limit: int = 0
    ) -> Iterator[bytes]:
        """The documents that match as the server sends them, many in a piece."""
        order = list(sort) or None
        return self._read("find_raw_batches", condition, projection, sort=order, skip=skip, limit=limit)

    def raw_aggregate(self, pipeline: Sequence[Condition], **options: Any) -> Iterator[bytes]:
        """What a pipeline gives as the server sends it."""
        return self._read("aggregate_raw_batches", list(pipeline), **options)

    def find_one(
        self, condition: Condition, projection: Any = None, *, sort: Order = (), within_ms: int | None = None
    ) -> dict[str, Any] | None:
        """The first document that matches; TookTooLong where it is not found within ``within_ms``."""
        found: dict[str, Any] | None = self._call(
            "find_one", condition, projection, sort=list(sort) or None, max_time_ms=within_ms
        )  # fmt: skip
        return found

    def has_field(self, path: str, *, within_ms: int | None = None) -> bool:
        """Whether any document has something at ``path``; TookTooLong where none is found within ``within_ms``."""
        return self.find_one({path: {"$exists": True}}, {"_id": 1}, within_ms=within_ms) is not None

    def count(self, condition: Condition, **options: Any) -> int:
        """How many documents match."""
        return int(self._call("count_documents", condition, **options))

    def about(self) -> int:
        """About how many documents there are: a figure that the server has at hand."""
        return int(self._call("estimated_document_count"))

    def insert(self, document: Mapping[str, Any]) -> None:
        self._call("insert_one", document)

    def insert_new(self, document: Mapping[str, Any]) -> bool:
        """Insert a document, unless its key, or what a unique index is over, is there already; whether it was not."""
        try:
            self.insert(document)
        except DuplicateKey:
            return False
        return True

    def update_one(self, condition: Condition, change: Any, *, upsert: bool = False) -> bool:
        """Change the first document that matches; whether there was one."""
        return bool(self._call("update_one", condition, change, upsert=upsert).matched_count)

    def update_many(self, condition: Condition, change: Any) -> int:
        """Change all documents that match; how many they were."""
        return int(self._call("update_many", condition, change).matched_count)

    def update_and_get(self, condition: Condition, change: Any, *, upsert: bool = False) -> dict[str, Any] | None:
        """Change the first document that matches, in one step with reading it; the document after that."""
        found: dict[str, Any] | None = self._call(
            "find_one_and_update", condition, change, upsert=upsert, return_document=True
        )
        return found

    def replace_one(self, condition: Condition, document: Mapping[str, Any], *, upsert: bool = False) -> None:
        self._call("replace_one", condition, document, upsert=upsert)

    def delete_one(self, condition: Condition) -> bool:
        """Delete the first document that matches; whether there was one."""
        return bool(self._call("delete_one", condition).deleted_count)

    def delete_many(self, condition: Condition) -> int:
        """Delete all documents that match; how many they were."""
        return int(self._call("delete_many", condition).deleted_count)

    def create_index(
        self, keys: Order, *, unique: bool = False, partial: Condition | None = None, name: str | None = None
    ) -> None:
        """``partial``: the condition on the documents that are in it."""
        options: dict[str, Any] = {} if partial is None else {"partialFilterExpression": dict(partial)}
        options |= {} if name is None else {"name": name}
        self._call("create_index", list(keys), unique=unique, **options)

    def index_names(self) -> set[str]:
        return set(self._call("index_information"))

    def drop_index(self, name: str) -> None:
        self._call("drop_index", name)

    def drop(self) -> None:
        self._call("drop")

    def write(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """A write of the user's own, by the name of the driver's method; the driver's result."""
        return self._call(verb, *arguments, **options)

    # -- the two ways to the driver ------------------------------------------------------------------

    def _call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        with driver_errors(self._server):
            try:
                return getattr(self._driver, verb)(*arguments, **options)
            except UnicodeError:
                if self._codec is None:
                    raise
                return getattr(self._driver, verb)(*(raw_argument(each, self._codec) for each in arguments), **options)

    def _read(self, verb: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        with driver_errors(self._server):
            try:
                yield from getattr(self._driver, verb)(*arguments, **options)
            except UnicodeError:  # raised before the first is asked for
                if self._codec is None:
                    raise
                raw = (raw_argument(each, self._codec) for each in arguments)
                yield from getattr(self._driver, verb)(*raw, **options)
