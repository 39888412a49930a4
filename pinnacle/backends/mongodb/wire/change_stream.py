"""A change stream over one database, read batch by batch: which documents changed, and in which fields.

Events bring keys and the names of fields and never values: one over 16 MB would end the
stream. A stream starts at a time of the server, and all at that time is read again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from pinnacle.backends.mongodb.wire.encoding import decode, decode_keyed
from pinnacle.backends.mongodb.wire.errors import driver_errors
from pinnacle.backends.mongodb.wire.row_bytes import batch, element_at, open_cursor
from pinnacle.base.errors import BackendError
from pinnacle.base.told import logger

log = logger(__name__)

BATCH_EVENTS = 5_000
_LOST = {286, 280, 10334}
"""ChangeStreamHistoryLost, ChangeStreamFatalError, and BSONObjectTooLarge for an event that no projection helped."""
_RESUMABLE = {43, 136, 133, 234, 237, 11601, 11602}
"""CursorNotFound and its kin: the cursor died, and the server still has what comes after it."""
_TIMESTAMP = "82"

_CHANGED_NAMES = {
    "$concatArrays": [
        {"$map": {"input": {"$objectToArray": "$updateDescription.updatedFields"}, "in": "$$this.k"}},
        {"$ifNull": ["$updateDescription.removedFields", []]},
        {"$map": {"input": {"$ifNull": ["$updateDescription.truncatedArrays", []]}, "in": "$$this.field"}},
    ]
}
_EVENT = {
    "kind": "$operationType", "table": "$ns.coll", "renamed": "$to.coll", "key": "$documentKey._id",
    "names": {"$cond": [{"$eq": ["$operationType", "update"]}, _CHANGED_NAMES, "$$REMOVE"]},
}  # fmt: skip
OF_DOCUMENTS = frozenset({"insert", "update", "replace", "delete"})
ENDS = frozenset({"dropDatabase", "invalidate"})


class HistoryLost(BackendError):
    """The server no longer has the changes since the stream's start; all rows must be looked at."""


class StreamEnded(BackendError):
    """The cursor died; a new stream from the same position goes on."""

    retryable = True


@dataclass(frozen=True)
class Batch:
    """Events, and the time from which a new stream would give all that come after them."""

    events: Sequence[Mapping[str, Any]]
    position: Timestamp


class ChangeStream:
    """The changes of some collections of a database from ``start`` on."""

    def __init__(
        self, database: Any, codec: CodecOptions[Any], server: str, tables: Collection[str], start: Timestamp,
    ) -> None:  # fmt: skip
        self._database, self._codec, self._server = database, codec, server
        self._raw = codec.with_options(document_class=RawBSONDocument)
        with driver_errors(server):
            self._session = database.client.start_session(causal_consistency=False)
        command = {"aggregate": 1, "pipeline": _pipeline(tables, start), "cursor": {"batchSize": 0}}
        try:
            reply = self._run({**command, "readConcern": {"level": "majority"}})
        except BaseException:  # nothing was opened, and the session is given back; raised again
            self._session.end_session()
            raise
        self._cursor = int(reply["cursor"]["id"])

    def next(self, wait_ms: int) -> Batch:
        """The next events, after waiting for some for at most ``wait_ms``. HistoryLost, StreamEnded."""
        if not self._cursor:
            raise HistoryLost("the database was dropped")
        more = {"getMore": Int64(self._cursor), "collection": "$cmd.aggregate", "batchSize": BATCH_EVENTS}
        cursor = bytes(self._run({**more, "maxTimeMS": wait_ms})["cursor"].raw)
        self._cursor = open_cursor(cursor)
        _, token = element_at(cursor, b"postBatchResumeToken") or (0, b"")
        events, _ = decode_keyed(batch(cursor, b"nextBatch"), self._codec, "key")
        return Batch(events, time_of(decode(token, self._codec)))

    def close(self) -> None:
        try:
            if self._cursor:
                kill = {"killCursors": "$cmd.aggregate", "cursors": [Int64(self._cursor)]}
                self._database.command(kill, session=self._session)
            self._session.end_session()
        except PyMongoError as error:  # the server closes it by itself
            log.debug("a change stream could not be closed: %s", error)

    def _run(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        with driver_errors(self._server):
            try:
                reply: Mapping[str, Any] = self._database.command(
                    command, codec_options=self._raw, session=self._session
                )
            except OperationFailure as error:
                if error.code in _LOST:
                    raise HistoryLost(f"the server no longer has all changes: {error}") from error
                if error.code in _RESUMABLE or error.has_error_label("ResumableChangeStreamError"):
                    raise StreamEnded(f"the change stream ended: {error}") from error
                raise
        return reply


def _pipeline(tables: Collection[str], start: Timestamp) -> list[dict[str, Any]]:
    names = sorted(tables)
    concerned = [{"ns.coll": {"$in": names}}, {"to.coll": {"$in": names}}, {"operationType": {"$in": sorted(ENDS)}}]
    return [{"$changeStream": {"startAtOperationTime": start}}, {"$match": {"$or": concerned}}, {"$project": _EVENT}]


def time_of(token: Mapping[str, Any]) -> Timestamp:
    """The server's time in a resume token, which begins with it as a key of an index would (type 0x82).

    A token can only be used with the stream's own pipeline; its time with that of others as well.
    """
    text = str(token["_data"])
    if not text.startswith(_TIMESTAMP):
        raise BackendError(f"a resume token of an unknown form: {text[:20]}...")
    return Timestamp(int(text[2:10], 16), int(text[10:18], 16))
