"""Language models over rows: bills, budgets, estimates, kept answers, context, examples, and spread answers."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pinnacle import ConfigError, Listener, Model, UnknownField
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs, has
from tests.models import PRICE, asking, chat, lengths, moody, places, say, word_count

pytestmark = pytest.mark.same_standalone


def values(backend, column: str):
    return {key: row.get(column) for key, row in backend.read_all("docs").items()}


def run(backend, db, model=chat, **options):
    return model.predict(X="body", db=db, select=backend.query("docs"), output="said", **options)


def test_tokens_and_cost_are_in_the_result_and_in_the_books(backend, db):
    create_docs(backend, "a b", "c", "d e f")
    result = run(backend, db)
    assert (result.requests, result.input_tokens, result.output_tokens) == (3, 6, 6)
    assert result.cost == pytest.approx(6 * PRICE[0] + 6 * PRICE[1], abs=1e-12)
    (row,) = db.usage("chat")
    assert (row.output, row.calls, row.input_tokens, row.output_tokens) == ("docs.said", 3, 6, 6)
    assert row.cost == pytest.approx(result.cost, abs=1e-12)


@pytest.mark.anywhere
def test_models_that_cost_nothing_are_not_booked(backend, db):
    create_docs(backend, "a b")
    run(backend, db, word_count)
    assert db.usage() == []


def test_a_budget_stops_the_run_and_keeps_what_is_done(backend, db, calls):
    create_docs(backend, *(f"text {n}" for n in range(40)))
    of_one = 2 * PRICE[0] + 2 * PRICE[1]
    result = run(backend, db, budget=10 * of_one)
    assert result.budget_reached
    assert result.cost <= (10 + 4) * of_one  # four are in flight
    assert 0 < result.written == len(calls) < 40
    assert sum(value is not None for value in values(backend, "said").values()) == result.written
    rest = run(backend, db)
    assert (rest.written, rest.budget_reached, len(calls)) == (40 - result.written, False, 40)


@pytest.mark.anywhere
@pytest.mark.parametrize("budget", [-1, "much", True, float("nan")])
def test_a_budget_that_is_none_is_refused(backend, db, budget):
    create_docs(backend, "a")
    with pytest.raises(ConfigError, match="budget"):
        run(backend, db, budget=budget)
    assert db.outputs() == []


@pytest.mark.unmigrated
def test_an_estimate_counts_before_the_first_call(backend, db, calls):
    create_docs(backend, "one two", "one two", None, "three")
    estimate = db.estimate(chat, "body", backend.query("docs"), max_tokens=10)
    assert (estimate.rows, estimate.calls, estimate.output_tokens) == (4, 2, 20)
    assert estimate.input_tokens == chat.count_tokens("one two") + chat.count_tokens("three")
    assert estimate.cost == pytest.approx(estimate.input_tokens * PRICE[0] + 20 * PRICE[1])
    assert (calls, db.outputs()) == ([], [])


def test_an_estimate_of_what_is_done_is_nothing(backend, db):
    create_docs(backend, "one two", "three")
    run(backend, db)
    estimate = db.estimate(chat, "body", backend.query("docs"), output="said")
    assert (estimate.rows, estimate.calls, estimate.cost) == (2, 0, 0.0)


def test_an_answer_that_was_paid_for_is_not_asked_for_again(backend, db, calls):
    create_docs(backend, "one", "two")
    run(backend, db)
    backend.update("docs", 1, {"body": "three"})
    run(backend, db)
    backend.update("docs", 1, {"body": "one"})
    result = run(backend, db)
    assert (result.written, result.cached, result.requests) == (1, 1, 0)
    assert (values(backend, "said"), sorted(calls)) == ({1: "ONE", 2: "TWO"}, ["one", "three", "two"])
    again = run(backend, db, overwrite=True)
    assert (again.cached, again.requests) == (0, 2)
    db.clear_cache()
    backend.update("docs", 1, {"body": "three"})
    assert run(backend, db).requests == 1


def test_kept_answers_go_by_the_keywords_and_the_version(backend, db, calls):
    create_docs(backend, "one")
    run(backend, db)
    run(backend, db, temperature=1)
    changed = Model.from_function("chat", fn=say, cost=PRICE, system_prompt="be brief")
    run(backend, db, changed)
    assert len(calls) == 3


def test_a_query_fills_the_context(backend, db, calls):
    create_docs(backend, "one", "two")
    if has(backend, Capability.SQL):
        context = sa.select(backend.entity("docs").c.body).order_by(sa.text("id"))
    else:
        context = Collection("docs").find()
    said = db.predict(asking, "what?", context_select=context, context_key="body")
    assert (said, calls) == ("ONE\nTWO | WHAT?", ["one\ntwo | what?"])
    result = db.predict(
        asking, "body", backend.query("docs"), output="said", context_select=context, context_key="body"
    )
    assert (result.written, values(backend, "said")) == (2, {1: "ONE\nTWO | ONE", 2: "ONE\nTWO | TWO"})


@pytest.mark.requires(Capability.SQL)
def test_an_unknown_context_key_names_those_there_are(backend, db):
    create_docs(backend, "one")
    with pytest.raises(UnknownField, match="body"):
        db.predict(asking, "what?", context_select=backend.query("docs"), context_key="boddy")


@pytest.mark.requires(Capability.SQL)
def test_examples_come_from_a_query(backend, db, calls):
    create_docs(backend, "one", "two")
    table = backend.entity("docs")
    run(backend, db, examples=sa.select(table.c.body, table.c.id).order_by(table.c.id).limit(1))
    assert calls[0][:2] == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}]


@pytest.mark.requires(Capability.DOCUMENTS)
def test_examples_come_from_fields_of_documents(backend, db, calls):
    create_docs(backend, "one", "two")
    asked = Collection("docs").find({"body": "one"})
    run(backend, db, examples=asked, example_keys=("body", "_id"))
    assert calls[0][:2] == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}]


@pytest.mark.anywhere
def test_a_template_that_names_context_needs_it_before_anything_is_written(backend, db):
    create_docs(backend, "one")
    with pytest.raises(ConfigError, match="context"):
        run(backend, db, asking)
    assert (db.show("model"), db.outputs()) == ([], [])


def test_the_fields_of_a_structured_answer_go_to_columns_of_their_own(backend, db, calls):
    create_docs(backend, "paris", "rome")
    spread = {"city": "city", "size": "size", "old": "is_old"}
    result = places.predict(X="body", db=db, select=backend.query("docs"), output=spread)
    assert (result.written, len(calls)) == (2, 2)
    rows = backend.read_all("docs")
    assert [(row["city"], row["size"], bool(row["is_old"])) for row in rows.values()] == [
        ("Paris", 3, True), ("Rome", 3, True),
    ]  # fmt: skip
    again = places.predict(X="body", db=db, select=backend.query("docs"), output=spread)
    assert (again.fresh, len(calls)) == (2, 2)


def test_a_dry_run_counts_the_values_in_the_way_of_all_fields_of_an_answer(backend, db, calls):
    backend.create("docs", {"body": str, "city": str, "size": int})
    backend.insert(
        "docs", {"body": "paris", "city": "by hand", "size": 3}, {"body": "rome", "city": "by hand", "size": None}
    )
    spread = {"city": "city", "size": "size", "old": "is_old"}
    tried = places.predict(X="body", db=db, select=backend.query("docs"), output=spread, dry_run=True)
    assert (tried.computed, tried.foreign, calls, db.outputs()) == (2, 3, [], [])
    with pytest.raises(ConfigError, match="goes with predict"):
        db.plan(places, "body", backend.query("docs"), output=spread)
    with pytest.raises(ConfigError, match=r"docs\.city holds 2 values that pinnacle did not write"):
        places.predict(X="body", db=db, select=backend.query("docs"), output=spread)
    assert calls == []


@pytest.mark.anywhere
def test_a_field_that_the_schema_lacks_is_refused(backend, db, calls):
    create_docs(backend, "paris")
    with pytest.raises(ConfigError, match="'town'"):
        places.predict(X="body", db=db, select=backend.query("docs"), output={"town": "town"})
    with pytest.raises(ConfigError, match="output_schema"):
        chat.predict(X="body", db=db, select=backend.query("docs"), output={"city": "city"})
    assert (calls, db.outputs()) == ([], [])


@pytest.mark.parametrize("spread", [{"city": "c", "size": "c"}, {"city": "c", "size": "x" * 64}])
def test_columns_of_an_answer_that_would_meet_or_have_no_name_are_refused_before_the_first_call(
    backend, db, calls, spread
):
    create_docs(backend, "paris")
    with pytest.raises(ConfigError, match=r"'city' and for 'size'|too long"):
        places.predict(X="body", db=db, select=backend.query("docs"), output=spread)
    assert (calls, db.outputs()) == ([], [])


def test_a_listener_books_what_it_spends(backend, db):
    create_docs(backend, "a b", "c")
    db.add(Listener(model=chat, key="body", select=backend.query("docs"), output="said"))
    db.listen()
    db.drain()
    assert values(backend, "said") == {1: "A B", 2: "C"}
    assert [(row.output, row.input_tokens) for row in db.usage("chat")] == [("docs.said", 3)]


def test_models_are_listed_by_purpose(db):
    db.add(Model.from_function("chat", fn=say, description="says it again"))
    db.add(word_count)
    assert [(m.id, m.description, m.type) for m in db.models(purpose="GENERIC_COMPLETION")] == [
        ("chat", "says it again", "FunctionLLM")
    ]
    assert [m.id for m in db.models()] == ["chat", "word_count"]
    assert db.models(purpose="RERANKING") == []
    with pytest.raises(ConfigError, match="TEXT_EMBEDDING_EXTRACTION"):
        db.models(purpose="POETRY")


@pytest.mark.anywhere
def test_a_model_without_batches_says_so(backend, db):
    create_docs(backend, "one")
    with pytest.raises(ConfigError, match="batch"):
        run(backend, db, mode="batch")


def test_asking_for_the_size_of_vectors_makes_no_new_version(backend, db):
    create_docs(backend, "one", "three")
    db.add(lengths)
    first = lengths.predict(X="body", db=db, select=backend.query("docs"), output="vector")
    again = lengths.predict(X="body", db=db, select=backend.query("docs"), output="vector")
    assert (first.written, again.fresh, lengths.version) == (2, 2, 0)


def test_a_model_made_of_a_function_loads_by_its_module(backend, db):
    db.add(chat)
    with backend.open() as other:
        loaded = other.load("model", "chat")
        assert (loaded.predict("hi"), loaded.fn, loaded.cost) == ("HI", say, PRICE)


def test_changed_terms_of_a_provider_are_stored_and_compute_nothing_again(backend, db):
    create_docs(backend, "one", "two")
    run(backend, db)
    cheaper = Model.from_function("chat", fn=say, cost=(1e-7, 2e-7), rate_limit=(100, 1), max_batch_size=2)
    assert (db.add(cheaper).version, run(backend, db, cheaper).fresh) == (0, 2)
    loaded = db.load("model", "chat")
    assert (loaded.cost, loaded.rate_limit, loaded.max_batch_size) == ((1e-7, 2e-7), (100, 1.0), 2)


@pytest.mark.anywhere
def test_a_budget_waits_for_calls_in_flight_before_it_stops(backend, db, calls):
    """Each call may cost 100 tokens by its limit, and costs 2: the budget covers few at once, and all in the end."""
    create_docs(backend, *(f"text {n}" for n in range(30)))
    result = run(backend, db, budget=30 * 6e-6 + 2.1 * 100 * PRICE[1], max_tokens=100)
    assert (result.budget_reached, result.written, len(calls)) == (False, 30, 30)


@pytest.mark.anywhere
def test_a_budget_that_is_just_enough_is_enough(backend, db, calls):
    create_docs(backend, *(f"text {n}" for n in range(10)))
    result = run(backend, db, budget=10 * (2 * PRICE[0] + 2 * PRICE[1]))
    assert (result.budget_reached, result.written) == (False, 10)


@pytest.mark.anywhere
def test_a_budget_without_a_price_is_refused(backend, db, calls):
    create_docs(backend, "one")
    with pytest.raises(ConfigError, match="cost="):
        run(backend, db, asking, budget=1.0, context="x")
    assert (calls, db.outputs()) == ([], [])


def test_rows_that_a_budget_left_are_counted(backend, db):
    create_docs(backend, *(f"text {n}" for n in range(40)))
    result = run(backend, db, budget=5 * 6e-6)
    assert result.budget_reached
    assert result.read == result.written + result.pending > result.written > 0


@pytest.mark.anywhere
@pytest.mark.parametrize("wrong", [{"context": 5}, {"examples": [["a"]]}, {"examples": "a"}])
def test_keywords_that_cannot_work_are_refused_before_anything_is_written(backend, db, calls, wrong):
    create_docs(backend, "one")
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        asking.predict(X="body", db=db, select=backend.query("docs"), **{"context": "x", **wrong})
    assert (calls, db.outputs(), db.show("model")) == ([], [], [])


@pytest.mark.anywhere
def test_a_keyword_that_prompt_func_needs_is_asked_for_before_anything_is_written(backend, db, calls):
    create_docs(backend, "one")
    model = Model.from_function("translating", fn=say, prompt_func=lambda text, lang: f"{lang}: {text}")
    with pytest.raises(ConfigError, match="lang"):
        run(backend, db, model)
    assert (calls, db.outputs()) == ([], [])


def test_one_input_that_never_meets_an_answer_is_set_aside_and_the_others_finish(backend, db):
    create_docs(backend, "one", "silent", "three")
    model = Model.from_function("moody", fn=moody, max_tries=2)
    result = run(backend, db, model)
    assert (result.written, result.failed) == (2, 1)
    assert values(backend, "said") == {1: "ONE", 2: None, 3: "THREE"}
    (error,) = db.errors()
    assert error.key == 2
    assert "no answer" in error.message


@pytest.mark.anywhere
def test_an_embedder_reads_one_field(backend, db, calls):
    create_docs(backend, "one")
    with pytest.raises(ConfigError, match="one field"):
        lengths.predict(X=("body", "n"), db=db, select=backend.query("docs"), output="vector")
    assert db.outputs() == []
    assert lengths.predict(X={"input": "body"}, db=db, select=backend.query("docs"), output="vector").written == 1


@pytest.mark.requires(Capability.DOCUMENTS)
def test_a_misspelt_context_key_of_documents_is_told(backend, db, calls):
    create_docs(backend, "one")
    with pytest.raises(UnknownField, match="body"):
        db.predict(asking, "what?", context_select=Collection("docs").find(), context_key="bodi")
    assert calls == []


def test_a_listener_sets_one_input_aside_that_never_meets_an_answer(backend, db):
    create_docs(backend, "one", "silent", "three")
    model = Model.from_function("moody", fn=moody, max_tries=2)
    db.add(Listener(model=model, key="body", select=backend.query("docs"), output="said"))
    db.listen()
    db.drain()
    assert values(backend, "said") == {1: "ONE", 2: None, 3: "THREE"}
    assert [error.key for error in db.errors()] == [2]
