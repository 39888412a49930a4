"""Side outputs on a real MongoDB: keys and items of every kind, what others do to the collection, and kills."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import bson
import numpy as np
import pymongo
import pytest

import pinnacle
from pinnacle import Conflict, Datetime, Listener, Side, Vector, model
from pinnacle.backends.mongodb import Collection
from pinnacle.base.errors import ConfigError
from tests.contract.processes import start_worker
from tests.models import CALLS, shout, words

DRAIN_S = 600.0
KEYS = [1, 2.5, "text", bson.ObjectId(), {"a": 1, "b": "x"}, {}, datetime(2026, 1, 1), False, bson.Int64(2**40), None]


@pytest.fixture
def docs(mongodb_url) -> Iterator[Any]:
    """The user's own collection, changed with the plain driver."""
    with pymongo.MongoClient[Any](mongodb_url) as client:
        yield client.get_default_database()["app.docs"]


@pytest.fixture
def db(mongodb_url) -> Iterator[pinnacle.Database]:
    with pinnacle.pinnacle(mongodb_url) as handle:
        yield handle


def keep(db: pinnacle.Database) -> Listener:
    return db.add(Listener(model=words, key="body", select=Collection("app.docs").find(), output=Side("parts")))


def settled(db: pinnacle.Database, docs: Any) -> None:
    """Wait until nothing is pending; then every item is as a recomputation would have it, and there is no other."""
    db.drain(timeout_s=DRAIN_S)
    wanted = [
        (
            bson.encode(
                {"_id": {"app%2Edocs_id": key, "position": n}, "app%2Edocs_id": key, "position": n, "value": word}
            )
        )
        for key, body in ((document["_id"], document.get("body")) for document in docs.find())
        for n, word in enumerate((body or "").split())
    ]
    assert sorted(map(bson.encode, docs.database.parts.find())) == sorted(wanted)


def test_keys_of_all_kinds_have_items(db, docs):
    docs.insert_many([{"_id": key, "body": f"of {n}"} for n, key in enumerate(KEYS)])
    listener = keep(db)
    db.listen()
    settled(db, docs)
    docs.update_many({}, {"$set": {"body": "changed to these"}})
    docs.delete_many({"_id": {"$in": ["text", {}]}})
    docs.database.parts.delete_one({"position": 1})
    settled(db, docs)
    assert db.fresh(listener).fresh == len(KEYS) - 2


def test_items_of_a_null_key_are_told_from_documents_that_name_no_parent(db, docs):
    docs.insert_one({"_id": None, "body": "a b"})
    keep(db)
    db.listen()
    settled(db, docs)
    docs.database.parts.delete_one({"_id": {"app%2Edocs_id": None, "position": 0}})
    settled(db, docs)
    mine = {"_id": "mine", "value": "x"}
    docs.database.parts.insert_one(mine)
    docs.update_one({"_id": None}, {"$set": {"body": "c"}})
    db.drain(timeout_s=DRAIN_S)
    assert sorted(item["value"] for item in docs.database.parts.find()) == ["c", "x"]
    docs.delete_one({"_id": None})
    db.drain(timeout_s=DRAIN_S)
    assert list(docs.database.parts.find()) == [mine]


def test_items_written_by_others_under_any_key_are_replaced(db, docs):
    docs.insert_many([{"_id": n, "body": "a b"} for n in range(5)])
    keep(db)
    db.listen()
    settled(db, docs)
    parts = docs.database.parts
    first = {"_id": {"app%2Edocs_id": 1, "position": 0}}
    parts.delete_one(first)
    parts.insert_one({"_id": {"app%2Edocs_id": 1.0, "position": 0}, "app%2Edocs_id": 1, "position": 0, "value": "a"})
    parts.insert_many([{"app%2Edocs_id": key, "value": "x"} for key in (2, 77, "no such")])
    parts.replace_one({"_id": {"app%2Edocs_id": 3, "position": 1}}, {"app%2Edocs_id": 4, "position": 1, "value": "b"})
    settled(db, docs)


def test_a_dropped_side_collection_is_filled_again(db, docs):
    docs.insert_many([{"_id": n, "body": "a b"} for n in range(5)])
    keep(db)
    db.listen()
    settled(db, docs)
    docs.database.parts.drop()
    settled(db, docs)


@pytest.mark.parametrize("point", ["in-write", "in-forget"])
def test_a_worker_that_dies_between_items_and_bookkeeping_leaves_nothing_wrong(mongodb_url, docs, point):
    docs.insert_many([{"_id": n, "body": f"text {n}"} for n in range(50)])
    with pinnacle.pinnacle(mongodb_url) as db:
        keep(db)
        db.listen()
        settled(db, docs)
    docs.update_many({}, {"$set": {"body": "while nobody worked"}})
    docs.delete_many({"_id": {"$lt": 10}})
    dying = start_worker(mongodb_url, PINNACLE_FAILPOINTS=f"{point}:1")
    assert dying.wait(DRAIN_S) == -signal.SIGKILL
    with pinnacle.pinnacle(mongodb_url) as again:
        again.listen()
        settled(again, docs)


def test_a_predict_takes_items_away_that_a_killed_process_left_without_bookkeeping(db, docs):
    docs.insert_many([{"_id": n, "body": "a b"} for n in range(3)])
    words.predict(X="body", db=db, select=Collection("app.docs").find(), output=Side("parts"))
    docs.delete_one({"_id": 1})
    docs.database["pinnacle_state_1"].delete_one({"_id": 1})
    assert words.predict(X="body", db=db, select=Collection("app.docs").find(), output=Side("parts")).fresh == 2
    settled(db, docs)


def test_vectors_and_aware_datetimes_are_items_as_they_are_outputs(db, docs):
    @model(output_type=Vector(2))
    def embed(body: str):
        return [1.5, len(body)]

    @model(output_type=Datetime(timezone=True))
    def moment(body: str):
        return datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    docs.insert_one({"_id": 1, "body": "abc"})
    found = Collection("app.docs").find_one({"_id": 1})
    embed.predict(X="body", db=db, select=Collection("app.docs").find(), output=Side("vectors"))
    moment.predict(X="body", db=db, select=Collection("app.docs").find(), output=Side("moments"))
    (vector,) = db.execute(found).outputs("body", embed)
    assert vector.dtype == np.float32
    assert vector.tolist() == [1.5, 3.0]
    assert db.execute(found).outputs("body", moment) == [datetime(2026, 1, 1, 10, tzinfo=UTC)]


def test_an_item_that_mongodb_cannot_keep_is_its_rows_error(db, docs):
    @model(output_type=Datetime())
    def precise(body: str):
        return datetime(2026, 1, 1, microsecond=1)

    docs.insert_one({"_id": 1, "body": "abc"})
    result = precise.predict(X="body", db=db, select=Collection("app.docs").find(), output=Side("moments"))
    assert (result.written, result.failed) == (0, 1)
    assert "milliseconds" in db.errors()[0].message


@pytest.mark.parametrize("name", ["a$b"])
def test_a_name_that_no_side_collection_can_have_is_refused(db, docs, name):
    docs.insert_one({"body": "a"})
    with pytest.raises(ConfigError, match="collection"):
        words.predict(X="body", db=db, select=Collection("app.docs").find(), output=Side(name))


def test_a_view_or_the_source_itself_is_no_side_collection(db, docs):
    docs.insert_one({"body": "a"})
    docs.database.command({"create": "seen", "viewOn": docs.name, "pipeline": []})
    for name in ("seen", docs.name):
        with pytest.raises(Conflict, match="did not make"):
            words.predict(X="body", db=db, select=Collection("app.docs").find(), output=Side(name))


def test_removing_everything_keeps_items_unless_outputs_go_too(db, docs):
    docs.insert_one({"_id": 1, "body": "a b"})
    words.predict(X="body", db=db, select=Collection("app.docs").find(), output=Side("parts"))
    assert "drop collection parts" in db.removal_plan(outputs=True)
    assert "drop collection parts" not in db.removal_plan()
    db.remove_all(outputs=True)
    assert docs.database.list_collection_names() == [docs.name]
    assert docs.find_one() == {"_id": 1, "body": "a b"}


def test_an_output_of_items_wakes_nobody_but_those_who_read_it(db, docs):
    docs.insert_many([{"_id": n, "body": f"a{n} b{n}"} for n in range(5)])
    CALLS.clear()
    keep(db)
    db.add(Listener(model=shout, key="value", select=Collection("parts").find(), output="loud"))
    db.listen()
    db.drain(timeout_s=DRAIN_S)
    assert {item["value"]: item["loud"] for item in docs.database.parts.find()} == {
        word: word.upper() for n in range(5) for word in (f"a{n}", f"b{n}")
    }
    assert len(CALLS) == 15
