"""MongoDB by hand: read a page, call the function, compare and write in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import bson
import pymongo
from bson.binary import Binary
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database

VERSION = 0
CHANGED = "some documents changed while they were worked on"
GROUP_ROWS = 100
Batch = Sequence[tuple[int, Any]]
"""(key, output)"""


def fill(url: str, function: Callable[[str], Any], *, write: Callable[..., int], rows: int) -> None:
    """The whole job with one way to write, ``rows`` a transaction."""
    with pymongo.MongoClient[Any](url) as client, client.start_session() as session:
        database = client.get_default_database()
        database.create_collection("state")
        for page in pages(database, rows):
            documents = bson.decode_all(page)
            outputs = [(document["_id"], function(document["body"])) for document in documents]
            states = [
                {"_id": document["_id"], "h": Binary(hashed(document["body"])), "v": VERSION} for document in documents
            ]
            with session.start_transaction():
                if read(database, outputs[0][0], outputs[-1][0], len(outputs), session) != page:
                    raise RuntimeError(CHANGED)
                if write(database, outputs, session) != len(outputs):
                    raise RuntimeError(CHANGED)
                run(database, {"insert": "state", "documents": states}, session)


def by_document(database: Database[Any], batch: Batch, session: ClientSession) -> int:
    """An UpdateOne a document, through the driver's bulk_write."""
    updates = [UpdateOne({"_id": key}, {"$set": {"words": output}}) for key, output in batch]
    return database.docs.bulk_write(updates, session=session).matched_count


def by_command(database: Database[Any], batch: Batch, session: ClientSession) -> int:
    """An update a document, in one command without the driver's checks."""
    updates = [{"q": {"_id": key}, "u": {"$set": {"words": output}}} for key, output in batch]
    return run(database, {"update": "docs", "updates": updates}, session)


def by_group(database: Database[Any], batch: Batch, session: ClientSession) -> int:
    """One update for 100 documents, which look their value up by their key."""
    updates = []
    for start in range(0, len(batch), GROUP_ROWS):
        keys, outputs = map(list, zip(*batch[start : start + GROUP_ROWS], strict=True))
        value = {"$arrayElemAt": [{"$literal": outputs}, {"$indexOfArray": [{"$literal": keys}, "$_id"]}]}
        query = {"_id": {"$gte": keys[0], "$lte": keys[-1]}}
        updates.append({"q": query, "u": [{"$set": {"words": value}}], "multi": True})
    return run(database, {"update": "docs", "updates": updates}, session)


def verify(url: str) -> int:
    """Read both collections in key order, hash every input, compare; how many documents are not fresh."""
    with pymongo.MongoClient[Any](url) as client:
        database = client.get_default_database()
        recorded = {state["_id"]: (state["h"], state["v"]) for state in database.state.find(batch_size=10_000)}
        stale = 0
        for document in database.docs.find({}, {"body": 1, "words": 1}, batch_size=10_000):
            is_recorded = recorded.get(document["_id"]) == (hashed(document["body"]), VERSION)
            stale += not is_recorded or "words" not in document
    return stale


def pages(database: Database[Any], rows: int) -> Iterator[bytes]:
    after = 0
    while page := read(database, after + 1, None, rows):
        yield page
        after = bson.decode_all(page)[-1]["_id"]


def read(
    database: Database[Any], first: int, last: int | None, rows: int, session: ClientSession | None = None
) -> bytes:
    """Documents from ``first`` on as raw bytes, at most ``rows``."""
    span = {"$gte": first} if last is None else {"$gte": first, "$lte": last}
    found = database.docs.find_raw_batches(
        {"_id": span}, {"body": 1}, sort=[("_id", 1)], limit=rows, batch_size=rows + 1, session=session
    )
    return b"".join(found)


def run(database: Database[Any], command: dict[str, Any], session: ClientSession) -> int:
    reply = database.command(command, session=session)
    if reply.get("writeErrors"):
        raise RuntimeError(str(reply["writeErrors"][0]))
    return int(reply["n"])


def hashed(body: str) -> bytes:
    return blake2b(body.encode(), digest_size=16).digest()


WAYS: dict[str, Callable[[str, Callable[[str], Any]], None]] = {
    f"{write.__name__.replace('_', ' ')}, {rows}": partial(fill, write=write, rows=rows)
    for write in (by_document, by_command, by_group)
    for rows in (1000, 2000)
}
