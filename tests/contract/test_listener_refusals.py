"""What a refused or failed call leaves behind: nothing. And what goes on beside a listener with other options."""

from __future__ import annotations

import pytest

from pinnacle import Conflict, Listener, Side, model
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs
from tests.contract.listening import add, keep, values
from tests.models import note, shout, word_count

pytestmark = pytest.mark.same_standalone

BROKEN = {"boom"}


@model(max_attempts=1)
def decorated(body: str, mark: str = "?") -> str:
    """Refuses what is in `BROKEN`."""
    if note(body) in BROKEN:
        raise ValueError(f"refused: {body}")
    return body + mark


def test_a_listener_on_anothers_output_is_refused_and_not_stored(backend, db):
    create_docs(backend, "a")
    add(backend, db)
    with pytest.raises(Conflict):
        add(backend, db, identifier="another")
    with pytest.raises(Conflict):
        add(backend, db, word_count)
    assert db.show("listener") == ["docs.loud"]
    assert db.load("listener", "docs.loud").model.identifier == "shout"


def test_an_identifier_of_another_output_is_refused_and_not_stored(backend, db):
    create_docs(backend, "a")
    add(backend, db, identifier="mine")
    with pytest.raises(Conflict, match="mine"):
        add(backend, db, identifier="mine", output="other")
    assert len(db.show("listener", "mine")["versions"]) == 1


@pytest.mark.requires(Capability.DOCUMENTS)
@pytest.mark.parametrize("options", [{"on_change": "clear"}, {"replicated": True}])
def test_what_mongodb_cannot_do_is_refused_and_not_stored(backend, db, options):
    create_docs(backend, "a")
    with pytest.raises(Exception, match="MongoDB"):
        add(backend, db, **options)
    assert (db.show("listener"), db.listeners()) == ([], [])


@pytest.mark.unmigrated
def test_a_dry_run_leaves_no_listener_behind(backend, db, calls):
    create_docs(backend, "a")
    result = shout.predict(X="body", db=db, select=backend.query("docs"), output="loud", dry_run=True, listen=True)
    assert (result.computed, db.listeners(), calls) == (1, [], [])


def test_failed_rows_are_tried_again_as_the_listener_says(backend, db, calls, monkeypatch):
    keep(backend, db, "a", "boom", the_model=decorated, parameters={"mark": "!"})
    assert [error.key for error in db.errors()] == [2]
    monkeypatch.setattr("tests.contract.test_listener_refusals.BROKEN", set())
    assert [result.written for result in db.retry_errors()] == [1]
    db.drain()
    assert values(backend) == {1: "a!", 2: "boom!"}
    assert calls == ["boom"]


def test_a_predict_with_other_keywords_is_healed_by_the_listener(backend, db, calls):
    listener = keep(backend, db, "a", "b", the_model=decorated, parameters={"mark": "!"})
    decorated.predict(X="body", db=db, select=backend.query("docs"), output="loud", mark="#")
    db.drain()
    assert values(backend) == {1: "a!", 2: "b!"}
    assert db.fresh(listener).fresh == 2


def test_side_rows_of_rows_that_are_gone_go_with_the_next_predict(backend, db):
    create_docs(backend, "a", "b")
    for _ in range(2):
        shout.predict(X="body", db=db, select=backend.query("docs"), output=Side("parts"))
        backend.delete("docs", 1)
    assert backend.rows("parts", "docs_id") == [(2,)]


@pytest.mark.parametrize("name", ["s", "b", "u", "free", "guard", "page", "last", "tally"])
def test_a_table_may_be_named_as_anything_in_our_statements(backend, db, name):
    create_docs(backend, "x", table=name)
    db.add(Listener(model=shout, key="body", select=backend.query(name), output="loud"))
    db.add(Listener(model=word_count, key="body", select=backend.query(name), output=Side(f"{name}_counts")))
    db.listen()
    db.drain()
    assert backend.read_all(name)[1]["loud"] == "X"
    shout.predict(X="body", db=db, select=backend.query(name), output="again")
    assert backend.read_all(name)[1]["again"] == "X"
