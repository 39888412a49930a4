"""Collections of pinnacle's that somebody dropped by hand: what is left is not taken for more than it is."""

from __future__ import annotations

from contextlib import closing, suppress

import pytest

from pinnacle import NotFound
from pinnacle.backends.mongodb import migrations
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs
from tests.contract.listening import add, values
from tests.models import CALLS, picky, shout

pytestmark = [pytest.mark.requires(Capability.DOCUMENTS), pytest.mark.same_standalone]

REMEMBERING = ["pinnacle_migration", "pinnacle_component", "pinnacle_output", "pinnacle_listener", "pinnacle_error"]


def predict(backend, db, **options):
    return picky.predict(X="body", db=db, select=backend.query("docs"), output="second", **options)


def ours(backend):
    return {name for name in backend.database.list_collection_names() if name.startswith("pinnacle_")}


@pytest.mark.parametrize("gone", [*REMEMBERING, "pinnacle_state_1", "pinnacle_state_2", "all"])
def test_every_verb_goes_on_without_a_collection_and_all_can_be_removed(backend, db, gone):
    create_docs(backend, "a", "bad")
    add(backend, db)
    assert predict(backend, db).failed == 1
    for name in ours(backend) if gone == "all" else [gone]:
        backend.database.drop_collection(name)
    for verb in (
        db.show, db.outputs, db.errors, db.retry_errors, db.listeners, db.workers, db.usage, db.clear_cache, db.migrate,
        lambda: db.load("model", "picky"), lambda: db.fresh("docs.loud"), lambda: db.sweep("docs.loud"),
        lambda: db.pause("docs.loud"), lambda: db.resume("docs.loud"), lambda: db.add(shout),
    ):  # fmt: skip
        with suppress(NotFound):
            verb()
    backend.insert("docs", {"body": "c"})
    add(backend, db, adopt=True)
    predict(backend, db, adopt=True)
    db.listen()
    db.drain()
    assert values(backend) == {1: "A", 2: "BAD", 3: "C"}
    assert values(backend, "second") == {1: "A", 2: None, 3: "C"}
    assert [error.key for error in db.errors()] == [2]
    assert db.fresh("docs.loud").fresh == 3
    assert len({info.id for info in db.outputs()}) == 2
    db.stop()
    db.remove_all()
    assert ours(backend) == set()


def test_what_is_computed_by_definitions_that_are_lost_is_computed_anew(backend, db):
    create_docs(backend, "a")
    add(backend, db)
    predict(backend, db)
    backend.database.drop_collection("pinnacle_component")
    CALLS.clear()
    db.migrate()
    assert "add the model and the listener again" in str(db.listeners()[0].paused)
    assert (predict(backend, db).written, CALLS) == (1, ["a"])
    db.remove("listener", "docs.loud")
    assert db.listeners() == []


def test_numbers_of_outputs_are_never_given_twice(backend, db):
    create_docs(backend, "a")
    predict(backend, db)
    backend.database.drop_collection("pinnacle_migration")
    shout.predict(X="body", db=db, select=backend.query("docs"), output="third")
    assert [info.id for info in db.outputs()] == [1, 2]


@pytest.mark.unmigrated
def test_what_another_process_is_making_for_the_first_time_is_not_lost(backend, caplog):
    for name in ("pinnacle_output", "pinnacle_component"):  # it is in the middle of the first step
        backend.database.create_collection(name)
    with closing(backend.open()) as db:
        db.migrate()
        assert db.migration_plan() == []
    assert "dropped by hand" not in caplog.text


@pytest.mark.unmigrated
def test_what_another_process_has_made_meanwhile_is_kept(backend, monkeypatch, caplog):
    with closing(backend.below()) as below, closing(backend.below()) as other:
        for name in ("pinnacle_output", "pinnacle_component"):
            backend.database.create_collection(name)
        pending = migrations.pending

        def slow(wire):
            monkeypatch.setattr(migrations, "pending", pending)
            other.runs.log("run", 0, [{"at": 0}])
            return pending(wire)

        monkeypatch.setattr(migrations, "pending", slow)
        below.migrate()
        assert below.runs.series("run") == [{"at": 0}]
    assert "dropped by hand" not in caplog.text
