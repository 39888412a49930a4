"""What X may name: a field, a path into JSON or a document, several fields, fields by argument; and what models get."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pinnacle import ConfigError, Conflict, UnknownField, UnsupportedQuery, UnsupportedTable, model
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs, has, outputs
from tests.models import CALLS, note, shout

pytestmark = pytest.mark.same_standalone


def seen(**options):
    """A model that records the arguments of each call."""

    def function(*values, **named):
        note((*values, named) if named else values)
        return len(CALLS)

    return model(function, identifier="seen", output_type=int, **options)


def run(backend, db, X, the_model=None, **options):  # noqa: N803
    return (the_model or seen()).predict(X=X, db=db, select=backend.query("docs"), **options)


def test_one_field_is_the_one_argument(backend, db, calls):
    create_docs(backend, "a", "b")
    run(backend, db, "body")
    assert calls == [("a",), ("b",)]
    assert outputs(backend, db, "body", "seen") == {1: 1, 2: 2}


def test_several_fields_are_positional_arguments_in_order(backend, db, calls):
    create_docs(backend, "a", "b")
    run(backend, db, ("n", "body"))
    assert calls == [(0, "a"), (1, "b")]
    assert outputs(backend, db, ("n", "body"), "seen") == {1: 1, 2: 2}
    assert run(backend, db, ("n", "body")).fresh == 2


@pytest.mark.anywhere
def test_a_tuple_of_one_field_is_one_argument(backend, db, calls):
    create_docs(backend, "a")
    run(backend, db, ("body",))
    assert calls == [("a",)]


def test_a_dict_names_arguments_and_input_is_the_first(backend, db, calls):
    create_docs(backend, "a", "b")
    run(backend, db, {"place": "n", "input": "body"})
    assert calls == [("a", {"place": 0}), ("b", {"place": 1})]
    assert outputs(backend, db, {"place": "n", "input": "body"}, "seen") == {1: 1, 2: 2}


@pytest.mark.anywhere
@pytest.mark.parametrize(("X", "call"), [({"input": "body"}, ("a",)), ({"body": "body"}, ({"body": "a"},))])
def test_a_dict_of_one_field_works(backend, db, calls, X, call):  # noqa: N803
    create_docs(backend, "a", None)
    result = run(backend, db, X)
    assert (calls, result.empty) == ([call], 1)
    assert outputs(backend, db, X, "seen") == {1: 1, 2: None}


@pytest.mark.anywhere
def test_other_keywords_go_to_every_call(backend, db, calls):
    create_docs(backend, "a", "b")
    run(backend, db, "body", tone="low", times=2)
    assert calls == [("a", {"tone": "low", "times": 2}), ("b", {"tone": "low", "times": 2})]


def test_a_row_with_one_null_input_of_several_gets_null_and_no_call(backend, db, calls):
    create_docs(backend, "a", None)
    assert run(backend, db, ("body", "n")).empty == 1
    assert calls == [("a", 0)]
    assert outputs(backend, db, ("body", "n"), "seen") == {1: 1, 2: None}


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("X", "items"),
    [
        ("body", ["a", "b"]),
        (("body", "n"), [("a", 0), ("b", 1)]),
        ({"input": "body", "k": "n"}, [{"input": "a", "k": 0}, {"input": "b", "k": 1}]),
    ],
)
def test_a_batch_model_gets_values_tuples_or_dicts(backend, db, calls, X, items):  # noqa: N803
    create_docs(backend, "a", "b")
    run(
        backend,
        db,
        X,
        model(lambda batch: note([0] * 0 + list(batch)) and [1, 2], identifier="seen", output_type=int, batch=True),
    )
    assert list(map(list, calls)) == [[tuple(item) if isinstance(item, tuple) else item for item in items]]


def test_a_dotted_path_reads_inside_json(backend, db, calls):
    backend.create("docs", {"body": str, "meta": dict})
    rows = [{"title": "a", "tags": ["x", {"deep": "y"}]}, {"title": None}, {"tags": []}, {"title": "a", "other": 1}]
    backend.insert("docs", *({"body": "", "meta": row} for row in rows))
    result = run(backend, db, "meta.title")
    assert (calls, result.empty, result.deduplicated) == ([("a",)], 2, 1)
    assert outputs(backend, db, "meta.title", "seen") == {1: 1, 2: None, 3: None, 4: 1}
    calls.clear()
    run(backend, db, "meta.tags.1.deep", seen())
    assert calls == [("y",)]


def test_a_change_beside_the_path_costs_nothing(backend, db, calls):
    backend.create("docs", {"meta": dict})
    backend.insert("docs", {"meta": {"title": "a", "views": 1}})
    run(backend, db, "meta.title")
    backend.update("docs", 1, {"meta": {"title": "a", "views": 2}})
    assert run(backend, db, "meta.title").fresh == 1
    backend.update("docs", 1, {"meta": {"title": "b", "views": 2}})
    assert run(backend, db, "meta.title").written == 1
    assert calls == [("a",), ("b",)]


INPUTS = {
    str: ["", "grüße 🎈", "x" * 70_000],
    int: [0, -1, 2**63 - 1],
    float: [0.0, 1.5, -1e300],
    bool: [True, False],
    bytes: [b"", b"\x00\xff"],
    dict: [{}, {"a": [1, None, {"b": "ü"}]}],
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_reach_the_model_as_python_values(backend, db, calls, kind):
    backend.create("docs", {"value": kind})
    backend.insert("docs", *({"value": value} for value in INPUTS[kind]))
    run(backend, db, "value")
    assert calls == [(value,) for value in INPUTS[kind]]
    assert {type(call[0]) for call in calls} == {kind}
    assert run(backend, db, "value").fresh == len(INPUTS[kind])


def test_datetimes_reach_the_model_as_datetimes(backend, db, calls):
    backend.create("docs", {"value": datetime})
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    backend.insert("docs", {"value": moment})
    run(backend, db, "value")
    assert calls[0][0].replace(tzinfo=UTC) == moment or calls[0][0] == moment


def test_an_unknown_field_is_refused_with_near_names_before_anything_is_written(backend, db, calls):
    create_docs(backend, "a")
    before = backend.read_all("docs")
    with pytest.raises(UnknownField, match="'body'") as caught:
        run(backend, db, "bdoy")
    assert (caught.value.field, caught.value.near) == ("bdoy", ["body"])
    assert (calls, backend.read_all("docs"), db.outputs()) == ([], before, [])


@pytest.mark.parametrize("X", ["body.title", "nothing.at.all", "n.", ".n", "body..x"])
def test_a_path_that_leads_nowhere_is_refused(backend, db, calls, X):  # noqa: N803
    create_docs(backend, "a")
    with pytest.raises(UnknownField):
        run(backend, db, X)
    assert calls == []


@pytest.mark.anywhere
@pytest.mark.parametrize("X", [(), {}, "", 7, ("body", 7), {1: "body"}, {"input": 3}], ids=repr)
def test_an_x_that_names_no_field_is_refused(backend, db, X):  # noqa: N803
    create_docs(backend, "a")
    with pytest.raises(ConfigError):
        run(backend, db, X)


@pytest.mark.anywhere
@pytest.mark.parametrize("missing", ["X", "select"])
def test_a_predict_without_fields_or_rows_is_refused(backend, db, missing):
    create_docs(backend, "a")
    given = {"X": "body", "select": backend.query("docs"), missing: None}
    with pytest.raises(ConfigError, match="X="):
        shout.predict(db=db, **given)


def test_a_query_of_another_database_is_refused(backend, db):
    create_docs(backend, "a")
    from sqlalchemy import text

    other = text("SELECT 1") if has(backend, Capability.DOCUMENTS) else Collection("docs").find()
    with pytest.raises(UnsupportedQuery):
        shout.predict(X="body", db=db, select=other)


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "option",
    [
        {"limit": 0},
        {"limit": True},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"on_error": "ignore"},
        {"output": ""},
        {"output": 3},
    ],
    ids=str,
)
def test_an_option_out_of_range_is_refused_before_any_call(backend, db, calls, option):
    create_docs(backend, "a")
    with pytest.raises(ConfigError):
        run(backend, db, "body", **option)
    assert (calls, db.outputs()) == ([], [])


def test_an_output_over_its_own_input_is_refused(backend, db, calls):
    create_docs(backend, "a")
    with pytest.raises((ConfigError, Conflict), match="input"):
        shout.predict(X="body", db=db, select=backend.query("docs"), output="body")
    assert (calls, backend.read("docs", 1)["body"]) == ([], "a")


def test_an_output_over_the_key_is_refused(backend, db):
    create_docs(backend, "a")
    key = "_id" if has(backend, Capability.DOCUMENTS) else "id"
    with pytest.raises((ConfigError, UnsupportedTable)):
        shout.predict(X="body", db=db, select=backend.query("docs"), output=key)


def test_an_output_that_belongs_to_another_model_is_refused(backend, db):
    create_docs(backend, "a")
    run(backend, db, "body", shout, output="shared")
    with pytest.raises(Exception, match="shout"):
        run(backend, db, "body", model(lambda body: "x", identifier="other", output_type=str), output="shared")
    assert backend.read("docs", 1)["shared"] == "A"
