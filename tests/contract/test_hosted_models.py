"""Models behind interfaces over rows: vectors, outages, errors of one item, and what makes a new version."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pinnacle import ConfigError, ProviderUnavailable, Vector
from pinnacle.testing import unit_vector
from tests.contract.documents import blank, create_docs, outputs, snapshot
from tests.llms import DIMENSIONS, DOWN_AFTER, Local, embedder, llm, person, reply

pytestmark = pytest.mark.same_standalone

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["name", "age"]}


def local(**options):
    return Local("local", **options)


def run(backend, db, model, X="body", **options):  # noqa: N803
    return model.predict(X=X, db=db, select=backend.query("docs"), **options)


# -- outputs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [reply, None], ids=["sync", "async"])
def test_a_functions_answers_become_outputs(backend, db, calls, fn):
    create_docs(backend, "one", None, "two words")
    model = llm(fn=fn, cost=(1.0, 10.0)) if fn else llm(cost=(1.0, 10.0))
    result = run(backend, db, model)
    assert outputs(backend, db, "body", model) == {1: "ONE", 2: None, 3: "TWO WORDS"}
    assert (result.written, result.empty, result.requests) == (3, 1, 2)
    assert (result.input_tokens, result.output_tokens, result.cost) == (3, 3, 33.0)
    assert sorted(calls) == ["one", "two words"]


def test_embeddings_are_stored_as_vectors(backend, db, calls):
    bodies = ["one", "two words", "three", "four", "five"]
    create_docs(backend, *bodies)
    model = embedder(batch_size=2)
    assert run(backend, db, model).written == 5
    stored = outputs(backend, db, "body", model)
    for key, body in enumerate(bodies, start=1):
        np.testing.assert_allclose(stored[key], unit_vector(body, DIMENSIONS), rtol=1e-6)
    (info,) = db.outputs()
    assert info.type == Vector(DIMENSIONS)
    assert sorted(map(len, calls)) == [1, 1, 2, 2]  # one of them asked for the vectors' size


@pytest.mark.parametrize("make", [llm, embedder])
def test_the_second_run_asks_for_nothing_whoever_holds_the_model(backend, db, calls, make):
    create_docs(backend, "one", "two")
    model = make()
    run(backend, db, model)
    calls.clear()
    for again in (model, make(), db.load("model", model.identifier)):
        result = run(backend, db, again)
        assert (result.fresh, result.written, again.version) == (2, 0, 0)
    assert [call for call in calls if call != ("size",)] == []


@pytest.mark.parametrize("make", [llm, local])
def test_fields_of_a_row_fill_a_template_by_name(backend, db, make):
    create_docs(backend, "one", "two")
    model = make(prompt_template="{input} of {number} {tone}")
    run(backend, db, model, {"input": "body", "number": "n"}, output="answer", tone="x")
    assert [row["answer"] for row in backend.read_all("docs").values()] == ["ONE OF 0 X", "TWO OF 1 X"]


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("make", "X"),
    [(llm, ("body", "n")), (llm, {"input": "body", "other": "n"}), (local, ("body", "n")), (local, "body")],
)
def test_a_template_that_nothing_fills_is_refused_before_anything_is_written(backend, db, make, X):  # noqa: N803
    create_docs(backend, "one")
    before = snapshot(backend)
    with pytest.raises(ConfigError, match=r"number|X as a dict"):
        run(backend, db, make(prompt_template="{input} {number}"), X)
    assert snapshot(backend) == before


def test_the_context_may_be_a_field_of_the_row(backend, db):
    create_docs(backend, "one")
    run(backend, db, llm(prompt_template="{context}: {input}"), {"input": "n", "context": "body"}, output="answer")
    assert backend.read("docs", 1)["answer"] == "ONE: 0"


def test_answers_with_a_schema_are_stored_as_json_and_those_that_do_not_fit_are_errors(backend, db, calls):
    create_docs(backend, "Ada", "bad", "Bob")
    model = llm(fn=person, output_schema=PERSON, max_reasks=1)
    result = run(backend, db, model)
    stored = outputs(backend, db, "body", model)
    assert stored[2] == blank(backend)
    assert as_json(stored[1]) == {"name": "Ada", "age": 7}
    assert (result.written, result.failed, len(calls)) == (2, 1, 4)
    (error,) = db.errors()
    assert (error.key, error.error, error.attempts) == (2, "InvalidAnswer", 1)


def as_json(value):
    return json.loads(value) if isinstance(value, str) else dict(value)


# -- errors of one item --------------------------------------------------------------------------------------


def test_a_row_that_fails_is_set_aside_and_its_neighbours_finish(backend, db, calls):
    create_docs(backend, "one", "bad", "two")
    result = run(backend, db, llm(max_attempts=2))
    assert (result.written, result.failed, calls.count("bad")) == (2, 1, 2)
    assert outputs(backend, db, "body", "replies") == {1: "ONE", 2: blank(backend), 3: "TWO"}


def test_one_text_that_is_too_long_costs_its_batch_no_further_call(backend, db, calls):
    create_docs(backend, "one", "x" * 100, "two")
    result = run(backend, db, embedder(context_window=5, dimensions=DIMENSIONS))
    assert (result.written, result.failed, len(calls)) == (2, 1, 1)
    (error,) = db.errors()
    assert (error.key, error.error, error.attempts) == (2, "ContextOverflow", 1)


# -- outages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [llm, embedder])
def test_an_outage_leaves_rows_pending_and_the_same_call_finishes_them(backend, db, impatient, outage, make):
    bodies = [f"text {number}" for number in range(20)]
    create_docs(backend, *bodies)
    model = make(max_tries=1, **({"dimensions": DIMENSIONS} if make is embedder else {}))
    outage.append(True)
    with pytest.raises(ProviderUnavailable, match=r"0\.2 s"):
        run(backend, impatient, model)
    assert set(map(str, outputs(backend, db, "body", model).values())) == {str(blank(backend))}
    assert db.errors() == []
    outage.clear()
    assert run(backend, db, model).written == 20
    assert db.errors() == []


def test_an_outage_in_the_middle_blames_no_row_and_pays_for_nothing_twice(backend, db, impatient, outage, calls):
    bodies = [f"text {number}" for number in range(20)]
    create_docs(backend, *bodies)
    DOWN_AFTER.append(5)
    model = llm(max_tries=1, max_batch_size=2)
    with pytest.raises(ProviderUnavailable):
        run(backend, impatient, model)
    done = {key for key, text in outputs(backend, db, "body", model).items() if text != blank(backend)}
    assert (len(done), db.errors()) == (5, [])
    outage.clear()
    answered = {bodies[key - 1] for key in done}
    calls.clear()
    assert run(backend, db, model).written == 15
    assert answered.isdisjoint(calls)
    assert outputs(backend, db, "body", model) == {n: body.upper() for n, body in enumerate(bodies, start=1)}


# -- versions --------------------------------------------------------------------------------------------------


@pytest.mark.anywhere
@pytest.mark.parametrize("make", [llm, embedder])
def test_how_a_model_is_run_may_change_without_a_new_version(backend, db, calls, make):
    create_docs(backend, "one", "two")
    size = {"dimensions": DIMENSIONS} if make is embedder else {}
    run(backend, db, make(**size))
    calls.clear()
    changed = {
        "rate_limit": (100, 1.0), "max_batch_size": 3, "cost": (1e-6, 2e-6), "batch_size": 7, "timeout_s": 5.0,
        "max_tries": 2, "description": "for tests", "max_attempts": 5,
    }  # fmt: skip
    model = make(**size, **changed)
    result = run(backend, db, model)
    assert (result.fresh, result.written, model.version, calls) == (2, 0, 0, [])
    loaded = db.load("model", model.identifier)
    assert {name: plain(getattr(loaded, name)) for name in changed} == {n: plain(v) for n, v in changed.items()}


def plain(value):
    return list(value) if isinstance(value, (tuple, list)) else value


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "change",
    [{"prompt_template": "Say {input}"}, {"inference_kwargs": {"seed": 1}, "system_prompt": "S", "args": {"a": 1}}],
)
def test_what_a_model_is_asked_may_not_change_without_one(backend, db, calls, change):
    create_docs(backend, "one", "two")
    run(backend, db, llm(fn=shown))
    calls.clear()
    model = llm(fn=shown, **change)
    assert (run(backend, db, model).written, model.version) == (2, 1)
    assert len(calls) == 2


def shown(model, prompt, **parameters):
    from tests.models import note

    return f"{note(str(prompt))} {parameters}"
