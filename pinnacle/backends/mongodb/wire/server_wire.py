"""A mongod or mongos: rows come as raw bytes, statements go as one command."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from bson.binary import Binary
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import ReadPreference
from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from pinnacle.backends.mongodb.query import Window
from pinnacle.backends.mongodb.wire.change_stream import ChangeStream
from pinnacle.backends.mongodb.wire.encoding import decode_keyed, keys_of
from pinnacle.backends.mongodb.wire.errors import (
    DUPLICATE_KEY,
    NAMESPACE_EXISTS,
    driver_errors,
    raise_concern_error,
    raise_write_error,
)
from pinnacle.backends.mongodb.wire.keys import NO_KEYS
from pinnacle.backends.mongodb.wire.raw_encoding import raw_command
from pinnacle.backends.mongodb.wire.row_bytes import first_batch, hashes_in, open_cursor, split
from pinnacle.backends.mongodb.wire.shape import Shape, parents_of
from pinnacle.backends.mongodb.wire.stored_collection import Order, StoredCollection
from pinnacle.backends.mongodb.wire.wire import CollectionInfo, Update, Updated
from pinnacle.backends.protocol import Capability
from pinnacle.base import forks


@dataclass
class ServerWire:
    """See `Wire`. ``server`` is its name in messages, without user and password.

    ``_reopen`` gives the same database by a client of its own, where the client is not the user's.
    """

    _opened: Any
    codec: CodecOptions[Any]
    server: str
    capabilities: frozenset[Capability]
    _reopen: Callable[[], Any] | None = None
    name: str = "mongodb"
    in_process: bool = False
    has_expressions: bool = True
    _collections: dict[tuple[str, bool], StoredCollection] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self._reopen is not None:
            forks.renew_in_child(self._renew)

    def _renew(self) -> None:
        forks.leave_to_parent(self._opened)
        self._opened = None
        self._collections.clear()

    @property
    def _database(self) -> Any:
        """The database; in a forked child by a client of its own, from the first use on."""
        if self._opened is None and self._reopen is not None:
            self._opened = self._reopen()
        return self._opened

    @cached_property
    def _raw(self) -> CodecOptions[Any]:
        """For replies with what others wrote in them: keys, also in errors, which may not be such as can be decoded."""
        return self.codec.with_options(document_class=RawBSONDocument)

    @property
    def engine(self) -> Any:
        return self._database

    def collection(self, table: str, *, durable: bool = True) -> StoredCollection:
        """A collection on the primary with acknowledged writes, whatever the user's URL asks for."""
        place = table, durable
        if place not in self._collections:
            acknowledged = WriteConcern(w="majority") if durable else WriteConcern(w=1, j=False)
            found = self._database.get_collection(
                table, self.codec, ReadPreference.PRIMARY, acknowledged, ReadConcern("local")
            )
            self._collections[place] = StoredCollection(found, self.server, self.codec)
        return self._collections[place]

    def user_collection(self, table: str) -> StoredCollection:
        return StoredCollection(self._database[table], self.server)

    def create(self, table: str) -> None:
        with driver_errors(self.server):
            try:
                self._database.create_collection(table, check_exists=False)
            except OperationFailure as error:
                if error.code != NAMESPACE_EXISTS:
                    raise

    def names(self) -> list[str]:
        with driver_errors(self.server):
            return list(self._database.list_collection_names())

    def uuids(self) -> dict[str, Any]:
        with driver_errors(self.server):
            return {found["name"]: _uuid(found["info"].get("uuid")) for found in self._database.list_collections()}

    def described(self, table: str) -> CollectionInfo:
        with driver_errors(self.server):
            found: Mapping[str, Any] = next(iter(self._database.list_collections(filter={"name": table})), {})
        return CollectionInfo(found.get("type", "collection"), "collation" not in found.get("options", {}))

    def misfit(self, table: str, path: str, types: Sequence[str]) -> Mapping[str, Any] | None:
        clashes: list[dict[str, Any]] = [{path: {"$exists": True, "$not": {"$type": list(types)}}}]
        if "array" not in types:
            clashes.append({path: {"$type": "array"}})  # $type looks at an array's elements too
        for parent in parents_of(path):
            clashes.append({parent: {"$exists": True, "$not": {"$type": "object"}}})
            clashes.append({parent: {"$type": "array"}})
        return next(iter(self.documents(table, {"$or": clashes}, {path: 1}, limit=1)), None)

    def rows(self, table: str, shape: Shape, condition: Mapping[str, Any], after: Any, limit: int) -> list[bytes]:
        conditions = [condition] if condition else []
        if after is not None:
            conditions.append({"$expr": {"$gt": ["$_id", {"$literal": after}]}})
        find = {"filter": _all_of(conditions), "projection": shape.expressions(), "sort": {"_id": 1}}
        page = {**find, "limit": limit, "batchSize": limit, "singleBatch": True}  # ends at 16 MB: memory stays bounded
        return self._reply(table, page)[0]

    def rows_at(self, table: str, shape: Shape, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[bytes]:
        conditions = [{"_id": {"$in": list(keys)}}, *([condition] if condition else [])]
        find = {"filter": _all_of(conditions), "projection": shape.expressions()}
        return self._read(table, find, len(keys))

    def hashes(self, table: str, first: Any, last: Any, count: int) -> set[bytes]:
        span = {"$and": [{"$gte": ["$_id", {"$literal": first}]}, {"$lte": ["$_id", {"$literal": last}]}]}
        return self._hashes(table, {"$expr": span}, count)

    def hashes_at(self, table: str, keys: Sequence[Any]) -> set[bytes]:
        return self._hashes(table, {"_id": {"$in": list(keys)}}, len(keys))

    def rows_of(self, table: str, shape: Shape, parents: Sequence[Any]) -> Iterator[bytes]:
        parent, place = shape.inputs
        condition = {parent: {"$in": list(parents), "$exists": True}}  # null would match where there is none
        batches = self.collection(table).raw_batches(condition, shape.expressions(), sort=[(parent, 1), (place, 1)])
        return (row for batch in batches for row in split(batch))

    def documents(
        self, table: str, condition: Mapping[str, Any], projection: Any = None, *, sort: Order = (), limit: int = 0,
        key: str = "_id",
    ) -> list[dict[str, Any]]:  # fmt: skip
        batches = self.collection(table).raw_batches(condition, projection, sort=sort, limit=limit)
        return decode_keyed([row for batch in batches for row in split(batch)], self.codec, key)[0]

    def keys(self, table: str, after: Any, last: Any, limit: int, path: str = "_id") -> list[Any]:
        bounds = [{"$gt": [f"${path}", {"$literal": after}]}] if after is not None else []
        bounds += [{"$lte": [f"${path}", {"$literal": last}]}] if last is not None else []
        conditions: list[Mapping[str, Any]] = [{"$expr": {"$and": bounds}}] if bounds else []
        if path != "_id":
            conditions.append({path: {"$exists": True, "$not": {"$type": list(NO_KEYS)}}})
        names = {"_id": 0, path: 1}
        found = self.documents(table, _all_of(conditions), names, sort=[(path, 1)], limit=limit, key=path)
        return [document[path] for document in found]

    def keys_at(self, table: str, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[Any]:
        conditions = [{"_id": {"$in": list(keys)}}, *([condition] if condition else [])]
        return [document["_id"] for document in self.documents(table, _all_of(conditions), {"_id": 1})]

    def keys_in(self, table: str, condition: Mapping[str, Any], window: Window) -> list[Any]:
        chosen: list[Mapping[str, Any]] = [{"$match": condition}, {"$sort": window.exact_order}, {"$skip": window.skip}]
        chosen += [{"$limit": window.limit}] if window.limit else []
        in_order = [{"$project": {"_id": 1}}, {"$sort": {"_id": 1}}]
        batches = self.collection(table).raw_aggregate([*chosen, *in_order], allowDiskUse=True)
        return keys_of([row for batch in batches for row in split(batch)], self.codec)

    def thawed(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        return condition

    def _hashes(self, table: str, condition: Mapping[str, Any], count: int) -> set[bytes]:
        find = {"filter": condition, "projection": {"_id": 0, "h": 1}}
        batch = self._cursor(table, {**find, "batchSize": count + 1})
        if not open_cursor(batch):
            return hashes_in(batch)
        self._abandon(table, open_cursor(batch))
        batches = self.collection(table).raw_batches(find["filter"], find["projection"])
        return set().union(*map(hashes_in, batches))

    def _read(self, table: str, find: Mapping[str, Any], count: int) -> list[bytes]:
        """All that matches, about ``count`` documents; by a cursor when one reply cannot hold them."""
        found, cursor = self._reply(table, {**find, "batchSize": count + 1})
        if not cursor:
            return found
        self._abandon(table, cursor)
        batches = self.collection(table).raw_batches(find["filter"], find["projection"])
        return [document for batch in batches for document in split(batch)]

    def _reply(self, table: str, find: Mapping[str, Any]) -> tuple[list[bytes], int]:
        return first_batch(self._cursor(table, find))

    def _cursor(self, table: str, find: Mapping[str, Any]) -> bytes:
        """The part of a find's reply that holds its documents, as raw BSON."""
        return bytes(self._run({"find": table, **find}, self._raw)["cursor"].raw)

    def _abandon(self, table: str, cursor: int) -> None:
        with driver_errors(self.server):
            self._database.command({"killCursors": table, "cursors": [Int64(cursor)]})

    def update(self, table: str, statements: Sequence[Update], *, durable: bool = True) -> Updated:
        updates = [
            {"q": s.condition, "u": s.change, "upsert": s.upsert, "multi": s.multi} if s.upsert or s.multi
            else {"q": s.condition, "u": s.change}
            for s in statements
        ]  # fmt: skip
        reply = self._command({"update": table, "updates": updates, "ordered": True}, durable=durable)
        return Updated(int(reply["n"]), int(reply["nModified"]) + len(reply.get("upserted", ())))

    def insert(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> None:
        self._command({"insert": table, "documents": list(documents), "ordered": True}, durable=durable)

    def insert_missing(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> list[int]:
        concern = {"w": "majority" if durable else 1}
        command = {"insert": table, "documents": list(documents), "ordered": False, "writeConcern": concern}
        reply = self._run(command, self._raw)
        raise_concern_error(reply, self.server)
        errors = reply.get("writeErrors", [])
        raise_write_error([error for error in errors if error["code"] != DUPLICATE_KEY], self.server)
        return [int(error["index"]) for error in errors]

    def delete(self, table: str, condition: Mapping[str, Any], *, durable: bool = True) -> int:
        return int(self._command({"delete": table, "deletes": [{"q": condition, "limit": 0}]}, durable=durable)["n"])

    def clock(self) -> datetime:
        moment: datetime = self._run({"hello": 1}, DEFAULT_CODEC_OPTIONS)["localTime"]
        return moment.replace(tzinfo=UTC)

    def piped(self, table: str, pipeline: Sequence[Mapping[str, Any]]) -> list[bytes]:
        found = self._run({"aggregate": table, "pipeline": list(pipeline), "cursor": {}}, self._raw)
        return first_batch(bytes(found["cursor"].raw))[0]

    def operation_time(self) -> Timestamp | None:
        found: Timestamp | None = self._run({"ping": 1}, DEFAULT_CODEC_OPTIONS).get("operationTime")
        return found

    def changes(self, tables: Collection[str], start: Timestamp) -> ChangeStream:
        return ChangeStream(self._database, self.codec, self.server, tables, start)

    def close(self) -> None:
        if self._reopen is not None and self._opened is not None:
            self._opened.client.close()

    def _command(self, command: dict[str, Any], *, durable: bool = True) -> Mapping[str, Any]:
        command["writeConcern"] = {"w": "majority" if durable else 1}
        reply: Mapping[str, Any] = self._run(command, self._raw)
        raise_concern_error(reply, self.server)
        raise_write_error(reply.get("writeErrors", []), self.server)
        return reply

    def _run(self, command: Mapping[str, Any], codec: CodecOptions[Any]) -> Any:
        """Run a command, a second time if the connection dropped or the primary changed.

        All commands of this class may be run twice: an output that is already written no
        longer meets its condition and is found by its bytes, and bookkeeping is replaced.
        """
        with driver_errors(self.server):
            try:
                return self._database.command(command, codec_options=codec)
            except UnicodeError:
                return self._database.command(raw_command(command, self.codec), codec_options=codec)
            except ServerSelectionTimeoutError:
                raise
            except AutoReconnect:
                return self._database.command(command, codec_options=codec)


def _uuid(value: Any) -> Any:
    """As entries of ours have it, in whatever way the user's client reads it."""
    return value.as_uuid() if isinstance(value, Binary) else value


def _all_of(conditions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"$and": list(conditions)} if len(conditions) > 1 else next(iter(conditions), {})
