"""One bad row is one bad row: it is tried again, set aside with its error, and its neighbours finish."""

from __future__ import annotations

import asyncio

import pytest

from pinnacle import ModelError, OutputCountMismatch, model
from pinnacle.runtime.listener_prediction import ListenerPrediction
from tests.contract.documents import blank, create_docs, outputs
from tests.contract.listening import add, values
from tests.models import note, picky, picky_batch

pytestmark = pytest.mark.same_standalone


def run(backend, db, the_model=picky, **options):
    return the_model.predict(X="body", db=db, select=backend.query("docs"), **options)


def uppercase(backend, bodies, bad="bad"):
    return {n + 1: blank(backend) if body.startswith(bad) else body.upper() for n, body in enumerate(bodies)}


def test_a_failing_row_is_set_aside_and_its_neighbours_are_written(backend, db):
    bodies = ["a", "bad 1", "b", "bad 2", "c"]
    create_docs(backend, *bodies)
    result = run(backend, db)
    assert (result.written, result.failed) == (3, 2)
    assert outputs(backend, db, "body", "picky") == uppercase(backend, bodies)


def test_an_error_is_listed_with_its_row_attempts_and_traceback(backend, db):
    create_docs(backend, "a", "bad 1")
    run(backend, db)
    (error,) = db.errors()
    assert (error.key, error.model, error.version) == (2, "picky", 0)
    assert (error.error, error.message, error.attempts) == ("ValueError", "refused: bad 1", 3)
    assert 'raise ValueError(f"refused: {body}")' in error.traceback
    assert error.failed_at.tzinfo is not None
    assert db.errors("picky") == [error]
    assert db.errors("another") == []
    assert (db.errors(output=error.output), db.errors(output="docs.another")) == ([error], [])
    assert db.count_errors() == {error.output: 1}


def test_rows_that_were_set_aside_are_counted_by_output(backend, db, below):
    assert below.errors.counts() == {}
    create_docs(backend, "a", "bad 1", "bad 2")
    run(backend, db)
    run(backend, db, output="other")
    first, second = below.outputs.all()
    assert below.errors.counts() == {first.id: 2, second.id: 2}
    db.retry_errors()
    backend.update("docs", 2, {"body": "b"})
    run(backend, db)
    assert below.errors.counts() == {first.id: 1, second.id: 2}


def test_a_failing_row_is_called_as_often_as_the_model_says(backend, db, calls):
    create_docs(backend, "a", "bad")
    run(backend, db)
    assert sorted(calls) == ["a", "bad", "bad", "bad"]


def test_a_row_that_fails_only_at_first_is_written(backend, db, calls):
    create_docs(backend, "a", "flaky", "b")

    def flaky(body):
        if note(body) == "flaky" and calls.count("flaky") < 3:
            raise TimeoutError
        return body.upper()

    result = run(backend, db, model(flaky, identifier="m", output_type=str, retry_delay_s=0))
    assert (result.written, result.failed, db.errors()) == (3, 0, [])
    assert outputs(backend, db, "body", "m") == {1: "A", 2: "FLAKY", 3: "B"}


def test_a_set_aside_row_is_not_called_again(backend, db, calls):
    create_docs(backend, "a", "bad")
    run(backend, db)
    calls.clear()
    result = run(backend, db)
    assert (result.set_aside, result.fresh, result.failed, calls) == (1, 1, 0, [])
    assert len(db.errors()) == 1


def test_a_set_aside_row_whose_input_changes_is_computed(backend, db):
    create_docs(backend, "a", "bad")
    run(backend, db)
    backend.update("docs", 2, {"body": "good"})
    assert run(backend, db).written == 1
    assert outputs(backend, db, "body", "picky") == {1: "A", 2: "GOOD"}
    assert db.errors() == []


def test_overwrite_calls_set_aside_rows_again(backend, db, calls):
    create_docs(backend, "bad")
    run(backend, db)
    run(backend, db, overwrite=True)
    assert calls == ["bad"] * 6
    assert len(db.errors()) == 1


def test_a_new_version_calls_set_aside_rows_again(backend, db):
    create_docs(backend, "a", "bad")
    run(backend, db, model(lambda body: 1 // ("bad" not in body), identifier="m", output_type=int, retry_delay_s=0))
    assert len(db.errors()) == 1
    assert run(backend, db, model(lambda body: 7, identifier="m", output_type=int)).written == 2
    assert db.errors() == []


def test_retry_errors_runs_set_aside_rows_again_and_no_others(backend, db, calls):
    create_docs(backend, "a", "bad 1", "bad 2", "b")
    broken = [True]

    def fails_for_now(body):
        if note(body).startswith("bad") and broken:
            raise ValueError("for now")
        return body.upper()

    fragile = model(fails_for_now, identifier="m", output_type=str, retry_delay_s=0, max_attempts=1)
    run(backend, db, fragile)
    calls.clear()
    (again,) = db.retry_errors(fragile)
    assert (again.failed, len(db.errors()), sorted(calls)) == (2, 2, ["bad 1", "bad 2"])
    broken.clear()
    (healed,) = db.retry_errors(fragile)
    assert (healed.written, healed.failed, db.errors()) == (2, 0, [])
    assert outputs(backend, db, "body", "m") == {1: "A", 2: "BAD 1", 3: "BAD 2", 4: "B"}
    assert db.retry_errors() == []


def test_retry_errors_loads_the_model_that_failed(backend, db, calls):
    create_docs(backend, "bad")
    run(backend, db)
    calls.clear()
    with backend.open() as another:
        (result,) = another.retry_errors()
    assert (result.failed, calls) == (1, ["bad"] * 3)
    assert db.show("model", "picky") == db.show("model", "picky")
    assert len(db.errors()) == 1


def test_a_row_deleted_since_it_failed_is_forgotten_by_retry(backend, db):
    create_docs(backend, "a", "bad")
    run(backend, db)
    backend.delete("docs", 2)
    db.retry_errors()
    assert db.errors() == []


def test_in_a_failing_batch_the_failing_rows_are_found_by_halving(backend, db, calls):
    bodies = [f"bad {n}" if n in (3, 17) else f"text {n}" for n in range(24)]
    create_docs(backend, *bodies)
    result = run(backend, db, picky_batch)
    assert (result.written, result.failed) == (22, 2)
    assert outputs(backend, db, "body", "picky_batch") == uppercase(backend, bodies)
    assert {error.key for error in db.errors()} == {4, 18}
    assert {8, 4, 2, 1} <= {len(call) for call in calls}


def test_a_batch_of_nothing_but_bad_rows_loses_none(backend, db):
    create_docs(backend, *(f"bad {n}" for n in range(10)))
    assert run(backend, db, picky_batch).failed == 10
    assert {error.key for error in db.errors()} == set(range(1, 11))


@pytest.mark.parametrize("excess", [-1, 1])
def test_a_batch_call_with_another_number_of_outputs_writes_none_of_them(backend, db, excess):
    create_docs(backend, *"abc")
    broken = model(
        lambda bodies: ["x"] * (len(bodies) + excess), identifier="m", batch=True, output_type=str, retry_delay_s=0
    )
    result = run(backend, db, broken)
    assert (result.written, result.failed) == (0, 3)
    assert set(outputs(backend, db, "body", "m").values()) == {blank(backend)}
    assert {error.error for error in db.errors()} == {OutputCountMismatch.__name__}


def test_raise_stops_at_the_first_failure_and_keeps_what_is_done(backend, db):
    bodies = [f"text {n}" for n in range(150)] + ["bad"] + [f"more {n}" for n in range(150)]
    create_docs(backend, *bodies)
    with pytest.raises(ModelError, match="refused: bad") as caught:
        run(backend, db, on_error="raise", batch_size=10)
    assert caught.value.keys == (151,)
    assert isinstance(caught.value.__cause__, ValueError)
    found = outputs(backend, db, "body", "picky")
    assert list(found.values())[:150] == [body.upper() for body in bodies[:150]]
    result = run(backend, db)
    assert result.fresh >= 150
    assert outputs(backend, db, "body", "picky") == uppercase(backend, bodies)


def test_identical_inputs_share_their_failure(backend, db, calls):
    create_docs(backend, "bad", "a", "bad")
    result = run(backend, db)
    assert (result.failed, calls.count("bad")) == (2, 3)
    assert {error.key for error in db.errors()} == {1, 3}


@pytest.mark.parametrize(
    ("style", "raised"),
    [*((style, StopIteration) for style in ("value", "threads", "batch", "async")), ("async", asyncio.CancelledError)],
)
def test_exceptions_that_steer_python_itself_are_errors_of_their_row(backend, db, style, raised):
    create_docs(backend, *"abc")

    def failing(body):
        if body == "b":
            raise raised
        return body.upper()

    async def failing_async(body):
        return failing(body)

    function = {"batch": lambda batch: list(map(failing, batch)), "async": failing_async}.get(style, failing)
    options = {"threads": {"concurrency": 2}, "batch": {"batch": True}}.get(style, {})
    result = run(backend, db, model(function, identifier="m", output_type=str, retry_delay_s=0, **options))
    assert (result.written, result.failed) == (2, 1)
    assert outputs(backend, db, "body", "m") == {1: "A", 2: blank(backend), 3: "C"}


STYLES = {"threads": {"concurrency": 2}, "batch": {"batch": True}}


@pytest.mark.anywhere
@pytest.mark.parametrize("is_listener", [False, True], ids=["predict", "listener"])
@pytest.mark.parametrize("style", ["value", "threads", "batch", "async"])
def test_a_model_that_ends_the_process_has_failed_on_its_row(backend, db, style, is_listener):
    create_docs(backend, *"abcde")
    raised = {"b": SystemExit(3), "c": asyncio.CancelledError(), "d": GeneratorExit(), "e": KeyboardInterrupt()}

    def ending(body):
        if body in raised and (is_listener or body != "e"):
            raise raised[body]
        return body.upper()

    async def ending_async(body):
        return ending(body)

    function = {"batch": lambda batch: list(map(ending, batch)), "async": ending_async}.get(style, ending)
    ended = model(function, identifier="m", output_type=str, retry_delay_s=0, **STYLES.get(style, {}))
    if is_listener:
        add(backend, db, ended)
        db.listen()
        db.drain()
    else:
        assert (run(backend, db, ended, output="loud").failed) == 3
    assert {error.key: error.error for error in db.errors()} == {
        2: "SystemExit", 3: "CancelledError", 4: "GeneratorExit", **({5: "KeyboardInterrupt"} if is_listener else {})
    }  # fmt: skip
    fine = {1: "A"} if is_listener else {1: "A", 5: "E"}
    assert {key: value for key, value in values(backend).items() if value} == fine


@pytest.mark.anywhere
def test_a_listener_goes_on_after_an_exception_of_any_class(backend, db, monkeypatch):
    """As code of an output type's may raise it: the listener's thread does not end for it."""
    create_docs(backend, *"ab")
    raised, work = iter([SystemExit(3), GeneratorExit()]), ListenerPrediction.work

    def once_ending(self, *arguments, **options):
        if (error := next(raised, None)) is not None:
            raise error
        return work(self, *arguments, **options)

    monkeypatch.setattr(ListenerPrediction, "work", once_ending)
    add(backend, db)
    db.listen()
    db.drain()
    assert values(backend) == {1: "A", 2: "B"}
    assert next(raised, None) is None


class TooFast(Exception):
    status_code = 429


@pytest.mark.anywhere
def test_nobody_else_is_asked_whether_the_provider_answers_where_no_row_can_be_to_blame(backend, db, calls):
    create_docs(backend, "a", "b")

    async def limited(body):
        if note(body) == "b" and calls.count("b") < 3:
            raise TooFast("slow down")
        return body.upper()

    result = run(backend, db, model(limited, identifier="m", output_type=str, retry_delay_s=0, concurrency=1))
    assert (result.written, result.failed) == (2, 0)
    assert calls == ["a", "b", "b", "b"]


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no message for you")


@pytest.mark.parametrize(
    "raised",
    [ValueError("nul \x00 and surrogate \ud800"), Unprintable(), ValueError("long " * 1_000_000), Exception()],
    ids=["unstorable", "unprintable", "endless", "silent"],
)
def test_any_exception_can_be_recorded(backend, db, raised):
    create_docs(backend, "a", "b")

    def failing(body):
        if body == "a":
            raise raised
        return body

    result = run(backend, db, model(failing, identifier="m", output_type=str, max_attempts=1))
    (error,) = db.errors()
    assert (result.written, result.failed, error.error) == (1, 1, type(raised).__name__)
    assert len(error.message) + len(error.traceback) < 20_000


def test_a_row_edited_while_it_fails_is_not_set_aside_for_its_old_input(backend, db):
    create_docs(backend, "bad", "a")

    def failing(body):
        if body == "bad":
            backend.update("docs", 1, {"body": "good"})
            raise ValueError("bad")
        return body.upper()

    run(backend, db, model(failing, identifier="m", output_type=str, retry_delay_s=0))
    run(backend, db, model(failing, identifier="m", output_type=str, retry_delay_s=0))
    assert outputs(backend, db, "body", "m") == {1: "GOOD", 2: "A"}
    assert db.errors() == []
