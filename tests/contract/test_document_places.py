"""On MongoDB: who may write pinnacle's registry cannot have it write or take away what is the user's."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from pinnacle import Conflict, Listener
from pinnacle.backends.mongodb.target import leases
from pinnacle.backends.protocol import Capability
from pinnacle.base.rows import Fields, OutputSpec
from pinnacle.base.types import Items, Text
from pinnacle.components.side import Side
from tests.contract.documents import wait_until
from tests.models import shout

pytestmark = [pytest.mark.requires(Capability.DOCUMENTS), pytest.mark.same_standalone]

ITEMS = Items(Text(), many=True).to_json()
TO_USERS = {"collection": "users", "path": "role", "created": True}


@pytest.fixture
def docs(backend):
    backend.insert("docs", {"body": "a"})
    backend.insert("users", {"body": "root", "role": "admin"})
    return backend.query("docs")


def tamper(backend, values):
    backend.database["pinnacle_output"].update_many({}, {"$set": values})


def users(backend):
    return backend.read("users", 1)


@pytest.mark.parametrize(
    "values", [TO_USERS, {"path": "body"}, {**TO_USERS, "type": ITEMS}, {"path": "users", "type": ITEMS}], ids=str
)
def test_what_the_registry_was_pointed_at_is_not_taken_away(backend, db, docs, values, caplog):
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, {"created": True, **values})
    assert not any("users" in planned or "body" in planned for planned in db.removal_plan(outputs=True))
    db.remove_all(outputs=True)
    assert (users(backend), backend.read("docs", 1)["body"]) == ({"body": "root", "role": "admin"}, "a")
    assert "stays: nothing proves that pinnacle made it" in caplog.text


def test_removing_the_model_leaves_it_too(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, TO_USERS)
    db.remove("model", "shout", outputs="drop")
    assert users(backend) == {"body": "root", "role": "admin"}


def test_nothing_is_written_there(backend, db, docs, calls):
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, TO_USERS)
    calls.clear()
    with pytest.raises(Conflict, match=r"nothing proves.*adopt=True"):
        shout.predict(X="body", db=db, select=backend.query("users"), output="role")
    assert (calls, users(backend)["role"]) == ([], "admin")


def test_no_other_field_is_read_for_an_output_than_the_one_it_is_of(backend, db, docs, calls):
    backend.update("docs", 1, {"secret": "s"})
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, {"fields": {"paths": ["secret"], "arguments": None}})
    calls.clear()
    with pytest.raises(Conflict, match="nothing proves"):
        shout.predict(X="secret", db=db, select=docs, output="loud")
    assert (calls, backend.read("docs", 1)["loud"]) == ([], "A")


def test_a_worker_writes_nothing_for_a_listener_whose_output_is_another(backend, db, docs):
    db.add(Listener(model=shout, key="body", select=docs, output="loud"))
    tamper(backend, TO_USERS)
    db.listen()
    wait_until(lambda: db.listeners()[0].last_error is not None)
    assert "registered with another output" in db.listeners()[0].last_error
    assert users(backend) == {"body": "root", "role": "admin"}


def test_who_says_adopt_fills_the_place_again_and_it_stays_theirs(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    backend.database.drop_collection("pinnacle_place_1")
    with pytest.raises(Conflict, match="nothing proves"):
        shout.predict(X="body", db=db, select=docs, output="loud")
    assert shout.predict(X="body", db=db, select=docs, output="loud", adopt=True).fresh == 1
    assert shout.predict(X="body", db=db, select=docs, output="loud").fresh == 1
    db.remove_all(outputs=True)
    assert backend.read("docs", 1) == {"body": "a", "loud": "A"}


def test_what_pinnacle_made_is_taken_away_and_what_proves_it_goes_along(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    shout.predict(X="body", db=db, select=docs, output=Side("louder"))
    db.remove_all(outputs=True)
    assert backend.read("docs", 1) == {"body": "a"}
    assert sorted(backend.database.list_collection_names()) == ["docs", "users"]


def as_before(backend):
    """As a version left the database that knew of no proofs."""
    backend.database.drop_collection("pinnacle_place_1")
    backend.database["pinnacle_migration"].delete_one({"_id": 6})
    backend.database["pinnacle_migration"].drop_index("pinnacle_places_said")


def test_what_an_older_version_made_is_known_as_made_here(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    as_before(backend)
    assert any("pinnacle_place_<id>" in step for step in db.migration_plan())
    db.migrate()
    assert shout.predict(X="body", db=db, select=docs, output="loud").fresh == 1
    db.remove_all(outputs=True)
    assert backend.read("docs", 1) == {"body": "a"}


def test_a_migration_that_is_said_not_to_have_run_proves_nothing_a_second_time(backend, db, docs):
    shout.predict(X="body", db=db, select=docs, output="loud")
    tamper(backend, TO_USERS)
    backend.database["pinnacle_migration"].delete_one({"_id": 6})
    db.migrate()
    db.remove_all(outputs=True)
    assert users(backend) == {"body": "root", "role": "admin"}


def test_values_are_unset_once_the_worker_of_a_listener_that_is_gone_has_written_its_last(
    backend, db, docs, monkeypatch
):
    """Else it would take the rows without their values for rows to be computed."""
    shout.predict(X="body", db=db, select=docs, output="loud")
    db.add(Listener(model=shout, key="body", select=docs, output="loud"))
    held = db._backend.bind(*bound(db, docs)).leases
    lease = held.lease_work("a worker", lambda others: [1], 60.0, version=1)
    seen = []

    def another_is_at_work(seconds):
        seen.append((db.listeners(), backend.read("docs", 1).get("loud")))
        held.release_work(lease)

    monkeypatch.setattr(leases, "time", SimpleNamespace(sleep=another_is_at_work, monotonic=time.monotonic))
    db.remove_all(outputs=True)
    assert seen == [([], "A")]
    assert backend.read("docs", 1) == {"body": "a"}


def bound(db, docs):
    fields = Fields.of("body")
    spec = OutputSpec(name="loud", type=Text(), model="shout", version=1, fields=fields)
    return db._backend.resolve(docs, fields), spec
