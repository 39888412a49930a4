"""The MongoDB backend on a replica set, on a standalone server and on mongomock, driven without an engine."""

from __future__ import annotations

import hashlib
import itertools
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from bson import Decimal128, Int64, ObjectId
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from pinnacle.backends.mongodb import Collection
from pinnacle.backends.mongodb.connect import connect
from pinnacle.backends.mongodb.target.leases import Leases
from pinnacle.backends.mongodb.target.output_registry import state_table
from pinnacle.backends.protocol import Capability
from pinnacle.base.document import Document
from pinnacle.base.errors import (
    ConfigError,
    Conflict,
    ConnectionLost,
    NotFound,
    OutputTypeConflict,
    RowRejected,
    UnknownField,
    UnsupportedQuery,
    UnsupportedTable,
)
from pinnacle.base.processes import this_process
from pinnacle.base.rows import Failure, Fields, OutputBatch, OutputSpec, Record
from pinnacle.base.types import Boolean, Bytes, Datetime, Float, Integer, Json, Text, Vector
from tests.servers import start_mongod

docs = Collection("docs")
runs = itertools.count()


@dataclass
class Store:
    """A user's database: ``raw`` is the plain driver's, ``backend`` pinnacle's."""

    raw: Any
    backend: Any
    calls: list[Any] = field(default_factory=list)

    def spec(self, *paths: str, name: str = "", kind: Any = None, version: int = 0, model: str = "m") -> OutputSpec:
        return OutputSpec(name=name, type=kind or Text(), model=model, version=version, fields=Fields(paths or ("q",)))

    def target(self, spec: OutputSpec | None = None, query: Any = None) -> Any:
        spec = spec or self.spec()
        return self.backend.bind(self.backend.resolve(query or docs.find(), spec.fields), spec)

    def fill(
        self, target: Any, function: Callable[[Any], Any] = lambda value: f"out {value}", *, page_rows: int = 3,
        overwrite: bool = False,
    ) -> int:  # fmt: skip
        """One run over all pages, as an engine does it; how many rows were written."""
        after, done, written, run = None, [], 0, f"run {next(runs)}"
        while (page := target.read(after, page_rows, overwrite=overwrite)).last is not None:
            after = page.last
            lease, granted, again = target.claim(run, page, done, 15.0)
            mine = page.take(granted)
            if again and mine.keys:
                mine = target.reread(mine.keys, overwrite=overwrite)
            done = [lease]
            self.calls += mine.inputs
            values, misfits = target.check_all([None if v is None else function(v) for v in mine.inputs])
            assert misfits == {}
            written += len(mine.keys) - len(
                target.write(OutputBatch(keys=mine.keys, outputs=values, witnesses=mine.witnesses))
            )
        target.release(run)
        return written

    def values(self, path: str = "_outputs.q.m") -> list[Any]:
        """The stored outputs by document, in the order of ids."""
        found = []
        for document in self.raw.docs.find().sort("_id", 1):
            value: Any = document
            for name in path.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            found.append(value)
        return found


def opened(raw: Any) -> Store:
    backend = connect(raw)
    backend.migrate()
    return Store(raw, backend)


@pytest.fixture(params=["mongodb_url", "standalone_url", "mongomock"])
def store(request):
    if request.param == "mongomock":
        import mongomock

        yield opened(mongomock.MongoClient()[f"test_{next(runs)}"])
        return
    with MongoClient(request.getfixturevalue(request.param)) as client:
        yield opened(client.get_default_database())


@pytest.fixture(params=["mongodb_url", "standalone_url"])
def served(request):
    """A real server, for what mongomock has no notion of."""
    with MongoClient(request.getfixturevalue(request.param)) as client:
        yield opened(client.get_default_database())


@pytest.fixture
def replicated(mongodb_url):
    """A server with transactions."""
    with MongoClient(mongodb_url) as client:
        yield opened(client.get_default_database())


def test_outputs_are_written_once(store):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(8)])
    assert store.fill(store.target()) == 8
    assert store.values() == [f"out q{n}" for n in range(8)]
    assert store.fill(store.target()) == 0
    assert store.fill(store.target(), overwrite=True) == 8
    assert len(store.calls) == 16


def test_documents_find_their_outputs_in_chosen_fields(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x", "meta": {"lang": "en"}})
    store.fill(store.target(store.spec(name="meta.summary")))
    (document,) = store.backend.execute(docs.find())
    assert document["meta"] == {"lang": "en", "summary": "out x"}
    assert document.outputs("q", "m") == "out x"
    with pytest.raises(KeyError):
        document.outputs("q", "other")


def test_capabilities_tell_what_the_server_can_do(served, replicated):
    assert Capability.TRANSACTIONS in replicated.backend.capabilities
    has_replicas = "setName" in served.raw.command("hello")
    assert (Capability.TRANSACTIONS in served.backend.capabilities) == has_replicas


# -- what changes between reading and writing ------------------------------------------------------


def test_a_row_changed_since_it_was_read_is_not_written(store):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(4)])
    target = store.target()
    page = target.read(None, 10)
    store.raw.docs.update_one({"_id": 1}, {"$set": {"q": "new"}})
    store.raw.docs.update_one({"_id": 2}, {"$set": {"other": "field"}})
    store.raw.docs.delete_one({"_id": 3})
    assert target.write(OutputBatch(keys=page.keys, outputs=list("abcd"), witnesses=page.witnesses)) == [1, 3]
    assert store.values() == ["a", None, "c"]
    assert {state["_id"] for state in store.raw[state_table(target.info.id)].find()} == {0, 2}
    again = target.reread([1, 3])
    assert (list(again.keys), list(again.inputs), again.read) == ([1], ["new"], 1)
    assert store.fill(target) == 1
    assert store.values() == ["a", "out new", "c"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, 1.0), (1, True), (1, Int64(1)), ("x", ["x"]), ("x", "X"), (None, "x"), ([1, 2], [2, 1]), (0.0, -0.0),
     ({"a": 1}, {"a": 1.0}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (Decimal128("1"), Decimal128("1.0"))],
)  # fmt: skip
def test_equality_is_that_of_bytes(store, before, after):
    store.raw.docs.insert_one({"_id": 1, "q": before})
    target = store.target()
    page = target.read(None, 10)
    store.raw.docs.replace_one({"_id": 1}, {"q": after})
    assert target.write(OutputBatch(keys=page.keys, outputs=["stale"], witnesses=page.witnesses)) == [0]
    changed = target.read(None, 10)
    assert changed.identities != page.identities
    assert target.write(OutputBatch(keys=changed.keys, outputs=["right"], witnesses=changed.witnesses)) == []
    assert (target.read(None, 10).fresh, store.values()) == (1, ["right"])
    store.raw.docs.update_one({"_id": 1}, {"$set": {"q": before}})
    assert target.read(None, 10).fresh == 0


def test_identities_are_equal_where_inputs_are(store):
    store.raw.docs.insert_many(
        [{"_id": 1, "q": {"a": [1]}}, {"_id": "2", "q": {"a": [1]}}, {"_id": 3.5, "q": {"a": [1.0]}}]
    )
    page = store.target().read(None, 9)
    identities = dict(zip(page.keys, page.identities, strict=True))
    assert identities[1] == identities["2"] != identities[3.5]


def test_updates_of_other_fields_leave_a_row_fresh(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x", "other": 1})
    store.fill(store.target())
    store.raw.docs.update_one({"_id": 1}, {"$set": {"other": 2}})
    store.raw.docs.replace_one({"_id": 1}, {"_outputs": {"q": {"m": "out x"}}, "more": 1, "q": "x"})
    assert store.target().read(None, 10).fresh == 1


@pytest.mark.parametrize(
    "damage",
    [
        {"$set": {"_outputs.q.m": "forged"}},
        {"$unset": {"_outputs": ""}},
        {"$set": {"_outputs.q.m": None}},
        {"$set": {"q": "y"}},
    ],
)
def test_an_output_overwritten_or_blanked_is_healed(store, damage):
    store.raw.docs.insert_one({"_id": 1, "q": "x"})
    store.fill(store.target())
    store.raw.docs.update_one({"_id": 1}, damage)
    assert store.fill(store.target()) == 1
    assert store.values() == [f"out {store.raw.docs.find_one()['q']}"]


def test_a_replaced_document_gets_its_output_again(store):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(3)])
    store.fill(store.target())
    store.raw.docs.replace_one({"_id": 0}, {"q": "q0"})
    store.raw.docs.delete_one({"_id": 1})
    store.raw.docs.insert_one({"_id": 1, "q": "q1"})
    assert store.fill(store.target()) == 2


def test_bookkeeping_without_its_output_is_done_again(store):
    """What a crash between the two leaves behind where there are no transactions."""
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(3)])
    target = store.target()
    store.fill(target)
    store.raw.docs.update_many({}, {"$unset": {"_outputs": ""}})
    assert store.fill(target) == 3


def test_bookkeeping_that_appeared_since_the_page_was_read_is_replaced(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x"})
    target = store.target()
    page = target.read(None, 10)
    target.write(OutputBatch(keys=page.keys, outputs=["first"], witnesses=page.witnesses))
    store.raw.docs.update_one({"_id": 1}, {"$unset": {"_outputs.q.m": ""}})
    blank = target.read(None, 10)
    store.raw.docs.update_one({"_id": 1}, {"$unset": {"_outputs": ""}})
    assert target.write(OutputBatch(keys=page.keys, outputs=["second"], witnesses=page.witnesses)) == []
    assert blank.keys == page.keys
    assert target.read(None, 10).fresh == 1


# -- keys --------------------------------------------------------------------------------------------


def test_every_kind_of_id_is_visited_once(store):
    ids = [
        5,
        2.5,
        Int64(2**40),
        "x",
        "X",
        ObjectId(),
        {"a": 1, "b": "y"},
        {"a": 2},
        datetime(2026, 1, 1),
        True,
        b"\x00\x01",
        -7,
    ]
    store.raw.docs.insert_many([{"_id": key, "q": str(key)} for key in ids])
    assert store.fill(store.target(), page_rows=2) == len(ids)
    assert sorted(store.calls) == sorted(map(str, ids))
    assert store.fill(store.target(), page_rows=5) == 0
    assert len(set(store.target().read(None, 50, overwrite=True).keys)) == len(ids)


def test_uuids_are_ids_like_others(served):
    with MongoClient(*served.raw.client.address, uuidRepresentation="standard", directConnection=True) as client:
        store = opened(client[served.raw.name])
        store.raw.docs.insert_many([{"_id": uuid.uuid4(), "q": uuid.uuid4()} for _ in range(4)])
        assert store.fill(store.target(), page_rows=2) == 4
        assert all(isinstance(value, uuid.UUID) for value in store.calls)
        assert store.fill(store.target(), page_rows=2) == 0


def test_ids_under_a_collation_are_compared_as_the_collection_does(served):
    served.raw.create_collection("docs", collation={"locale": "en", "strength": 1})
    served.raw.docs.insert_many([{"_id": key, "q": key} for key in ["b", "A", "c", "É", "z"]])
    target = served.target()
    page = target.read(None, 10)
    served.raw.docs.update_one({"_id": "A"}, {"$set": {"q": "a"}})
    assert len(target.write(OutputBatch(keys=page.keys, outputs=["s"] * 5, witnesses=page.witnesses))) == 1
    assert served.fill(target, page_rows=2) == 1
    served.raw.docs.update_one({"_id": "z"}, {"$set": {"q": "Z"}})
    assert served.fill(target, page_rows=2) == 1


def test_a_null_id_is_a_key_like_any_other(served):
    served.raw.docs.insert_many([{"_id": key, "q": "x"} for key in (1, None, "a")])
    target = served.target()
    assert (served.fill(target, page_rows=1), served.fill(target, page_rows=1)) == (3, 0)
    served.raw.docs.update_one({"_id": None}, {"$set": {"q": "y"}})
    assert (served.fill(target), served.fill(target)) == (1, 0)


def test_mongomock_refuses_a_null_id():
    import mongomock

    store = opened(mongomock.MongoClient()[f"test_{next(runs)}"])
    store.raw.docs.insert_one({"_id": None, "q": "x"})
    with pytest.raises(UnsupportedTable, match="null"):
        store.target()


# -- queries and fields --------------------------------------------------------------------------------


def test_only_what_the_filter_selects_is_filled(store):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}", "lang": "en" if n % 3 else "de"} for n in range(9)])
    target = store.target(query=docs.find({"lang": "de"}))
    assert target.count() == 3
    assert store.fill(target, page_rows=2) == 3
    assert store.fill(store.target(query=docs.find({"lang": "de"})), page_rows=2) == 0
    assert store.fill(store.target(query=docs)) == 6


def test_a_dotted_path_takes_exactly_its_element(store):
    store.raw.docs.insert_many([
        {"_id": 1, "a": {"b": 1, "c": [10, {"d": 20}]}},
        {"_id": 2, "a": [{"b": 2}, {"b": 3}]},
        {"_id": 3, "a": 7},
        {"_id": 4, "a": {"b": None, "c": {"1": {"d": 30}}}},
    ])  # fmt: skip
    page = store.target(store.spec("a.b", "a.c.1.d", "a.1.b")).read(None, 10)
    assert list(page.inputs) == [(1, 20, None), (None, None, 3), (None, None, None), (None, 30, None)]


def test_vectors_and_long_integers_reach_the_model_as_its_own_kinds(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x", "n": Int64(5)})
    vector = np.array([1.5, 2.5], dtype=np.float32)
    store.fill(store.target(store.spec(kind=Vector(2))), lambda _: vector)
    ((array, number),) = store.target(store.spec("_outputs.q.m", "n", model="next")).read(None, 1).inputs
    assert np.array_equal(array, vector)
    assert (array.dtype, type(number)) == (np.float32, int)


def test_a_null_output_is_stored_as_null(store):
    store.raw.docs.insert_many([{"_id": 1, "q": "x"}, {"_id": 2, "q": None}, {"_id": 3}])
    store.fill(store.target())
    assert [row.outputs("q", "m") for row in store.backend.execute(docs.find().sort("_id"))] == ["out x", None, None]
    assert store.target().read(None, 10).fresh == 3
    store.raw.docs.update_one({"_id": 1}, {"$unset": {"q": ""}})
    assert store.fill(store.target()) == 1
    assert store.values() == [None, None, None]
    store.raw.docs.update_one({"_id": 1}, {"$unset": {"_outputs": ""}})
    assert store.target().read(None, 10).fresh == 2


@pytest.mark.parametrize("query", [docs.find_one(), docs.aggregate([]), docs.count_documents(), "select"])
def test_queries_without_rows_are_refused(store, query):
    with pytest.raises(UnsupportedQuery):
        store.backend.resolve(query, Fields(("q",)))


@pytest.mark.parametrize("query", [docs.find().limit(3), docs.find().skip(1)], ids=["limit", "skip"])
def test_queries_without_fixed_rows_are_there_to_be_read_only(store, query):
    store.raw.docs.insert_many([{"_id": n, "q": n} for n in range(4)])
    source = store.backend.resolve(query, Fields(("q",)))
    for use in (store.backend.plan, store.backend.bind):
        with pytest.raises(UnsupportedQuery, match=r"limit\(\)"):
            use(source, store.spec())
    with pytest.raises(UnsupportedQuery, match=r"limit\(\)"):
        store.backend.freeze(source)
    assert len(store.backend.scan(source).read(None, 10).keys) == store.backend.scan(source).count() == 3


def scanned(store, query, page_rows):
    """The keys of each page of a scan."""
    scan = store.backend.scan(store.backend.resolve(query, Fields(("q",))))
    pages, after = [], None
    while (page := scan.read(after, page_rows)).last is not None:
        after = page.last
        pages.append(list(page.keys))
    assert page.keys == []
    return pages


def test_pages_of_a_limited_find_hold_no_more_rows_than_asked_for(store):
    store.raw.docs.insert_many([{"_id": n, "q": n} for n in range(9)])
    assert scanned(store, docs.find().sort("q", -1).skip(1).limit(7), 3) == [[1, 2, 3], [4, 5, 6], [7]]
    assert scanned(store, docs.find().limit(7), 7) == [[*range(7)]]
    assert scanned(store, docs.find().skip(20), 7) == []


def test_pages_of_a_limited_find_end_at_16_megabytes(served):
    for n in range(5):
        served.raw.docs.insert_one({"_id": n, "q": "x" * 7_000_000})
    assert scanned(served, docs.find().sort("_id", -1).limit(5), 10) == [[0, 1], [2, 3], [4]]


def test_an_unknown_field_offers_near_names(store):
    assert store.target().count() == 0  # an empty collection has no fields to miss
    store.raw.docs.insert_one({"question": "x", "meta": {"body": "y"}})
    with pytest.raises(UnknownField, match="question"):
        store.target(store.spec("qestion"))
    with pytest.raises(UnknownField, match=r"meta\.body"):
        store.target(store.spec("meta.bdy"))
    for impossible in ("meta..body", "", "a\x00"):
        with pytest.raises(UnknownField):
            store.target(store.spec(impossible))


def test_a_view_is_refused(served):
    served.raw.docs.insert_one({"q": "x"})
    served.raw.create_collection("seen", viewOn="docs", pipeline=[])
    with pytest.raises(UnsupportedTable, match="view"):
        served.target(query=Collection("seen"))
    with pytest.raises(UnsupportedTable, match="own"):
        served.target(query=Collection("pinnacle_output"))


# -- output types and places -----------------------------------------------------------------------------

TWO_HOURS_EAST = timezone(timedelta(hours=2))
VALUES = [
    (Text(), "grüße 𝄞", "grüße 𝄞"), (Integer(), 2**62, 2**62), (Integer(), -1, -1), (Float(), 2.0, 2.0),
    (Boolean(), True, True), (Bytes(), b"\x00\xff", b"\x00\xff"), (Json(), {"a": [1, {"b.c": None, "$d": 1.5}]}, ...),
    (Json(), [], []), (Datetime(), datetime(2026, 1, 2, 3, 4, 5, 6000), ...),
    (Datetime(timezone=True), datetime(2026, 1, 2, 3, tzinfo=TWO_HOURS_EAST), datetime(2026, 1, 2, 1, tzinfo=UTC)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES)
def test_values_come_back_as_they_went_in(store, kind, value, expected):
    store.raw.docs.insert_one({"_id": 1, "q": "x"})
    store.fill(store.target(store.spec(kind=kind)), lambda _: value)
    found = store.backend.execute(docs.find())[0].outputs("q", "m")
    assert found == (value if expected is ... else expected)
    assert type(found) is type(value)
    assert store.target(store.spec(kind=kind)).read(None, 10).fresh == 1


def test_a_vector_is_a_bson_float32_vector(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x"})
    store.fill(store.target(store.spec(kind=Vector(3))), lambda _: np.array([1, 2.5, -3], dtype=np.float32))
    stored = store.raw.docs.find_one()["_outputs"]["q"]["m"]
    assert (stored.subtype, stored.as_vector().data) == (9, [1.0, 2.5, -3.0])
    assert store.backend.execute(docs.find_one()).outputs("q", "m").tolist() == [1.0, 2.5, -3.0]
    with pytest.raises(OutputTypeConflict):
        store.target(store.spec(kind=Vector(4)))


def test_what_mongodb_cannot_hold_is_that_rows_misfit(store):
    deep: Any = []
    for _ in range(120):
        deep = [deep]
    values, misfits = store.target(store.spec(kind=Json())).check_all([[1], deep, None])
    assert (list(misfits), values[0]) == ([1], [1])
    exact, rounded = datetime(2026, 1, 1, 0, 0, 0, 1), datetime(2026, 1, 1, 0, 0, 0, 1000)
    _, misfits = store.target(store.spec(kind=Datetime(), model="t")).check_all([rounded, exact, "x"])
    assert sorted(misfits) == [1, 2]
    assert "milliseconds" in str(misfits[1])


@pytest.mark.parametrize(
    ("existing", "kind"),
    [({"v": 1}, Text()), ({"v": "s"}, Integer()), ({"v": ["s"]}, Text()), ({"v": 1}, Float()), ({"v": b"x"}, Vector(2)),
     ({"v": {"a": 1}}, Boolean())],
)  # fmt: skip
def test_a_field_with_values_of_another_type_is_refused(store, existing, kind):
    store.raw.docs.insert_many([{"q": "x"}, {"q": "y", "v": None}, {"q": "z", **existing}])
    with pytest.raises(OutputTypeConflict, match="'v'"):
        store.target(store.spec(name="v", kind=kind))
    assert store.backend.outputs.all() == []


@pytest.mark.parametrize("parent", [5, None, "s", [{"v": "s"}]])
def test_a_parent_that_is_no_document_is_refused(store, parent):
    store.raw.docs.insert_one({"q": "x", "a": parent})
    with pytest.raises(OutputTypeConflict):
        store.target(store.spec(name="a.v"))


def test_a_field_of_the_right_type_is_adopted(store):
    store.raw.docs.insert_many([{"_id": 1, "q": "x", "v": "old"}, {"_id": 2, "q": "y"}])
    target = store.target(store.spec(name="v"))
    assert not target.info.created_column
    assert store.fill(target) == 2
    assert store.values("v") == ["out x", "out y"]


def test_places_that_cannot_be_are_refused(store):
    store.raw.docs.insert_one({"q": "x", "a": {"b": "y"}})
    store.target(store.spec(name="out.one"))
    for name in ("_id", "_id.x", "a..b", "$x", "x.$y", "a.0", ".a", "x\x00"):
        with pytest.raises(ConfigError):
            store.target(store.spec(name=name))
    for name in ("q", "q.x", "out", "out.one.more"):
        with pytest.raises(Conflict):
            store.target(store.spec(name=name))
    with pytest.raises(Conflict, match="model 'm'"):
        store.target(store.spec(name="out.one", model="other"))
    with pytest.raises(Conflict):
        store.target(store.spec("a.b", name="a"))


@pytest.mark.parametrize(
    "name", ["a.b", "$set", 'it\'s "quoted"', "naïve 漢字", "a%2Eb", "0", "'; drop", " ", "_id", "x\x00y", "$$ROOT"]
)
def test_any_name_of_a_model_is_safe(store, name):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(3)])
    target = store.target(store.spec(model=name))
    assert store.fill(target) == 3
    assert store.fill(store.target(store.spec(model=name))) == 0
    assert store.backend.execute(docs.find_one({"_id": 2})).outputs("q", name) == "out q2"
    assert set(store.raw.docs.find_one()) == {"_id", "q", "_outputs"}


@pytest.mark.parametrize("path", ["$price", "a.$b", "with space", "naïve", "a.0", "it's"])
def test_any_name_of_a_field_is_safe(served, path):
    names = path.split(".")
    inner: Any = "x"
    for name in reversed(names):
        inner = {name: inner}
    served.raw.command({"insert": "docs", "documents": [{"_id": 1, **inner}]})
    assert served.fill(served.target(served.spec(path))) == 1
    assert served.calls == ["x"]


def test_grouped_writes_never_replace_a_scalar_parent(store):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(3)])
    target = store.target()
    store.raw.docs.update_one({"_id": 1}, {"$set": {"_outputs": "the user's own"}})
    page = target.read(None, 10)
    if Capability.MANY_PROCESSES in store.backend.capabilities:
        with pytest.raises(RowRejected):
            target.write(OutputBatch(keys=page.keys, outputs=list("abc"), witnesses=page.witnesses))
        assert store.raw.docs.find_one({"_id": 1})["_outputs"] == "the user's own"


def test_a_refused_value_is_a_row_rejected(served):
    served.raw.create_collection("docs", validator={"_outputs.q.m": {"$not": {"$regex": "^bad"}}})
    served.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(3)])
    target = served.target()
    page = target.read(None, 10)
    with pytest.raises(RowRejected, match="validation"):
        target.write(OutputBatch(keys=page.keys, outputs=["good", "bad", "good"], witnesses=page.witnesses))
    with pytest.raises(RowRejected):
        target.write(OutputBatch(keys=page.keys[2:], outputs=["x" * (17 * 2**20)], witnesses=page.witnesses[2:]))
    page = target.read(None, 10)
    target.write(OutputBatch(keys=page.keys, outputs=["good"] * len(page.keys), witnesses=page.witnesses))
    assert served.values() == ["good"] * 3


def test_rows_written_before_a_refused_one_are_kept_as_done(served):
    served.raw.create_collection("docs", validator={"_outputs.q.m": {"$ne": "bad"}})
    served.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(5)])
    target = served.target()
    page = target.read(None, 10)
    with pytest.raises(RowRejected):
        target.write(
            OutputBatch(keys=page.keys, outputs=["good", "good", "bad", "good", "good"], witnesses=page.witnesses)
        )
    written = [value for value in served.values() if value]
    again = target.read(None, 10)
    assert (again.fresh, list(again.keys)) == (len(written), [2, 3, 4])


# -- versions ------------------------------------------------------------------------------------------------


def test_a_newer_version_recomputes_and_an_older_one_is_stopped(store):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(3)])
    old = store.target()
    store.fill(old)
    page = old.read(None, 10, overwrite=True)
    new = store.target(store.spec(version=1))
    with pytest.raises(Conflict, match="version 1"):
        old.write(OutputBatch(keys=page.keys, outputs=["old"] * 3, witnesses=page.witnesses))
    with pytest.raises(Conflict, match="version 1"):
        store.target()
    assert store.fill(new, lambda value: f"v1 {value}") == 3
    assert store.values() == ["v1 q0", "v1 q1", "v1 q2"]
    assert [info.version for info in store.backend.outputs.of("m")] == [1]


def test_a_removed_output_stops_its_run(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x"})
    target = store.target()
    page = target.read(None, 10)
    store.backend.outputs.forget(target.info.id, drop_column=True)
    with pytest.raises(NotFound):
        target.write(OutputBatch(keys=page.keys, outputs=["a"], witnesses=page.witnesses))
    assert store.target().info.id != target.info.id


# -- errors --------------------------------------------------------------------------------------------------


def failures_of(page: Any, message: str = "no") -> list[Failure]:
    return [
        Failure(key=key, witness=witness, error="ValueError", message=message, traceback="Traceback ...", attempts=3)
        for key, witness in zip(page.keys, page.witnesses, strict=True)
    ]


def test_a_failed_row_is_set_aside_until_it_changes(store):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(3)])
    target = store.target()
    target.fail(failures_of(target.read(None, 2)))
    page = target.read(None, 10)
    assert (list(page.keys), page.set_aside, page.fresh) == ([2], 2, 0)
    first, second = sorted(store.backend.errors.newest(target.info.id), key=lambda error: error.key)
    assert (first.key, first.error, first.message, first.attempts, first.model) == (0, "ValueError", "no", 3, "m")
    assert (first.output, second.failed_at.tzinfo) == ("docs._outputs.q.m", UTC)
    store.raw.docs.update_one({"_id": 0}, {"$set": {"q": "better"}})
    assert store.fill(target) == 2
    assert [error.key for error in store.backend.errors.newest()] == [1]
    assert store.backend.errors.take(target.info.id) == [1]
    assert (store.fill(target), store.backend.errors.newest()) == (1, [])


def test_a_row_that_changed_meanwhile_is_not_set_aside(store):
    store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(2)])
    target = store.target()
    page = target.read(None, 10)
    store.raw.docs.update_one({"_id": 0}, {"$set": {"q": "new"}})
    target.fail(failures_of(page))
    assert [error.key for error in store.backend.errors.newest()] == [1]
    assert list(target.read(None, 10).keys) == [0]


def test_a_set_aside_row_stays_so_when_only_its_output_changes(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x"})
    target = store.target()
    target.fail(failures_of(target.read(None, 1)))
    store.raw.docs.update_one({"_id": 1}, {"$set": {"_outputs.q.m": "someone's"}})
    assert target.read(None, 10).set_aside == 1
    assert list(store.target(store.spec(version=1)).read(None, 10).keys) == [1]


def test_errors_are_bounded(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x"})
    target = store.target()
    page = target.read(None, 1)
    target.fail(
        [
            Failure(
                key=1,
                witness=page.witnesses[0],
                error="E",
                message="\ud800" + "m" * 50_000,
                traceback="t" * 50_000 + "end",
                attempts=1,
            )
        ]
    )
    (error,) = store.backend.errors.newest()
    assert (error.message[:7], len(error.traceback), error.traceback[-3:]) == ("\\ud800m", 8000, "end")
    assert len(error.message) < 2010


# -- leases --------------------------------------------------------------------------------------------------


def test_two_runs_do_not_get_the_same_rows(store):
    store.raw.docs.insert_many([{"_id": key, "q": "x"} for key in (1, 2.5, "s", "t")])
    one, other = store.target(), store.target()
    page, same = one.read(None, 10), other.read(None, 10)
    lease, granted, again = one.claim("one", page.take([0, 2]), [], 15.0)
    assert (list(granted), again) == ([0, 1], False)
    assert [same.keys[p] for p in other.claim("other", same, [], 15.0)[1]] == [page.keys[1], page.keys[3]]
    _, granted, again = one.claim("one", page, [lease], 15.0)
    assert (list(granted), again) == ([0, 2], False)


def test_rows_released_by_another_run_must_be_read_again(store):
    store.raw.docs.insert_many([{"_id": n, "q": "x"} for n in range(2)])
    one, other = store.target(), store.target()
    page = other.read(None, 10)
    mine = one.read(None, 10)
    one.claim("one", mine, [], 15.0)
    one.write(OutputBatch(keys=mine.keys, outputs=["a", "b"], witnesses=mine.witnesses))
    one.release("one")
    _, granted, again = other.claim("other", page, [], 15.0)
    assert (list(granted), again) == ([0, 1], True)
    assert other.reread(page.keys).fresh == 2


def test_so_must_rows_that_another_run_releases_while_they_are_claimed(store, monkeypatch):
    store.raw.docs.insert_many([{"_id": n, "q": "x"} for n in range(2)])
    one, other = store.target(), store.target()
    page, mine = other.read(None, 10), one.read(None, 10)
    one.claim("one", mine, [], 15.0)
    one.write(OutputBatch(keys=mine.keys, outputs=["a", "b"], witnesses=mine.witnesses))
    look = Leases._taken

    def late(leases, condition):
        one.release("one")
        return look(leases, condition)

    monkeypatch.setattr(Leases, "_taken", late)
    assert other.claim("other", page, [], 15.0)[1:] == ([0, 1], True)


def test_own_releases_ask_for_no_rereading(store):
    store.raw.docs.insert_many([{"_id": n, "q": "x"} for n in range(4)])
    target = store.target()
    first, second = target.read(None, 2), target.read(1, 2)
    lease, _, _ = target.claim("one", first, [], 15.0)
    assert target.claim("one", second, [lease], 15.0)[1:] == ([0, 1], False)


def test_leases_of_silent_and_of_dead_runs_are_void(store):
    store.raw.docs.insert_many([{"_id": n, "q": "x"} for n in range(2)])
    silent, waiting = store.target(), store.target()
    page = silent.read(None, 10)
    silent.claim("silent", page, [], 0.0)
    assert waiting.claim("waiting", page, [], 15.0)[1:] == ([0, 1], True)
    waiting.renew("waiting", 60.0)
    assert list(silent.claim("silent", page, [], 15.0)[1]) == []
    gone = this_process().rpartition(":")[0] + ":4194999"
    store.raw.pinnacle_lease.update_many({}, {"$set": {"owner": gone}})
    assert list(silent.claim("silent", page, [], 15.0)[1]) == [0, 1]


# -- the catalog of components ----------------------------------------------------------------------------------


def test_components_are_saved_once_a_version(store):
    catalog = store.backend.catalog
    record = Record(
        kind="model",
        identifier="a.b $c",
        version=0,
        type="t",
        body={"fields": {"$x.y": [1, None]}},
        digest="digest",
        artifacts=(),
    )
    assert catalog.save(record)
    assert not catalog.save(record)
    assert catalog.save(Record(kind="model", identifier="a.b $c", version=1, type="t", body={}, digest="d1"))
    found = catalog.get("model", "a.b $c", 0)
    assert (dict(found.body), found.digest) == ({"fields": {"$x.y": [1, None]}}, "digest")
    assert found.created_at.tzinfo == UTC
    assert catalog.get("model", "a.b $c").version == 1
    assert [record.version for record in catalog.versions("model", "a.b $c")] == [0, 1]
    assert catalog.identifiers() == catalog.identifiers("model") == [("model", "a.b $c")]
    assert catalog.get("model", "none") is None
    assert (catalog.delete("model", "a.b $c", 0), catalog.delete("model", "a.b $c")) == (1, 1)


def test_artifacts_live_as_long_as_something_refers_to_them(store):
    catalog, blob = store.backend.catalog, bytes(range(256)) * 40_000
    sha256 = hashlib.sha256(blob).hexdigest()
    for _ in range(2):
        catalog.put_artifact(sha256, iter([blob[:7], blob[7:]]))
    assert catalog.has_artifact(sha256)
    assert b"".join(catalog.get_artifact(sha256)) == blob
    catalog.save(Record(kind="model", identifier="a", version=0, type="t", body={}, digest="d", artifacts=(sha256,)))
    catalog.save(Record(kind="model", identifier="a", version=1, type="t", body={}, digest="d", artifacts=(sha256,)))
    catalog.delete("model", "a", 0)
    assert catalog.has_artifact(sha256)
    catalog.delete("model", "a")
    assert not catalog.has_artifact(sha256)
    with pytest.raises(NotFound):
        next(catalog.get_artifact(sha256))


# -- plans and removal ---------------------------------------------------------------------------------------------


def test_a_plan_says_what_binding_would_do_and_does_nothing(store):
    store.raw.docs.insert_one({"_id": 1, "q": "x"})
    spec = store.spec()
    source = store.backend.resolve(docs.find(), spec.fields)
    before = sorted(store.raw.list_collection_names())
    assert len(store.backend.plan(source, spec)) == 2
    dry = store.backend.bind(source, spec, create=False)
    assert (dry.info.id, list(dry.read(None, 10).keys)) == (0, [1])
    assert sorted(store.raw.list_collection_names()) == before
    store.backend.bind(source, spec)
    assert store.backend.plan(source, spec) == []
    assert len(store.backend.plan(source, store.spec(version=2))) == 1
    assert store.backend.outputs.rows(dry.info) == docs.find()
    assert store.backend.outputs.find(docs, spec.fields, "m").id == store.backend.outputs.all()[0].id


def test_everything_of_ours_can_be_taken_away(store):
    mine = [{"_id": 1, "q": "x", "kept": "v"}, {"_id": 2, "q": "y", "_outputs": {"mine": 1}}]
    store.raw.docs.insert_many(mine)
    store.raw.pinnacle_notes.insert_one({"_id": 1})
    store.fill(store.target())
    store.fill(store.target(store.spec(name="kept", model="adopted")))
    mine[0]["kept"], mine[1]["kept"] = "out x", "out y"
    assert len(store.backend.removal_plan(outputs=True)) > len(store.backend.removal_plan())
    store.backend.remove_all(outputs=True)
    assert list(store.raw.docs.find().sort("_id", 1)) == mine
    assert sorted(store.raw.list_collection_names()) == ["docs", "pinnacle_notes"]
    store.backend.migrate()
    assert store.backend.migration_plan() == []
    assert store.fill(store.target()) == 2


# -- servers in trouble, writers at work ------------------------------------------------------------------------------


def test_a_server_that_does_not_answer_is_named_without_its_password():
    with pytest.raises(ConnectionLost) as caught:
        connect("mongodb://user:s3cret@127.0.0.1:9/app?serverSelectionTimeoutMS=100")
    assert "127.0.0.1:9" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mongodb://127.0.0.1:9", "mongodb://", "mongomock://", "mongodb://h:x/db"])
def test_a_url_without_a_database_is_refused(url):
    with pytest.raises(ConfigError):
        connect(url)


def test_one_name_of_mongomock_is_one_database():
    connect("mongomock://shared").execute(docs.insert_one(Document({"_id": 1})))
    assert connect("mongomock://shared").execute(docs.count_documents()) == 1
    assert connect("mongomock://another").execute(docs.count_documents()) == 0


def test_a_dropped_connection_is_tried_again(served, monkeypatch):
    served.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(4)])
    target = served.target()
    run, dropped = Database.command, set()

    def command(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        name = command if isinstance(command, str) else next(iter(command))
        reply = run(self, command, *args, **kwargs)
        if name not in dropped and name != "hello":
            dropped.add(name)
            raise AutoReconnect("the reply was lost")
        return reply

    monkeypatch.setattr(Database, "command", command)
    page = target.read(None, 10)
    assert target.write(OutputBatch(keys=page.keys, outputs=list("abcd"), witnesses=page.witnesses)) == []
    assert dropped == {"find", "update", "insert"}
    assert (target.read(None, 10).fresh, served.values()) == (4, list("abcd"))


def test_an_output_that_was_written_as_the_server_went_away_is_on_record(served, monkeypatch):
    served.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(4)])
    target = served.target()
    page, run, is_gone = target.read(None, 10), Database.command, threading.Event()

    def command(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        if is_gone.is_set():
            raise AutoReconnect("no server")
        reply = run(self, command, *args, **kwargs)
        if "update" in command:
            is_gone.set()
            raise AutoReconnect("the reply was lost")
        return reply

    batch = OutputBatch(keys=page.keys, outputs=list("abcd"), witnesses=page.witnesses)
    with monkeypatch.context() as patch:
        patch.setattr(Database, "command", command)
        with pytest.raises(ConnectionLost):
            target.write(batch)
    assert (target.read(None, 10).fresh, served.values()) == (4, list("abcd"))
    assert target.write(batch) == []
    assert target.read(None, 10).fresh == 4


def test_a_server_that_stops_in_mid_run_keeps_what_is_done():
    with start_mongod(replica_set=False) as url, MongoClient(url, serverSelectionTimeoutMS=200) as client:
        store = opened(client.app)
        store.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(4)])
        target = store.target()
        first, rest = target.read(None, 2), target.read(1, 2)
        assert target.write(OutputBatch(keys=first.keys, outputs=["a", "b"], witnesses=first.witnesses)) == []
        with pytest.raises(AutoReconnect):
            client.admin.command("shutdown", force=True)
        with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1"):
            target.write(OutputBatch(keys=rest.keys, outputs=["c", "d"], witnesses=rest.witnesses))


def test_writers_beside_a_run_lose_and_spoil_nothing(served):
    rows = 600
    served.raw.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(rows)])
    stop = threading.Event()

    def change() -> None:
        for turn in itertools.cycle(range(rows)):
            if stop.is_set():
                return
            served.raw.docs.update_one({"_id": turn * 7 % rows}, {"$set": {"q": f"changed {turn}"}})

    writer = threading.Thread(target=change)
    writer.start()
    try:
        served.fill(served.target(), page_rows=200)
    finally:
        stop.set()
        writer.join()
    served.fill(served.target(), page_rows=200)
    assert [f"out {document['q']}" for document in served.raw.docs.find().sort("_id", 1)] == served.values()
    assert served.target().read(None, rows).fresh == rows
