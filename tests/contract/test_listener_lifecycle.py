"""Listeners beside failing models, other listeners, other runs, and changes of their own."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from pinnacle import Conflict, Listener, NotDrained, NotFound, model
from pinnacle.runtime import keeper
from tests.contract.documents import create_docs, during, wait_until
from tests.contract.listening import add, chosen, keep, values
from tests.models import note, picky, picky_batch, shout

# -- trouble ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("the_model", [picky, picky_batch], ids=["one at a time", "in batches"])
def test_a_failing_row_is_set_aside_and_its_neighbours_finish(backend, db, the_model):
    create_docs(backend, *"ab", "bad one", *"cd")
    listener = add(backend, db, the_model)
    db.listen()
    db.drain()
    assert values(backend) == {1: "A", 2: "B", 3: None, 4: "C", 5: "D"}
    (error,) = db.errors()
    assert (error.key, error.error) == (3, "ValueError")
    assert "refused" in error.message
    assert (db.fresh(listener).fresh, db.fresh(listener).failed) == (4, 1)
    assert db.listeners()[0].failed == 1


def test_a_row_that_was_set_aside_is_revived_by_a_newer_change(backend, db, calls):
    keep(backend, db, "a", "bad one", the_model=picky)
    backend.update("docs", 2, {"n": 9})
    db.drain()
    assert calls == []
    backend.update("docs", 2, {"body": "good"})
    db.drain()
    assert (values(backend), db.errors()) == ({1: "A", 2: "GOOD"}, [])


def test_a_row_that_begins_to_fail_keeps_its_old_output(backend, db, calls):
    keep(backend, db, "a", the_model=picky)
    backend.update("docs", 1, {"body": "bad now"})
    db.drain()
    assert values(backend) == {1: "A"}
    assert len(calls) == picky.max_attempts
    assert [error.key for error in db.errors()] == [1]


class Busy(Exception):
    """Too many requests, as the clients of HTTP services say it."""

    status_code = 429


@pytest.mark.parametrize("error", [ConnectionError, TimeoutError, Busy])
def test_an_outage_sets_no_row_aside(backend, db, calls, error):
    failures = iter(range(4))

    @model(identifier="away", max_attempts=1)
    def away(body: str) -> str:
        if next(failures, None) is not None:
            raise error("nobody there")
        return str(note(body)).upper()

    create_docs(backend, *"abcdef")
    add(backend, db, away)
    db.listen()
    wait_until(lambda: db.listeners()[0].last_error is not None)
    db.drain()
    assert values(backend) == {n + 1: text.upper() for n, text in enumerate("abcdef")}
    assert (db.errors(), sorted(calls)) == ([], list("abcdef"))
    wait_until(lambda: db.listeners()[0].last_error is None)


def test_an_error_that_is_over_is_taken_back_without_a_row_to_prove_it(backend, db, below, monkeypatch):
    """Whoever noted it: a worker that is gone, or this one while its database was away."""
    keep(backend, db, "a")
    (record,) = below.listeners.all()
    monkeypatch.setattr(keeper, "ERROR_STANDS_S", 3600.0)
    below.listeners.record_error(record.output, "the module is not here")
    settled = below.listeners.all()[0]
    wait_until(lambda: time.time() - settled.error_at > 2 * keeper.POLL_S)
    assert db.listeners()[0].last_error == "the module is not here"
    monkeypatch.setattr(keeper, "ERROR_STANDS_S", 0.1)
    wait_until(lambda: db.listeners()[0].last_error is None)


def test_a_row_changed_during_its_call_ends_with_the_newer_output(backend, db):
    create_docs(backend, *"ab")
    change = during(lambda: backend.update("docs", 1, {"body": "newer"}), when="a")
    listener = add(backend, db, model(change, identifier="m", output_type=str))
    db.listen()
    db.drain()
    assert values(backend) == {1: "NEWER", 2: "B"}
    assert db.fresh(listener).fresh == 2


def test_a_row_deleted_during_its_call_is_forgotten(backend, db):
    create_docs(backend, *"ab")
    gone = during(lambda: backend.delete("docs", 1), when="a")
    listener = add(backend, db, model(gone, identifier="m", output_type=str))
    db.listen()
    db.drain()
    assert values(backend) == {2: "B"}
    assert db.fresh(listener).fresh == 1


def test_what_was_not_done_when_a_worker_stopped_is_done_by_the_next(backend, db, calls):
    started, go_on = threading.Event(), threading.Event()

    @model(identifier="m", batch_size=2)
    def slow(body: str) -> str:
        started.set()
        go_on.wait()
        return str(note(body)).upper()

    create_docs(backend, *"abcdef")
    add(backend, db, slow)
    db.listen()
    started.wait()
    closer = threading.Thread(target=db.stop)
    closer.start()
    go_on.set()
    closer.join()
    assert list(values(backend).values()).count(None) == 6 - len(calls)
    db.listen()
    db.drain()
    assert values(backend) == {n + 1: text.upper() for n, text in enumerate("abcdef")}
    assert sorted(calls) == list("abcdef")


def test_the_worker_that_listens_tells_how_it_fares(backend, db):
    listener = keep(backend, db, "a")
    worker = db.listen()
    assert worker is db.listen()
    assert (worker.is_alive, worker.listeners, worker.standing_by_for) == (True, [listener.identifier], None)
    db.stop()
    assert (worker.is_alive, worker.listeners) == (False, [])
    db.stop()
    again = db.listen()
    assert again is not worker
    wait_until(lambda: again.listeners == [listener.identifier])
    again.stop()
    assert not again.is_alive


# -- several listeners -----------------------------------------------------------------------------------


def test_two_listeners_on_one_table_do_not_wake_each_other(backend, db, calls):
    create_docs(backend, *"ab")
    add(backend, db)
    size = model(lambda body: len(note(body)), identifier="size", output_type=int)
    add(backend, db, size, output="size")
    db.listen()
    db.drain()
    assert (values(backend), values(backend, "size")) == ({1: "A", 2: "B"}, {1: 1, 2: 1})
    assert Counter(calls) == {"a": 2, "b": 2}


def test_a_chain_is_followed_to_its_end(backend, db, calls):
    create_docs(backend, *"ab")
    twice = model(lambda loud: note(loud) * 2, identifier="twice", output_type=str)
    size = model(lambda double: len(note(double)), identifier="size", output_type=int)
    add(backend, db)
    add(backend, db, twice, key="loud", output="double")
    add(backend, db, size, key="double", output="size")
    db.listen()
    backend.update("docs", 1, {"body": "xyz"})
    wait_until(lambda: values(backend, "size") == {1: 6, 2: 2})
    db.drain()
    calls.clear()
    backend.update("docs", 2, {"body": "qq"})
    wait_until(lambda: values(backend, "size") == {1: 6, 2: 4})
    assert calls == ["qq", "QQ", "QQQQ"]


def test_a_listener_that_would_wake_itself_is_refused(backend, db):
    create_docs(backend, "a")
    with pytest.raises(Conflict, match="own output"):
        add(backend, db, key="body", output="body")


def test_a_circle_of_listeners_is_refused(backend, db):
    create_docs(backend, "a")
    add(backend, db, output="first")
    add(backend, db, key="first", output="second")
    with pytest.raises(Conflict, match="circle"):
        add(backend, db, key="second", output="body")
    assert [listener.identifier for listener in db.listeners()] == ["docs.first", "docs.second"]


def test_an_output_has_one_listener(backend, db):
    create_docs(backend, "a")
    add(backend, db)
    with pytest.raises(Conflict, match=r"docs\.loud"):
        add(backend, db, identifier="another")


# -- lifecycle -------------------------------------------------------------------------------------------


def test_adding_a_listener_again_changes_nothing(backend, db, calls):
    listener = keep(backend, db, *"ab")
    again = add(backend, db)
    db.drain()
    assert (again.identifier, again.version) == (listener.identifier, 0)
    assert calls == []
    assert not db.listeners()[0].is_sweeping


def test_a_changed_model_recomputes_while_old_values_stay_readable(backend, db, calls):
    create_docs(backend, *"ab")
    add(backend, db, model(lambda body: body.upper(), identifier="m", output_type=str))
    db.listen()
    db.drain()
    began, go_on = threading.Event(), threading.Event()

    def longer(body):
        began.set()
        go_on.wait()
        return note(body) * 2

    changed = add(backend, db, model(longer, identifier="m", output_type=str))
    began.wait()
    try:
        assert changed.version == 1
        assert values(backend) == {1: "A", 2: "B"}
    finally:
        go_on.set()
    db.drain()
    assert values(backend) == {1: "aa", 2: "bb"}
    assert db.fresh(changed).fresh == 2


def test_removing_a_listener_ends_the_capture_and_leaves_the_values(backend, db, calls):
    listener = keep(backend, db, *"ab")
    db.remove("listener", listener.identifier)
    backend.update("docs", 1, {"body": "z"})
    backend.delete("docs", 2)
    db.drain()
    assert (values(backend), calls, db.listeners()) == ({1: "A"}, [], [])
    with pytest.raises(NotFound):
        db.fresh(listener)
    add(backend, db)
    db.drain()
    assert values(backend) == {1: "Z"}


def test_a_model_is_not_removed_under_its_listener(backend, db):
    create_docs(backend, "a")
    add(backend, db)
    with pytest.raises(Conflict):
        db.remove("model", "shout", outputs="keep")


def test_a_paused_listener_captures_and_works_when_it_resumes(backend, db, calls):
    listener = keep(backend, db, *"ab")
    db.pause(listener, "maintenance")
    wait_until(lambda: not db.listen().listeners)
    backend.update("docs", 1, {"body": "z"})
    db.drain()
    assert (values(backend), calls) == ({1: "A", 2: "B"}, [])
    assert db.listeners()[0].paused == "maintenance"
    db.resume(listener)
    db.drain()
    assert (values(backend), calls) == ({1: "Z", 2: "B"}, ["z"])


def test_a_sweep_of_what_is_fresh_calls_nothing(backend, db, calls):
    listener = keep(backend, db, *"ab")
    db.sweep(listener)
    db.drain()
    assert calls == []


def test_fresh_counts_rows_by_how_they_stand(backend, db):
    create_docs(backend, *"abc", "bad one")
    listener = add(backend, db, picky)
    assert db.fresh(listener).missing == 4
    picky.predict(X="body", db=db, select=backend.query("docs"), output="loud")
    backend.update("docs", 1, {"body": "stale"})
    backend.insert("docs", {"id": 5, "body": "missing", "n": 0})
    found = db.fresh(listener.identifier)
    assert (found.fresh, found.stale, found.missing, found.failed) == (2, 1, 1, 1)


def test_drain_without_a_worker_says_what_waits(backend, db):
    create_docs(backend, "a")
    add(backend, db)
    with pytest.raises(NotDrained, match=r"docs\.loud.*db\.listen\(\)"):
        db.drain(timeout_s=0.05)


def test_the_status_tells_how_a_listener_stands(backend, db, calls):
    keep(backend, db, *"abc")
    (status,) = db.listeners()
    assert (status.identifier, status.output) == ("docs.loud", "docs.loud")
    assert (status.pending, status.in_flight, status.failed, status.processed) == (0, 0, 0, 3)
    assert (status.last_error, status.paused, status.is_sweeping) == (None, None, False)


@pytest.mark.unmigrated
def test_the_plan_of_a_listener_changes_nothing(backend, db):
    create_docs(backend, "a")
    plan = db.plan(Listener(model=shout, key="body", select=backend.query("docs"), output="loud"))
    assert plan.statements
    assert (db.listeners(), db.outputs()) == ([], [])


def test_a_listener_is_loaded_by_another_handle(backend, db, calls):
    create_docs(backend, *"ab")
    add(backend, db, select=chosen(backend, 1))
    with backend.open() as other:
        other.listen()
        other.drain()
    assert values(backend) == {1: None, 2: "B"}


# -- beside a predict ------------------------------------------------------------------------------------


def test_a_predict_beside_a_worker_pays_for_no_row_twice(backend, db, calls):
    create_docs(backend, *(f"text {n}" for n in range(100)))
    both = threading.Barrier(2, timeout=600)

    @model(identifier="m", batch_size=10)
    def meeting(body: str) -> str:
        if note(body) and len(calls) <= 2:
            both.wait()
        return body.upper()

    add(backend, db, meeting)
    predicted = threading.Thread(
        target=meeting.predict,
        kwargs={"X": "body", "db": db, "select": backend.query("docs"), "output": "loud", "batch_size": 10},
    )
    db.listen()
    predicted.start()
    predicted.join()
    db.drain()
    assert list(values(backend).values()) == [f"TEXT {n}" for n in range(100)]
    assert max(Counter(calls).values()) == 1
