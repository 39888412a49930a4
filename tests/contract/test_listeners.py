"""A listener's output follows its rows, whoever changes them, and no more calls are made than must be."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pinnacle import BackendError, model
from pinnacle.backends.protocol import Capability
from pinnacle.runtime.outputs import OutputWriter
from tests.contract.documents import create_docs, wait_until
from tests.contract.listening import add, chosen, keep, values
from tests.models import note, shout

# -- filling and following -------------------------------------------------------------------------------


def test_the_first_fill_computes_every_row_once(backend, db, calls):
    create_docs(backend, *(f"text {n}" for n in range(120)))
    add(backend, db)
    db.listen()
    db.drain()
    assert values(backend) == {n + 1: f"TEXT {n}" for n in range(120)}
    assert len(calls) == 120


def test_adding_returns_before_anything_is_computed(backend, db, calls):
    create_docs(backend, *"ab")
    listener = add(backend, db)
    assert (listener.identifier, listener.version) == ("docs.loud", 0)
    assert calls == []


def test_rows_that_are_fresh_are_not_computed_again_by_the_first_fill(backend, db, calls):
    create_docs(backend, *"abc")
    shout.predict(X="body", db=db, select=backend.query("docs"), output="loud")
    backend.update("docs", 2, {"body": "x"})
    calls.clear()
    add(backend, db)
    db.listen()
    db.drain()
    assert calls == ["x"]


def test_a_new_row_gets_its_output(backend, db, calls):
    keep(backend, db, "a")
    (key,) = backend.insert("docs", {"id": 7, "body": "new", "n": 0})
    db.drain()
    assert values(backend) == {1: "A", key: "NEW"}
    assert calls == ["new"]


def test_a_changed_row_gets_its_new_output(backend, db, calls):
    keep(backend, db, *"ab")
    backend.update("docs", 1, {"body": "changed"})
    db.drain()
    assert values(backend) == {1: "CHANGED", 2: "B"}
    assert calls == ["changed"]


def test_a_row_changed_many_times_ends_with_its_last_output(backend, db, calls):
    keep(backend, db, "a")
    for number in range(30):
        backend.update("docs", 1, {"body": f"text {number}"})
    db.drain()
    assert values(backend) == {1: "TEXT 29"}


def test_a_deleted_row_leaves_nothing_behind(backend, db, calls):
    listener = keep(backend, db, *"ab")
    backend.delete("docs", 1)
    db.drain()
    assert values(backend) == {2: "B"}
    assert db.fresh(listener).fresh == 1
    backend.insert("docs", {"id": 1, "body": "again", "n": 0})
    db.drain()
    assert values(backend) == {1: "AGAIN", 2: "B"}
    assert calls == ["again"]


def test_writing_what_was_there_calls_nothing(backend, db, calls):
    keep(backend, db, "a")
    backend.update("docs", 1, {"body": "a", "n": 0})
    db.drain()
    assert calls == []


def test_changing_a_field_that_nobody_reads_calls_nothing(backend, db, calls):
    listener = keep(backend, db, "a")
    backend.update("docs", 1, {"n": 99})
    db.drain()
    assert calls == []
    assert db.fresh(listener).fresh == 1


@pytest.mark.parametrize("other", ["mine", None])
def test_an_output_that_others_overwrite_is_healed(backend, db, calls, other):
    keep(backend, db, *"ab")
    backend.update("docs", 1, {"loud": other})
    db.drain()
    assert values(backend) == {1: "A", 2: "B"}
    assert calls in ([], ["a"])


def test_an_input_and_an_output_written_at_once_end_right(backend, db, calls):
    keep(backend, db, *"ab")
    backend.update("docs", 1, {"body": "z", "loud": "mine"})
    db.drain()
    assert values(backend) == {1: "Z", 2: "B"}


def test_an_input_that_becomes_null_clears_the_output(backend, db, calls):
    keep(backend, db, *"ab")
    backend.update("docs", 1, {"body": None})
    db.drain()
    assert values(backend) == {1: None, 2: "B"}
    assert calls == []
    backend.update("docs", 1, {"body": "back"})
    db.drain()
    assert values(backend) == {1: "BACK", 2: "B"}


@pytest.mark.requires(Capability.SQL)
def test_a_row_whose_key_changes_keeps_an_output(backend, db, calls):
    listener = keep(backend, db, *"ab")
    backend.update("docs", 1, {"id": 9})
    db.drain()
    backend.insert("docs", {"id": 1, "body": "other", "n": 0})
    db.drain()
    assert values(backend) == {1: "OTHER", 2: "B", 9: "A"}
    assert db.fresh(listener).fresh == 3


@pytest.mark.requires(Capability.SQL)
def test_keys_that_trade_places_are_followed(backend, db, calls):
    keep(backend, db, *"ab")
    with backend.engine.begin() as connection:
        for old, new in ((1, 3), (2, 1), (3, 2)):
            connection.exec_driver_sql(f"UPDATE docs SET id = {new} WHERE id = {old}")
    backend.update("docs", 1, {"body": "now"})
    db.drain()
    assert values(backend) == {1: "NOW", 2: "A"}


@pytest.mark.requires(Capability.SQL)
def test_upserts_are_followed(backend, db, calls):
    keep(backend, db, *"ab")
    with backend.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO docs (id, body, n) VALUES (1, 'one', 0), (3, 'three', 0) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body"
        )
        connection.exec_driver_sql("INSERT INTO docs (id, body) VALUES (2, 'ignored') ON CONFLICT (id) DO NOTHING")
    db.drain()
    assert values(backend) == {1: "ONE", 2: "B", 3: "THREE"}
    assert sorted(calls) == ["one", "three"]


@pytest.mark.requires(Capability.TRANSACTIONS, Capability.SQL)
def test_a_rollback_leaves_no_work_behind(backend, db, calls):
    keep(backend, db, "a")
    with backend.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE docs SET body = 'never' WHERE id = 1")
        connection.rollback()
    db.drain()
    assert (db.listeners()[0].pending, calls, values(backend)) == (0, [], {1: "A"})


# -- filters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unmatched", "left"), [("keep", "B"), ("clear", None)])
def test_a_row_that_leaves_the_select_is_kept_or_cleared(backend, db, calls, unmatched, left):
    create_docs(backend, *"ab")
    listener = add(backend, db, select=chosen(backend, 1), unmatched=unmatched)
    db.listen()
    db.drain()
    assert values(backend) == {1: None, 2: "B"}
    backend.update("docs", 2, {"n": 5})
    db.drain()
    assert values(backend) == {1: None, 2: left}
    assert calls == ["b"]
    assert db.fresh(listener).fresh == 0


def test_a_row_that_enters_the_select_is_computed(backend, db, calls):
    create_docs(backend, *"ab")
    add(backend, db, select=chosen(backend, 1))
    db.listen()
    db.drain()
    calls.clear()
    backend.update("docs", 1, {"n": 1})
    db.drain()
    assert values(backend) == {1: "A", 2: "B"}
    assert calls == ["a"]


def test_a_row_outside_the_select_is_never_computed(backend, db, calls):
    create_docs(backend, *"ab")
    add(backend, db, select=chosen(backend, 1))
    db.listen()
    backend.update("docs", 1, {"body": "outside"})
    backend.insert("docs", {"id": 8, "body": "outside too", "n": 2})
    db.drain()
    assert calls == ["b"]
    assert values(backend) == {1: None, 2: "B", 8: None}


def test_a_row_that_comes_back_with_another_input_is_computed_again(backend, db, calls):
    create_docs(backend, *"ab")
    add(backend, db, select=chosen(backend, 1))
    db.listen()
    db.drain()
    backend.update("docs", 2, {"n": 5})
    backend.update("docs", 2, {"body": "changed outside"})
    db.drain()
    backend.update("docs", 2, {"n": 1})
    db.drain()
    assert values(backend)[2] == "CHANGED OUTSIDE"


# -- what a model takes ----------------------------------------------------------------------------------


def test_a_tuple_of_fields_feeds_positional_arguments(backend, db, calls):
    repeat = model(lambda body, n: note(body) * n, identifier="repeat", output_type=str)
    keep(backend, db, *"abc", the_model=repeat, key=("body", "n"))
    assert values(backend) == {1: "", 2: "b", 3: "cc"}
    backend.update("docs", 2, {"n": 4})
    db.drain()
    assert values(backend) == {1: "", 2: "bbbb", 3: "cc"}
    assert calls == ["b"]


def test_a_dict_of_fields_feeds_named_arguments(backend, db, calls):
    repeat = model(lambda text, times: note(text) * times, identifier="repeat", output_type=str)
    keep(backend, db, *"abc", the_model=repeat, key={"input": "body", "times": "n"})
    backend.update("docs", 3, {"body": "z"})
    db.drain()
    assert values(backend) == {1: "", 2: "b", 3: "zz"}
    assert calls == ["z"]


def test_parameters_go_to_every_call(backend, db, calls):
    end = model(lambda body, end="": note(body) + end, identifier="end", output_type=str)
    keep(backend, db, *"ab", the_model=end, parameters={"end": "!"})
    backend.update("docs", 1, {"body": "z"})
    db.drain()
    assert values(backend) == {1: "z!", 2: "b!"}


def test_a_predict_may_leave_a_listener_behind(backend, db, calls):
    create_docs(backend, *"ab")
    result = shout.predict(X="body", db=db, select=backend.query("docs"), output="loud", listen=True)
    assert (result.written, values(backend)) == (2, {1: "A", 2: "B"})
    calls.clear()
    db.listen()
    backend.update("docs", 1, {"body": "z"})
    db.drain()
    assert values(backend) == {1: "Z", 2: "B"}
    assert calls == ["z"]


def test_parameters_of_a_predict_are_those_of_its_listener(backend, db, calls):
    create_docs(backend, *"ab")
    end = model(lambda body, end="": note(body) + end, identifier="end", output_type=str)
    end.predict(X="body", db=db, select=backend.query("docs"), output="loud", listen=True, end="?")
    calls.clear()
    db.listen()
    backend.update("docs", 1, {"body": "z"})
    db.drain()
    assert (values(backend), calls) == ({1: "z?", 2: "b?"}, ["z"])


# -- rows whose answers take long --------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["threads", "async"])
def test_a_slow_row_holds_up_no_other_row_of_its_listener(backend, db, calls, style):
    released = threading.Event()

    def answer(body):
        if note(body) == "slow":
            released.wait(600)
        return body.upper()

    async def answer_async(body):
        return await asyncio.to_thread(answer, body)

    slow = model(answer_async if style == "async" else answer, identifier="slow", output_type=str, concurrency=2)
    create_docs(backend, "slow", *"abc")
    try:
        add(backend, db, slow)
        db.listen()
        wait_until(lambda: values(backend) == {1: None, 2: "A", 3: "B", 4: "C"})
        backend.update("docs", 2, {"body": "x"})
        backend.insert("docs", {"body": "new"})
        wait_until(lambda: values(backend) == {1: None, 2: "X", 3: "B", 4: "C", 5: "NEW"})
        backend.update("docs", 1, {"body": "y"})
    finally:
        released.set()
    db.drain()
    assert values(backend) == {1: "Y", 2: "X", 3: "B", 4: "C", 5: "NEW"}
    assert sorted(calls) == ["a", "b", "c", "new", "slow", "x", "y"]


@pytest.mark.anywhere
def test_rows_under_way_are_taken_up_again_after_an_error_of_the_database(backend, db, calls, monkeypatch):
    """A row that waited for the answer to another with the same input, too."""
    released, refused = threading.Event(), threading.Event()
    written = OutputWriter._written

    def refuse_once(self, batch, write_whole):
        if "boom" in batch.outputs and not refused.is_set():
            refused.set()
            raise BackendError("once")
        return written(self, batch, write_whole)

    async def answer(body):
        if note(body) == "slow":
            await asyncio.to_thread(released.wait, 600)
        return body

    monkeypatch.setattr(OutputWriter, "_written", refuse_once)
    create_docs(backend, "slow")
    try:
        add(backend, db, model(answer, identifier="slow", output_type=str, concurrency=2))
        db.listen()
        wait_until(lambda: calls == ["slow"])
        backend.insert("docs", {"body": "slow"})
        backend.insert("docs", {"body": "a"})
        wait_until(lambda: values(backend)[3] == "a")
        backend.insert("docs", {"body": "boom"})
        wait_until(refused.is_set)
    finally:
        released.set()
    db.drain()
    assert values(backend) == {1: "slow", 2: "slow", 3: "a", 4: "boom"}
