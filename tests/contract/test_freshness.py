"""What is fresh is not computed again, and what is stale never passes for fresh."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from pinnacle import Conflict, Datetime, Vector, model
from tests.contract.documents import create_docs, during, outputs, snapshot, wait_until
from tests.models import note, shout


def run(backend, db, the_model=shout, **options):
    return the_model.predict(X="body", db=db, select=backend.query("docs"), **options)


def test_every_row_gets_its_output(backend, db, calls):
    create_docs(backend, *(f"text {n}" for n in range(250)))
    result = run(backend, db)
    assert (result.read, result.written, result.calls, len(calls)) == (250, 250, 250, 250)
    assert outputs(backend, db, "body", "shout") == {n + 1: f"TEXT {n}" for n in range(250)}


def test_a_second_predict_calls_nothing_and_changes_nothing(backend, db, calls):
    create_docs(backend, *"abcd")
    run(backend, db)
    before = snapshot(backend)
    calls.clear()
    result = run(backend, db)
    assert (result.fresh, result.written, calls) == (4, 0, [])
    assert {k: v for k, v in snapshot(backend).items() if "output" not in str(k)} == {
        k: v for k, v in before.items() if "output" not in str(k)
    }


@pytest.mark.unmigrated
def test_an_empty_table_is_fine(backend, db, calls):
    create_docs(backend, "x")
    backend.delete("docs", 1)
    result = run(backend, db)
    assert (result.read, result.written, calls) == (0, 0, [])


def test_only_changed_and_new_rows_are_computed(backend, db, calls):
    create_docs(backend, *"abcd")
    run(backend, db)
    calls.clear()
    backend.update("docs", 2, {"body": "changed"})
    backend.insert("docs", {"id": 5, "body": "new", "n": 5})
    assert run(backend, db).written == 2
    assert sorted(calls) == ["changed", "new"]
    assert outputs(backend, db, "body", "shout") == {1: "A", 2: "CHANGED", 3: "C", 4: "D", 5: "NEW"}


def test_a_change_of_another_field_costs_nothing(backend, db, calls):
    create_docs(backend, *"ab")
    run(backend, db)
    calls.clear()
    backend.update("docs", 1, {"n": 99})
    assert (run(backend, db).fresh, calls) == (2, [])


@pytest.mark.parametrize("forged", ["forged", None, ""])
def test_an_output_overwritten_by_others_is_healed(backend, db, forged):
    create_docs(backend, *"abc")
    run(backend, db, output="loud")
    backend.update("docs", 2, {"loud": forged})
    assert run(backend, db, output="loud").written == 1
    assert [row["loud"] for row in backend.read_all("docs").values()] == ["A", "B", "C"]


def test_a_row_deleted_and_inserted_again_gets_its_output_again(backend, db):
    create_docs(backend, *"ab")
    run(backend, db)
    backend.delete("docs", 1)
    backend.insert("docs", {"id": 1, "body": "a", "n": 0})
    assert run(backend, db).written == 1
    assert outputs(backend, db, "body", "shout") == {1: "A", 2: "B"}


def test_an_edit_and_its_undoing_leave_a_row_fresh(backend, db, calls):
    create_docs(backend, "a")
    run(backend, db)
    calls.clear()
    backend.update("docs", 1, {"body": "b"})
    backend.update("docs", 1, {"body": "a"})
    assert (run(backend, db).fresh, calls) == (1, [])


@pytest.mark.parametrize(
    ("before", "after"), [("abc", "ABC"), ("abc", "abc "), ("", " "), ("é", "e\u0301"), ("1", "1.0")]
)
def test_texts_are_compared_exactly(backend, db, before, after):
    create_docs(backend, before)
    run(backend, db)
    backend.update("docs", 1, {"body": after})
    assert run(backend, db).written == 1
    assert outputs(backend, db, "body", "shout") == {1: after.upper()}


def test_an_input_that_is_null_gives_no_output_and_no_call(backend, db, calls):
    create_docs(backend, "a", None)
    result = run(backend, db)
    assert (result.written, result.empty, calls) == (2, 1, ["a"])
    assert outputs(backend, db, "body", "shout") == {1: "A", 2: None}
    assert run(backend, db).fresh == 2


def test_an_input_that_becomes_null_clears_the_output(backend, db):
    create_docs(backend, *"ab")
    run(backend, db)
    backend.update("docs", 1, {"body": None})
    assert run(backend, db).empty == 1
    assert outputs(backend, db, "body", "shout") == {1: None, 2: "B"}


def test_a_model_that_takes_null_is_called_with_none(backend, db, calls):
    create_docs(backend, "a", None)
    length = model(
        lambda body: note(-1 if body is None else len(body)), identifier="n", output_type=int, skip_null=False
    )
    result = run(backend, db, length)
    assert (result.empty, sorted(calls)) == (0, [-1, 1])
    assert outputs(backend, db, "body", "n") == {1: 1, 2: -1}


def test_an_output_of_an_input_edited_during_the_call_is_never_written(backend, db):
    create_docs(backend, *"abc")
    seen = []

    def edit():
        backend.update("docs", 2, {"body": "newer"})
        seen.append(backend.read("docs", 2))

    result = run(backend, db, model(during(edit, when="b"), identifier="m", output_type=str))
    assert len(seen) == 1
    assert result.written == 3
    assert outputs(backend, db, "body", "m") == {1: "A", 2: "NEWER", 3: "C"}
    assert run(backend, db, model(lambda body: body.upper(), identifier="m2", output_type=str)).written == 3


def test_a_row_deleted_during_the_call_is_left_alone(backend, db):
    create_docs(backend, *"abc")
    delete = model(during(lambda: backend.delete("docs", 2), when="b"), identifier="m", output_type=str)
    result = run(backend, db, delete)
    assert (result.written, result.changed) == (2, 1)
    assert outputs(backend, db, "body", "m") == {1: "A", 3: "C"}


def test_an_input_nulled_during_the_call_gets_no_output(backend, db):
    create_docs(backend, *"abc")
    null = model(during(lambda: backend.update("docs", 2, {"body": None}), when="b"), identifier="m", output_type=str)
    run(backend, db, null)
    assert outputs(backend, db, "body", "m") == {1: "A", 2: None, 3: "C"}


def test_another_field_edited_during_the_call_does_not_void_the_output(backend, db, calls):
    create_docs(backend, *"abc")
    edit = model(during(lambda: backend.update("docs", 2, {"n": 7}), when="b"), identifier="m", output_type=str)
    assert run(backend, db, edit).calls == 3
    assert outputs(backend, db, "body", "m") == {1: "A", 2: "B", 3: "C"}
    assert backend.read("docs", 2)["n"] == 7


def test_overwrite_computes_everything_again(backend, db, calls):
    create_docs(backend, *"ab")
    run(backend, db)
    result = run(backend, db, overwrite=True)
    assert (result.written, result.fresh, calls) == (2, 0, ["a", "b", "a", "b"])


def test_a_new_version_computes_everything_again(backend, db):
    create_docs(backend, *"ab")
    run(backend, db, model(lambda body: body.upper(), identifier="m", output_type=str))
    newer = model(lambda body: body * 2, identifier="m", output_type=str)
    assert run(backend, db, newer).written == 2
    assert newer.version == 1
    assert outputs(backend, db, "body", "m") == {1: "aa", 2: "bb"}
    assert run(backend, db, newer).fresh == 2


def test_an_older_version_does_not_overwrite_a_newer(backend, db):
    create_docs(backend, *"ab")
    older = db.add(model(lambda body: body.upper(), identifier="m", output_type=str))
    run(backend, db, older)
    run(backend, db, model(lambda body: body * 2, identifier="m", output_type=str))
    assert older.version == 0
    with pytest.raises(Conflict, match="version 1"):
        run(backend, db, older)
    assert len(db.show("model", "m")["versions"]) == 2
    assert outputs(backend, db, "body", "m") == {1: "aa", 2: "bb"}


def test_a_newer_version_that_begins_during_the_call_wins(backend, db):
    create_docs(backend, *"ab")
    newer = model(lambda body: body * 2, identifier="m", output_type=str)

    def begin():
        beside.submit(run, backend, db, newer)
        wait_until(lambda: db.outputs()[0].version == 1)

    with ThreadPoolExecutor() as beside, pytest.raises(Conflict, match="version 1"):
        run(backend, db, model(during(begin, when="a"), identifier="m", output_type=str))
    assert outputs(backend, db, "body", "m") == {1: "aa", 2: "bb"}


def test_two_models_and_two_inputs_keep_outputs_apart(backend, db):
    create_docs(backend, "a b")
    run(backend, db)
    run(backend, db, model(len, identifier="length", output_type=int))
    model(lambda n: n + 1, identifier="shout", output_type=int)
    assert outputs(backend, db, "body", "shout") == {1: "A B"}
    assert outputs(backend, db, "body", "length") == {1: 3}


def test_the_output_of_one_model_is_the_input_of_another(backend, db):
    create_docs(backend, *"ab")
    run(backend, db, output="loud")
    twice = model(lambda loud: loud * 2, identifier="twice", output_type=str)
    twice.predict(X="loud", db=db, select=backend.query("docs"))
    assert outputs(backend, db, "loud", "twice") == {1: "AA", 2: "BB"}
    backend.update("docs", 1, {"body": "z"})
    run(backend, db, output="loud")
    assert twice.predict(X="loud", db=db, select=backend.query("docs")).written == 1
    assert outputs(backend, db, "loud", "twice") == {1: "ZZ", 2: "BB"}


@pytest.mark.parametrize(
    ("kind", "value", "seen"),
    [
        (Vector(2), [1, 2], "ndarray"),
        (dict, {"a": 1}, "dict"),
        (bool, True, "bool"),
        (bytes, b"x", "bytes"),
        (datetime, datetime(2026, 1, 1), "datetime"),
        (Datetime(timezone=True), datetime(2026, 1, 1, tzinfo=UTC), "datetime"),
    ],
    ids=str,
)
def test_an_output_reaches_the_next_model_as_the_type_it_has(backend, db, kind, value, seen):
    create_docs(backend, "a")
    run(backend, db, model(lambda body: value, identifier="first", output_type=kind), output="first")
    look = model(lambda found: note(found) is None or type(found).__name__, identifier="second", output_type=str)
    look.predict(X="first", db=db, select=backend.query("docs"), output="second")
    assert backend.read("docs", 1)["second"] == seen
    assert look.predict(X="first", db=db, select=backend.query("docs"), output="second").fresh == 1
