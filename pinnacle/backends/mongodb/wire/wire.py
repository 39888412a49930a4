"""How canonical rows are read and statements run.

`ServerWire` lets the server build the canonical rows; `MemoryWire`, for in-process
mongomock, builds them here. Both say the same about the same documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import bson
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference
from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from pinnacle.backends.mongodb.query import Window
from pinnacle.backends.mongodb.wire.encoding import NO_KEYS
from pinnacle.backends.mongodb.wire.errors import DUPLICATE_KEY, NAMESPACE_EXISTS, raise_write_errors
from pinnacle.backends.mongodb.wire.row_bytes import first_batch, hashes_in, open_cursor, split
from pinnacle.base.document import MISSING, is_index, value_at


@dataclass(frozen=True)
class Shape:
    """Which parts of a document make its canonical row; no ``output`` where that is kept elsewhere."""

    inputs: tuple[str, ...]
    output: str | None

    @property
    def field(self) -> str:
        """Where a document has its output."""
        if self.output is None:
            raise TypeError("this output is not kept in its documents")
        return self.output

    def expressions(self) -> dict[str, Any]:
        """The find projection with which a server computes canonical rows."""
        named = {f"i{n}": path_expression(path) for n, path in enumerate(self.inputs)}
        return {"_id": 1, **named, **({} if self.output is None else {"o": f"${self.output}"})}

    def of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The canonical row of a decoded document."""
        named = {f"i{n}": path for n, path in enumerate(self.inputs)}
        if self.output is not None:
            named["o"] = self.output
        parts = {name: value_at(document, path) for name, path in named.items()}
        return {"_id": document["_id"], **{name: part for name, part in parts.items() if part is not MISSING}}


def _all_of(conditions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {"$and": list(conditions)} if len(conditions) > 1 else next(iter(conditions), {})


def path_expression(path: str) -> Any:
    """An aggregation expression for exactly the value at a dotted path.

    ``"$a.b"`` alone would map over arrays; each step here takes a field of a document or,
    for a whole number, one element of an array.
    """
    first, *rest = path.split(".")
    expression: Any = _field("$$ROOT", first) if first.startswith("$") else f"${first}"
    for name in rest:
        element = {"$arrayElemAt": ["$$v", int(name)]} if is_index(name) else "$$REMOVE"
        inner = _field("$$v", name) if name.startswith("$") else f"$$v.{name}"
        chosen = {"$cond": [{"$isArray": "$$v"}, element, inner]}
        expression = {"$let": {"vars": {"v": expression}, "in": chosen}}
    return expression


def _field(document: str, name: str) -> Any:
    return {"$getField": {"field": {"$literal": name}, "input": document}}


class Update(NamedTuple):
    """One update statement: which documents, the change, and whether to insert it where there is none."""

    condition: Mapping[str, Any]
    change: Any
    upsert: bool = False
    multi: bool = False


class Updated(NamedTuple):
    """How many documents an update matched or inserted, and how many of these it changed or inserted."""

    matched: int
    changed: int


class Wire(Protocol):
    """Reads canonical rows and fingerprints, and runs write statements."""

    database: Any
    codec: CodecOptions[Any]
    in_process: bool

    def collection(self, table: str, *, durable: bool = True) -> Any:
        """The driver's collection, for other reads and writes; those that may be lost need not be ``durable``."""

    def user_collection(self, table: str) -> Any:
        """A collection with the options of the user's own database object, for their queries."""

    def create(self, table: str) -> None:
        """Make a collection, unless it is there."""

    def rows(self, table: str, shape: Shape, condition: Mapping[str, Any], after: Any, limit: int) -> list[bytes]:
        """The next canonical rows by ``_id`` after ``after`` (None: from the first)."""

    def rows_at(self, table: str, shape: Shape, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[bytes]:
        """The canonical rows of those of ``keys`` that are there and match."""

    def rows_of(self, table: str, shape: Shape, owners: Sequence[Any]) -> Iterator[bytes]:
        """The canonical rows whose first input is one of ``owners``, each owner's by the second input."""

    def hashes(self, table: str, first: Any, last: Any, count: int) -> set[bytes]:
        """The fingerprints recorded for keys from ``first`` to ``last``, of which there are about ``count``."""

    def hashes_at(self, table: str, keys: Sequence[Any]) -> set[bytes]:
        """The fingerprints recorded for ``keys``."""

    def keys(self, table: str, after: Any, last: Any, limit: int, path: str = "_id") -> list[Any]:
        """The next keys in order after ``after`` and up to ``last`` (None: no bound), as documents have them at
        ``path``; what can be no key is left out."""

    def keys_at(self, table: str, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[Any]:
        """Those of ``keys`` whose documents are there and match, as they are there."""

    def keys_in(self, table: str, condition: Mapping[str, Any], window: Window) -> list[Any]:
        """The keys of the documents that match and are in the window, in order of ``_id``."""

    def keys_of(self, rows: Sequence[bytes]) -> list[Any]:
        """The keys of canonical rows."""

    def update(self, table: str, statements: Sequence[Update], *, durable: bool = True) -> Updated:
        """Run update statements in order.

        Not ``durable``: a later durable write makes this one so.
        """

    def insert(self, table: str, documents: Sequence[Mapping[str, Any]]) -> None:
        """Insert documents, all of which are new."""

    def insert_missing(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> list[int]:
        """Insert those of the documents whose keys are not there; the positions of the others."""

    def delete(self, table: str, condition: Mapping[str, Any], *, durable: bool = True) -> int:
        """Delete the documents that match; how many they were."""


@dataclass
class ServerWire:
    """A mongod or mongos: rows come as raw bytes, statements go as one command."""

    database: Any
    codec: CodecOptions[Any]
    in_process: bool = False

    def collection(self, table: str, *, durable: bool = True) -> Any:
        """A collection on the primary with acknowledged writes, whatever the user's URL asks for."""
        acknowledged = WriteConcern(w="majority") if durable else WriteConcern(w=1, j=False)
        return self.database.get_collection(
            table, self.codec, ReadPreference.PRIMARY, acknowledged, ReadConcern("local")
        )

    def user_collection(self, table: str) -> Any:
        return self.database[table]

    def create(self, table: str) -> None:
        try:
            self.database.create_collection(table, check_exists=False)
        except OperationFailure as error:
            if error.code != NAMESPACE_EXISTS:
                raise

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

    def rows_of(self, table: str, shape: Shape, owners: Sequence[Any]) -> Iterator[bytes]:
        owner, place = shape.inputs
        condition = {owner: {"$in": list(owners)}}
        batches = self.collection(table).find_raw_batches(condition, shape.expressions(), sort=[(owner, 1), (place, 1)])
        return (row for batch in batches for row in split(batch))

    def keys(self, table: str, after: Any, last: Any, limit: int, path: str = "_id") -> list[Any]:
        bounds = [{"$gt": [f"${path}", {"$literal": after}]}] if after is not None else []
        bounds += [{"$lte": [f"${path}", {"$literal": last}]}] if last is not None else []
        conditions: list[Mapping[str, Any]] = [{"$expr": {"$and": bounds}}] if bounds else []
        if path != "_id":
            conditions.append({path: {"$exists": True, "$not": {"$type": list(NO_KEYS)}}})
        found = self.collection(table).find(_all_of(conditions), {"_id": 0, path: 1}).sort(path, 1).limit(limit)
        return [document[path] for document in found]

    def keys_at(self, table: str, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[Any]:
        conditions = [{"_id": {"$in": list(keys)}}, *([condition] if condition else [])]
        return [document["_id"] for document in self.collection(table).find(_all_of(conditions), {"_id": 1})]

    def keys_in(self, table: str, condition: Mapping[str, Any], window: Window) -> list[Any]:
        chosen: list[Mapping[str, Any]] = [{"$match": condition}, {"$sort": window.exact_order}, {"$skip": window.skip}]
        chosen += [{"$limit": window.limit}] if window.limit else []
        in_order = [{"$project": {"_id": 1}}, {"$sort": {"_id": 1}}]
        found = self.collection(table).aggregate([*chosen, *in_order], allowDiskUse=True)
        return [document["_id"] for document in found]

    def keys_of(self, rows: Sequence[bytes]) -> list[Any]:
        return [row["_id"] for row in bson.decode_all(b"".join(rows), self.codec)] if rows else []

    def _hashes(self, table: str, condition: Mapping[str, Any], count: int) -> set[bytes]:
        find = {"filter": condition, "projection": {"_id": 0, "h": 1}}
        batch = self._cursor(table, {**find, "batchSize": count + 1})
        if not open_cursor(batch):
            return hashes_in(batch)
        self._abandon(table, open_cursor(batch))
        batches = self.collection(table).find_raw_batches(find["filter"], find["projection"])
        return set().union(*map(hashes_in, batches))

    def _read(self, table: str, find: Mapping[str, Any], count: int) -> list[bytes]:
        """All that matches, about ``count`` documents; by a cursor when one reply cannot hold them."""
        found, cursor = self._reply(table, {**find, "batchSize": count + 1})
        if not cursor:
            return found
        self._abandon(table, cursor)
        batches = self.collection(table).find_raw_batches(find["filter"], find["projection"])
        return [document for batch in batches for document in split(batch)]

    def _reply(self, table: str, find: Mapping[str, Any]) -> tuple[list[bytes], int]:
        return first_batch(self._cursor(table, find))

    def _cursor(self, table: str, find: Mapping[str, Any]) -> bytes:
        """The part of a find's reply that holds its documents, as raw BSON."""
        raw = self.codec.with_options(document_class=RawBSONDocument)
        return bytes(self._run({"find": table, **find}, raw)["cursor"].raw)

    def _abandon(self, table: str, cursor: int) -> None:
        self.database.command({"killCursors": table, "cursors": [Int64(cursor)]})

    def update(self, table: str, statements: Sequence[Update], *, durable: bool = True) -> Updated:
        updates = [
            {"q": s.condition, "u": s.change, "upsert": s.upsert, "multi": s.multi} if s.upsert or s.multi
            else {"q": s.condition, "u": s.change}
            for s in statements
        ]  # fmt: skip
        reply = self._command({"update": table, "updates": updates, "ordered": True}, durable=durable)
        return Updated(int(reply["n"]), int(reply["nModified"]) + len(reply.get("upserted", ())))

    def insert(self, table: str, documents: Sequence[Mapping[str, Any]]) -> None:
        self._command({"insert": table, "documents": list(documents), "ordered": True})

    def insert_missing(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> list[int]:
        concern = {"w": "majority" if durable else 1}
        command = {"insert": table, "documents": list(documents), "ordered": False, "writeConcern": concern}
        reply = self._run(command, self.codec)
        errors = reply.pop("writeErrors", [])
        raise_write_errors({"writeErrors": [error for error in errors if error["code"] != DUPLICATE_KEY]})
        return [int(error["index"]) for error in errors]

    def delete(self, table: str, condition: Mapping[str, Any], *, durable: bool = True) -> int:
        return int(self._command({"delete": table, "deletes": [{"q": condition, "limit": 0}]}, durable=durable)["n"])

    def _command(self, command: dict[str, Any], *, durable: bool = True) -> Mapping[str, Any]:
        command["writeConcern"] = {"w": "majority" if durable else 1}
        reply = self._run(command, self.codec)
        raise_write_errors(reply)
        found: Mapping[str, Any] = reply
        return found

    def _run(self, command: Mapping[str, Any], codec: CodecOptions[Any]) -> Any:
        """Run a command, a second time if the connection dropped or the primary changed.

        All commands of this class may be run twice: an output that is already written no
        longer meets its condition and is found by its bytes, and bookkeeping is replaced.
        """
        try:
            return self.database.command(command, codec_options=codec)
        except ServerSelectionTimeoutError:
            raise
        except AutoReconnect:
            return self.database.command(command, codec_options=codec)
