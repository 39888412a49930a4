"""Documents of every BSON type, from a generator: each is right, or set aside with its key."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Any

import pytest
from bson import DBRef, Decimal128, Int64, MaxKey, MinKey, Timestamp
from bson.binary import Binary
from bson.code import Code
from bson.raw_bson import RawBSONDocument

from pinnacle import Database, Listener, model
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from pinnacle.base.errors import RowRejected
from pinnacle.base.rows import Fields
from pinnacle.runtime.training import RowStream
from tests import hostile_documents as hostile
from tests.databases import UserDatabase
from tests.hostile_documents import UNREADABLE, HostileDocuments
from tests.models import CALLS, note, shout

COUNT, SEED = 600, 3
on_servers = pytest.mark.requires(Capability.DOCUMENTS, Capability.MANY_PROCESSES)


@model(identifier="tell", max_attempts=1)
def tell(value: object) -> str:
    return hostile.told(note(value))


@pytest.fixture
def documents(backend) -> Any:
    """The user's own collection of hostile documents."""
    collection = backend.database["docs"]
    hostile.insert(collection, HostileDocuments(SEED).documents(COUNT))
    return collection


def check(documents: Any, db: Database) -> tuple[int, int]:
    """Every document is right or set aside; how many are the one and the other."""
    wanted, found = hostile.expected(documents, "body"), hostile.outputs(documents, "said")
    bad = {place for place, value in enumerate(wanted) if value is UNREADABLE}
    told_of = {error.key if str(error.key).startswith("BSON ") else repr(error.key) for error in db.errors()}
    assert bad
    assert [value for place, value in enumerate(found) if place not in bad] == [
        v for v in wanted if v is not UNREADABLE
    ]
    assert len(told_of) == len(bad)
    assert all(names & told_of for place, names in enumerate(hostile.keys(documents)) if place in bad)
    return len(wanted) - len(bad), len(bad)


@on_servers
def test_each_document_of_a_bulk_predict_is_right_or_set_aside(db, documents):
    first = tell.predict(X="body", db=db, select=Collection("docs").find(), output="said")
    again = tell.predict(X="body", db=db, select=Collection("docs").find(), output="said")
    right, bad = check(documents, db)
    assert (first.read, first.written, first.failed) == (right + bad, right, bad)
    assert (first.calls, len(CALLS)) == (right - first.empty - first.deduplicated,) * 2
    assert (again.fresh, again.set_aside, again.calls) == (right, bad, 0)


@on_servers
def test_each_document_of_a_listener_is_right_or_set_aside_as_they_come_and_go(db, documents):
    db.add(Listener(model=tell, key="body", select=Collection("docs").find(), output="said", identifier="ears"))
    db.listen()
    db.drain()
    check(documents, db)
    hostile.insert(documents, HostileDocuments(SEED + 1).documents(COUNT))
    documents.update_many({}, {"$rename": {"body": "before"}})
    documents.update_many({}, [{"$set": {"body": "$more"}}])
    hostile.insert(documents, HostileDocuments(SEED + 2).documents(COUNT))
    db.drain()
    right, bad = check(documents, db)
    fresh = db.fresh("ears")
    assert (fresh.fresh, fresh.failed, fresh.stale, fresh.missing) == (right, bad, 0, 0)
    documents.delete_many({})
    db.drain()
    assert db.errors() == []
    assert db.fresh("ears").fresh == 0


KEYS = [
    Decimal128("9.5"), Decimal128("NaN"), Decimal128("1E+6000"), Code("x"), Code("x", {"a": 1}), DBRef("docs", 7),
    DBRef("docs", Decimal128("1")), MinKey(), MaxKey(), Timestamp(1, 2), Int64(2**62), float("inf"), True, b"bytes",
    Binary(b"x", 128), Binary(bytes(16), 3), datetime(1, 1, 1), {}, {"a": {"b": Decimal128("2")}}, {"": -0.0},
    "", "\x00", 9.25, Int64(-1),
]  # fmt: skip


def is_kept_by_mongomock(key: Any) -> bool:
    """It has dicts of documents by their keys."""
    try:
        hash(tuple(key.values()) if isinstance(key, dict) else key)
    except TypeError:
        return False
    return True


@pytest.mark.requires(Capability.DOCUMENTS)
def test_keys_of_every_kind_name_their_documents(backend, db):
    db.add(Listener(model=shout, key="body", select=Collection("docs").find(), output="loud", identifier="ears"))
    keys = KEYS if backend.name != "mongomock" else [key for key in KEYS if is_kept_by_mongomock(key)]
    backend.insert("docs", *({"id": key, "body": f"text {n}"} for n, key in enumerate(keys)))
    db.listen()
    db.drain()
    assert sorted(backend.rows("docs", "loud")) == sorted((f"TEXT {n}",) for n in range(len(keys)))
    for key in keys:
        backend.update("docs", key, {"body": "again"})
    db.drain()
    assert backend.rows("docs", "loud") == [("AGAIN",)] * len(keys)
    for key in keys:
        backend.delete("docs", key)
    db.drain()
    assert db.fresh("ears").fresh == 0


# -- one document that cannot be decoded, among others ------------------------------------------------


NOT_A_UUID = Binary(b"short", 4)


def create(backend: UserDatabase, bad: Any = NOT_A_UUID) -> None:
    bodies: list[Any] = ["one", "two", bad, "four"]
    backend.insert("docs", *({"body": body} for body in bodies))


def said(backend: UserDatabase) -> list[Any]:
    return hostile.outputs(backend.database["docs"], "said")  # type: ignore[attr-defined]


@on_servers
def test_a_change_of_the_document_tries_it_again(backend, db):
    create(backend)
    tell.predict(X="body", db=db, select=Collection("docs").find(), output="said")
    (error,) = db.errors()
    assert (error.key, error.error, error.attempts) == (3, "InvalidBSON", 1)
    assert said(backend) == ["'one'", "'two'", None, "'four'"]
    backend.update("docs", 3, {"body": "three"})
    assert tell.predict(X="body", db=db, select=Collection("docs").find(), output="said").written == 1
    assert said(backend) == ["'one'", "'two'", "'three'", "'four'"]
    assert db.errors() == []


@on_servers
def test_an_output_that_cannot_be_decoded_is_written_again(backend, db):
    create(backend, "three")
    tell.predict(X="body", db=db, select=Collection("docs").find(), output="said")
    backend.update("docs", 3, {"said": NOT_A_UUID})
    assert tell.predict(X="body", db=db, select=Collection("docs").find(), output="said").written == 1
    assert said(backend)[2] == "'three'"


@on_servers
def test_training_leaves_such_documents_out_and_counts_them(backend, db):
    create(backend)
    with closing(backend.below()) as below:
        rows = RowStream(below, Collection("docs").find(), Fields.of("body"))
        assert [row["body"] for row in rows] == ["one", "two", "four"]
        assert (rows.count, rows.unread) == (3, 1)


@on_servers
def test_a_query_of_the_users_names_the_document_that_cannot_be_decoded(backend, db):
    raw = RawBSONDocument(b"\x17\x00\x00\x00\x10_id\x00\x03\x00\x00\x00\x02b\x00\x02\x00\x00\x00\xff\x00\x00")
    backend.insert("docs", {"b": "one"}, {"b": "two"})
    hostile.insert(backend.database["docs"], [raw])
    found = iter(db.execute(Collection("docs").find()))
    assert [next(found)["b"], next(found)["b"]] == ["one", "two"]
    with pytest.raises(RowRejected, match=r"the document with _id 3 of 'docs' cannot be decoded: .* codec_options"):
        next(found)
    with pytest.raises(RowRejected, match="the document with _id 3 of 'docs'"):
        db.execute(Collection("docs").find_one({"_id": 3}))
    assert [row["_id"] for row in db.execute(Collection("docs").find({}, {"_id": 1}))] == [1, 2, 3]
