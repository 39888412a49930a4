"""Listeners on a real MongoDB: what a plain client changes is followed, through kills, drops and lost history."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import bson
import pymongo
import pytest
from bson.timestamp import Timestamp

import pinnacle
from pinnacle import Listener
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.mongodb.changes.reader import READERS
from pinnacle.backends.mongodb.changes.routes import Route, Touch
from pinnacle.backends.mongodb.target.frozen_finds import EVERYTHING, filter_reads
from pinnacle.backends.mongodb.wire.shape import Shape
from pinnacle.base.errors import ConfigError, Conflict
from tests.contract.processes import start_worker
from tests.forks import Fork
from tests.models import CALLS, shout, word_count

DRAIN_S = 600.0


@pytest.fixture
def docs(mongodb_url) -> Iterator[Any]:
    """The user's own collection, changed with the plain driver."""
    with pymongo.MongoClient[Any](mongodb_url) as client:
        yield client.get_default_database().docs


@pytest.fixture
def db(mongodb_url) -> Iterator[pinnacle.Database]:
    with pinnacle.pinnacle(mongodb_url) as handle:
        yield handle


def loud(**changes: Any) -> Listener:
    settings = {"model": shout, "key": "body", "select": Collection("docs").find(), "output": "loud", **changes}
    return Listener(**settings)


def drained(db: pinnacle.Database, docs: Any) -> dict[Any, Any]:
    """All documents by key once nothing is pending; each is as a recomputation would have it."""
    db.drain(timeout_s=DRAIN_S)
    found = {document["_id"]: document for document in docs.find()}
    for document in found.values():
        body = document.get("body")
        assert document.get("loud") == (None if body is None else str(body).upper())
    return found


def test_a_document_with_a_null_id_stops_no_listener(db, docs):
    docs.insert_one({"_id": 1, "body": "a"})
    db.add(loud())
    db.listen()
    docs.insert_one({"_id": None, "body": "b"})
    assert len(drained(db, docs)) == 2
    docs.update_one({"_id": None}, {"$set": {"body": "c"}})
    assert drained(db, docs)[None]["loud"] == "C"
    docs.delete_one({"_id": None})
    assert len(drained(db, docs)) == 1
    assert (db.errors(), db.fresh("docs.loud").fresh) == ([], 1)


def test_all_kinds_of_writes_are_followed(db, docs):
    docs.insert_many([{"_id": n, "body": f"text {n}", "tags": ["a"], "votes": 0} for n in range(40)])
    db.add(loud())
    db.listen()
    drained(db, docs)
    docs.insert_one({"body": "new, with an ObjectId"})
    docs.update_one({"_id": 1}, {"$set": {"body": "changed"}})
    docs.replace_one({"_id": 2}, {"body": "replaced"})
    docs.delete_one({"_id": 3})
    docs.update_one({"_id": 4}, {"$set": {"loud": "overwritten"}})
    docs.update_one({"_id": 5}, {"$unset": {"loud": ""}})
    docs.update_one({"_id": 6}, {"$unset": {"body": ""}})
    docs.update_one({"_id": 7}, {"$rename": {"body": "text"}})
    docs.update_one({"_id": 8}, [{"$set": {"body": {"$concat": ["$body", "!"]}}}])
    docs.delete_one({"_id": 9})
    docs.insert_one({"_id": 9, "body": "again"})
    docs.bulk_write(
        [
            pymongo.UpdateMany({"_id": {"$gte": 20}}, {"$set": {"body": "many"}}),
            pymongo.UpdateOne({"_id": "new"}, {"$set": {"body": "upserted"}}, upsert=True),
        ]
    )
    with docs.database.client.start_session() as session, session.start_transaction():
        docs.update_many({"_id": {"$lt": 2}}, {"$set": {"body": "in a transaction"}}, session=session)
        docs.insert_one({"_id": "t", "body": "in a transaction"}, session=session)
    found = drained(db, docs)
    assert (found[25]["loud"], found["t"]["loud"]) == ("MANY", "IN A TRANSACTION")
    assert len(found) == 42


def test_what_is_not_read_calls_no_model(db, docs):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(10)])
    db.add(loud())
    db.listen()
    drained(db, docs)
    CALLS.clear()
    docs.update_many({}, {"$set": {"votes": 1}, "$push": {"tags": "b"}})
    docs.update_many({}, {"$set": {"loud": "overwritten"}})
    docs.database.other.insert_one({"body": "elsewhere"})
    with docs.database.client.start_session() as session:
        session.start_transaction()
        docs.update_many({}, {"$set": {"body": "undone"}}, session=session)
        session.abort_transaction()
    drained(db, docs)
    assert len(CALLS) == 10  # for the outputs that were overwritten


def test_arrays_and_paths_within_are_followed(db, docs):
    docs.insert_many([{"_id": n, "parts": [{"text": "a"}, {"text": "b"}], "meta": {"n": {"x": 1}}} for n in range(3)])
    db.add(loud(key="parts.1.text", select=Collection("docs").find({"meta.n.x": 1})))
    db.listen()
    db.drain(timeout_s=DRAIN_S)
    docs.update_one({"_id": 0}, {"$set": {"parts.1.text": "deep"}})
    docs.update_one({"_id": 1}, {"$push": {"parts": {"$each": [{"text": "first"}], "$position": 0}}})
    docs.update_one({"_id": 2}, {"$set": {"meta": {"n": {"x": 2}}}})
    docs.update_one({"_id": 2}, {"$set": {"parts": []}})
    db.drain(timeout_s=DRAIN_S)
    assert [docs.find_one({"_id": n})["loud"] for n in range(3)] == ["DEEP", "A", "B"]


@pytest.mark.parametrize(("unmatched", "left"), [("keep", "EIN WORT"), ("clear", None)])
def test_documents_that_no_longer_match_are_kept_or_cleared(db, docs, unmatched, left):
    docs.insert_many([{"_id": 1, "body": "ein wort", "lang": "de"}, {"_id": 2, "body": "a word", "lang": "en"}])
    condition = {"lang": re.compile("^d"), "since": {"$not": {"$gt": datetime(2026, 1, 1)}}}
    db.add(loud(select=Collection("docs").find(condition), unmatched=unmatched))
    db.listen()
    db.drain(timeout_s=DRAIN_S)
    docs.update_one({"_id": 1}, {"$set": {"since": datetime(2026, 2, 2)}})
    docs.update_one({"_id": 2}, {"$set": {"lang": "de"}})
    db.drain(timeout_s=DRAIN_S)
    assert [document.get("loud") for document in docs.find().sort("_id")] == [left, "A WORD"]


def test_chains_follow_to_the_end(db, docs):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(20)])
    db.add(loud())
    db.add(Listener(model=word_count, key="loud", select=Collection("docs").find(), output="words"))
    db.listen()
    drained(db, docs)
    docs.update_many({"_id": {"$lt": 5}}, {"$set": {"body": "one two three"}})
    while docs.count_documents({"words": 3}) < 5:
        drained(db, docs)
    with pytest.raises(Conflict, match="circle"):
        db.add(loud(key="words", output="body"))


def test_deleted_documents_leave_nothing_behind(db, docs):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(10)])
    db.add(loud())
    db.listen()
    drained(db, docs)
    docs.delete_many({"_id": {"$lt": 7}})
    drained(db, docs)
    assert sorted(state["_id"] for state in docs.database["pinnacle_state_1"].find()) == [7, 8, 9]


def test_a_dropped_collection_may_come_again(db, docs):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(10)])
    db.add(loud())
    db.listen()
    drained(db, docs)
    docs.drop()
    drained(db, docs)
    docs.insert_many([{"_id": n, "body": f"other {n}"} for n in range(5, 15)])
    assert len(drained(db, docs)) == 10
    assert docs.database["pinnacle_state_1"].count_documents({}) == 10


def test_a_renamed_collection_pauses_its_listener_loudly(db, docs):
    docs.insert_one({"_id": 1, "body": "text"})
    db.add(loud())
    db.listen()
    drained(db, docs)
    docs.rename("letters")
    until = time.monotonic() + DRAIN_S
    while (paused := db.listeners()[0].paused) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert paused.startswith("collection 'docs' is gone: it was renamed to 'letters'; resume the listener")
    docs.database.letters.rename("docs")
    docs.update_one({"_id": 1}, {"$set": {"body": "meanwhile"}})
    db.resume("docs.loud")
    assert drained(db, docs)[1]["loud"] == "MEANWHILE"


def test_lost_history_leads_to_a_sweep(db, docs):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(10)])
    db.add(loud())
    db.listen()
    drained(db, docs)
    db.close()
    docs.update_many({}, {"$set": {"body": "while nobody read"}})
    readers = docs.database[READERS]
    readers.update_one({}, {"$set": {"position": Timestamp(1, 1), "passed": None}})
    with pinnacle.pinnacle(_url(docs)) as again:
        again.listen()
        assert drained(again, docs)[5]["loud"] == "WHILE NOBODY READ"


def test_changes_of_the_time_without_a_worker_are_found(db, docs):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(10)])
    db.add(loud())
    db.listen()
    drained(db, docs)
    db.close()
    docs.update_one({"_id": 3}, {"$set": {"body": "while nobody read"}})
    CALLS.clear()
    with pinnacle.pinnacle(_url(docs)) as again:
        again.listen()
        assert drained(again, docs)[3]["loud"] == "WHILE NOBODY READ"
    assert CALLS == ["while nobody read"]


def test_a_listener_that_comes_later_misses_nothing(db, docs):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(10)])
    db.add(loud())
    db.listen()
    drained(db, docs)
    db.add(Listener(model=word_count, key="body", select=Collection("docs").find(), output="words"))
    docs.update_many({}, {"$set": {"body": "four words are here"}})
    drained(db, docs)
    assert docs.count_documents({"words": 4}) == 10


def test_removing_a_listener_leaves_the_output(db, docs):
    docs.insert_one({"_id": 1, "body": "text"})
    db.add(loud())
    db.listen()
    drained(db, docs)
    db.remove("listener", "docs.loud")
    docs.update_one({"_id": 1}, {"$set": {"body": "changed"}})
    assert docs.find_one()["loud"] == "TEXT"
    assert "pinnacle_work_1" not in docs.database.list_collection_names()
    assert db.listeners() == []


def test_what_needs_triggers_is_refused(db, docs):
    docs.insert_one({"body": "text"})
    with pytest.raises(ConfigError, match="on_change='clear' needs triggers"):
        db.add(loud(on_change="clear"))
    with pytest.raises(ConfigError, match="replicated=True"):
        db.add(loud(replicated=True))


def test_killed_workers_lose_nothing(db, docs):
    """Two worker processes, of which the one that reads is killed, again and again."""
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(500)])
    db.add(loud())
    workers = [start_worker(_url(docs)) for _ in range(2)]
    try:
        for round_ in range(4):
            for n in range(0, 500, 50):
                docs.update_many({"_id": {"$gte": n, "$lt": n + 50}}, {"$set": {"body": f"round {round_} from {n}"}})
            victim = _reader(docs, workers)
            victim.kill()
            victim.wait()
            workers[workers.index(victim)] = start_worker(_url(docs))
        drained(db, docs)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()


@pytest.mark.parametrize("point", ["in-fold", "in-claim", "in-write", "in-forget", "in-finish"])
def test_a_worker_that_dies_between_two_steps_loses_nothing(db, docs, point):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(100)])
    db.add(loud())
    db.listen()
    drained(db, docs)
    db.close()
    docs.update_many({}, {"$set": {"body": "while nobody worked"}})
    docs.delete_many({"_id": {"$lt": 10}})
    dying = start_worker(_url(docs), PINNACLE_FAILPOINTS=f"{point}:1")
    assert dying.wait(DRAIN_S) == -signal.SIGKILL
    with pinnacle.pinnacle(_url(docs)) as again:
        again.listen()
        assert len(drained(again, docs)) == 90
    assert docs.database["pinnacle_state_1"].count_documents({}) == 90
    assert docs.database["pinnacle_lease"].count_documents({}) == 0


def _reader(docs: Any, workers: list[Fork]) -> Fork:
    """The worker that reads the changes now."""
    until = time.monotonic() + DRAIN_S
    while time.monotonic() < until:
        entry = docs.database[READERS].find_one() or {}
        for worker in workers:
            if str(entry.get("owner")).endswith(f":{worker.pid}"):
                return worker
        time.sleep(0.02)
    raise AssertionError("no worker reads the changes")


def _url(docs: Any) -> str:
    host, port = docs.database.client.address
    return f"mongodb://{host}:{port}/{docs.database.name}?directConnection=true"


def test_a_standalone_server_is_swept(standalone_url):
    with pymongo.MongoClient[Any](standalone_url) as client, pinnacle.pinnacle(standalone_url) as db:
        docs = client.get_default_database().docs
        docs.insert_many([{"body": f"text {n}"} for n in range(30)])
        db.add(loud())
        db.listen()
        drained(db, docs)
        docs.update_many({}, {"$set": {"body": "changed"}})
        docs.delete_one({})
        docs.update_one({}, {"$set": {"loud": "overwritten"}})
        assert len(drained(db, docs)) == 29
        assert docs.database["pinnacle_state_1"].count_documents({}) == 29


def test_mongomock_follows_what_this_process_writes():
    with pinnacle.pinnacle("mongomock://listened") as db:
        docs = Collection("docs")
        db.execute(docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(10)]))
        db.add(loud(select=docs.find({"body": re.compile("^t")})))
        db.listen()
        db.drain(timeout_s=DRAIN_S)
        db.execute(docs.update_one({"_id": 1}, {"$set": {"body": "through execute"}}))
        db.drain(timeout_s=DRAIN_S)
        assert db.execute(docs.find_one({"_id": 1}))["loud"] == "THROUGH EXECUTE"
        db.engine["docs"].update_one({"_id": 2}, {"$set": {"body": "the plain way"}})
        db.drain(timeout_s=DRAIN_S)
        assert db.execute(docs.find_one({"_id": 2}))["loud"] == "THE PLAIN WAY"


@pytest.mark.parametrize(
    ("condition", "reads"),
    [
        ({}, set()),
        ({"a": 1, "b.c": {"$elemMatch": {"d": 2}}}, {"a", "b.c"}),
        ({"$or": [{"a": 1}, {"$and": [{"b": 2}]}], "$comment": "why"}, {"a", "b"}),
        ({"$expr": {"$gt": ["$a.b", {"$literal": "$c"}]}}, {"a.b"}),
        ({"$expr": {"$eq": ["$$ROOT.a", "$$CURRENT"]}}, {"a", EVERYTHING}),
        ({"$where": "this.a"}, {EVERYTHING}),
        ({"$text": {"$search": "x"}}, {EVERYTHING}),
        ({"$expr": {"$getField": {"field": {"$concat": ["a", "b"]}}}}, {EVERYTHING}),
    ],
)
def test_a_filter_tells_which_fields_it_reads(condition, reads):
    assert set(filter_reads(condition)) == reads
    assert bson.decode(bson.encode(condition)) == condition


@pytest.mark.parametrize(
    ("names", "touch"),
    [
        (["votes"], Touch.NOTHING),
        (["body"], Touch.INPUT),
        (["bodyguard"], Touch.NOTHING),
        (["meta"], Touch.INPUT),
        (["meta.lang.name"], Touch.INPUT),
        (["items.3.text"], Touch.INPUT),
        (["_outputs.body.shout"], Touch.OUTPUT),
        (["_outputs"], Touch.OUTPUT),
        (["_outputs", "body"], Touch.INPUT),
        (["_outputs.body.other"], Touch.NOTHING),
        (["0"], Touch.INPUT),
    ],
)
def test_names_of_changed_fields_tell_what_was_touched(names, touch):
    path = "_outputs.body.shout"
    reads = ("body", "meta.lang", "items.text")
    route = Route(1, "docs", reads, path, Shape(("body",), path), b"", Timestamp(0, 0))
    assert route.touch(names) is touch
