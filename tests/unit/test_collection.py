"""Collection: queries as frozen values, run on mongomock."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

import pinnacle.backends.mongodb
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.mongodb.connect import connect
from pinnacle.backends.mongodb.query import Collection as SameCollection
from pinnacle.base.document import Document
from pinnacle.base.errors import ConfigError, UnsupportedQuery

docs = Collection("docs")


@pytest.fixture
def store(request):
    opened = connect(f"mongomock://{request.node.name}")
    opened.execute(docs.insert_many([Document({"n": n, "parity": n % 2}) for n in range(4)]))
    return opened


def numbers(documents):
    return [document["n"] for document in documents]


def test_both_import_paths_lead_to_one_class():
    assert Collection is SameCollection is pinnacle.backends.mongodb.Collection


def test_writing_queries_loads_no_driver():
    script = "import sys; from pinnacle.backends.mongodb import Collection; Collection('a').find(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "pinnacle.backends.mongodb.query" in loaded
    assert not {"bson", "pymongo", "mongomock"} & set(loaded)


def test_queries_are_frozen_and_chaining_leaves_the_first_alone():
    query = docs.find({"n": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        query.limited = 3
    assert query.limit(2).sort("n").skip(1) == docs.find({"n": 1}).skip(1).limit(2).sort([("n", 1)])
    assert query == docs.find({"n": 1})


@pytest.mark.parametrize("name", ["", "a$b", "a\x00b", "system.users", 5])
def test_impossible_names_are_refused(name):
    with pytest.raises(ConfigError):
        Collection(name)


@pytest.mark.parametrize(
    "make", [lambda: docs.find("n"), lambda: docs.find().limit(-1), lambda: docs.find().skip(True)]
)
def test_impossible_arguments_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_find_sorts_skips_and_limits(store):
    assert numbers(store.execute(docs.find().sort("n", -1).skip(1).limit(2))) == [2, 1]
    assert numbers(store.execute(docs)) == [0, 1, 2, 3]


def test_a_result_can_be_iterated_twice_and_indexed(store):
    found = store.execute(docs.find({"parity": 1}).sort("n"))
    assert numbers(found) == numbers(found) == [1, 3]
    assert (found[0]["n"], found[-1]["n"], numbers(found[:1]), found.first()["n"]) == (1, 3, [1], 1)
    with pytest.raises(IndexError):
        found[2]


def test_a_projection_leaves_fields_out(store):
    assert set(store.execute(docs.find({}, {"n": 1}))[0]) == {"_id", "n"}


def test_find_one_gives_a_document_or_none(store):
    found = store.execute(docs.find_one({"n": 2}))
    assert isinstance(found, Document)
    assert store.execute(docs.find_one(found["_id"])) == found
    assert store.execute(docs.find_one({"n": 99})) is None


def test_inserted_documents_get_their_ids(store):
    one, many = Document({"n": 5}), [Document({"n": 6}), {"n": 7, "_id": "mine"}]
    assert store.execute(docs.insert_one(one)).inserted_id == one["_id"]
    assert store.execute(docs.insert_many(many)).inserted_ids == [many[0]["_id"], "mine"]


def test_updates_and_deletes_return_the_drivers_results(store):
    assert store.execute(docs.update_one({"n": 0}, {"$set": {"x": 1}})).modified_count == 1
    assert store.execute(docs.update_many({"parity": 1}, {"$set": {"x": 1}})).modified_count == 2
    assert store.execute(docs.update_one({"n": 50}, {"$set": {"x": 1}}, upsert=True)).upserted_id is not None
    assert store.execute(docs.delete_one({"n": 50})).deleted_count == 1
    assert store.execute(docs.delete_many({"x": 1})).deleted_count == 3
    assert store.execute(docs.count_documents()) == 1


def test_a_document_that_was_read_can_be_put_back(store):
    document = store.execute(docs.find_one({"n": 1}))
    document["inner"] = Document({"a": Document({"b": 1})})
    assert store.execute(docs.replace_one({"_id": document["_id"]}, document)).modified_count == 1
    assert store.execute(docs.find_one({"n": 1}))["inner"] == {"a": {"b": 1}}


def test_an_aggregation_gives_documents(store):
    pipeline = [{"$group": {"_id": "$parity", "sum": {"$sum": "$n"}}}, {"$sort": {"_id": 1}}]
    found = store.execute(docs.aggregate(pipeline))
    assert [row.unpack() for row in found] == [{"_id": 0, "sum": 2}, {"_id": 1, "sum": 4}]


def test_what_is_no_query_of_mongodb_is_refused(store):
    assert store.owns(docs)
    assert store.owns(docs.find())
    assert not store.owns("select 1")
    with pytest.raises(UnsupportedQuery):
        store.execute("select 1")
    with pytest.raises(UnsupportedQuery):
        store.execute(docs.find(), {"n": 1})
