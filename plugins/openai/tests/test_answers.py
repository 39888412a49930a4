"""Responses that are no answers, over rows: single ones, in runs and at the end; predictions, listeners, batches.

And requests that are in flight when all ends.
"""

from __future__ import annotations

import os
import signal
import threading

import pytest
import sqlalchemy as sa

from pinnacle import Listener, ParameterRefused, ProviderRefused, pinnacle
from pinnacle.ext.llm import OpenAI, OpenAIEmbedding
from pinnacle.llm import sending
from pinnacle.runtime import flight
from pinnacle.testing import FakeOpenAI, Refuse, unit_vector
from pinnacle.testing.answers import question
from tests.contract.documents import wait_until
from tests.llms import new_key

PLACES, ATTEMPTS, TRIES = 4, 2, 3
ROWS = 48
BAD = {3, 11, 16, 17, 18, 19, 20, 21, 22, 41, 43, 44, 45, 46, 47, 48}
"""Single rows, more neighbours than there are places, and the end of the table."""

SAYS = {
    "no content": ({"content": None}, "no text"),
    "error inside": ({"body": {"error": {"message": "8192 tokens at most", "code": 400}}}, "8192 tokens at most"),
    "half, then an error": ({"content": "The summ", "finish_reason": "error", "error": {"message": "died"}}, "died"),
    "a refusal": ({"content": None, "refusal": "not this"}, "not this"),
    "negative counts": ({"content": "ok", "usage": {"prompt_tokens": -5}}, "cannot be"),
}
ONCE = {
    "cut": ({"content": "Half of", "finish_reason": "length"}, "limit of tokens"),
    "400": ({"status": 400}, "not today"),
    "too large": ({"status": 429, "message": "Request too large: Limit 30, Requested 44"}, "Request too large"),
}
ALONE = {"500": ({"status": 500}, "not today")}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.002)


@pytest.fixture
def docs(tmp_path):
    """A database with a table of texts, some of which are bad."""
    with pinnacle(f"sqlite:///{tmp_path / 'user.db'}") as db:
        db.docs = sa.Table(
            "docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text)
        )
        db.docs.create(db.engine)
        yield db


def fill(db, bad=BAD, rows=ROWS):
    with db.engine.begin() as connection:
        texts = [f"{'bad' if number in bad else 'row'} {number}" for number in range(1, rows + 1)]
        connection.execute(sa.insert(db.docs), [{"body": text} for text in texts])


def column(db, name="out"):
    with db.engine.connect() as connection:
        return dict(connection.exec_driver_sql(f"SELECT id, {name} FROM docs").all())


def provider(say):
    def answer(request):
        if not question(request).startswith("bad"):
            return "fine"
        said = dict(say)
        if "body" in said or "status" in said:
            raise Refuse(said.get("status", 200), said.get("message", "not today"), body=said.get("body"))
        return said

    return answer


def llm(server, **options):
    options = {"retry_delay_s": 0, "max_attempts": ATTEMPTS, "max_tries": TRIES, "cost": (1.0, 10.0), **options}
    return OpenAI("llm", base_url=server.url, api_key=new_key(), max_batch_size=PLACES, **options)


def asked(server):
    """Requests for each bad row."""
    texts = [question(request.body) for request in server.requests]
    return {text: texts.count(text) for text in texts if text.startswith("bad")}


def predict(db, model, **options):
    return model.predict(X="body", db=db, select=sa.select(db.docs), output="out", progress=False, **options)


def check(db, told):
    """Every sound row is right, and every bad one is set aside with the provider's words."""
    assert column(db) == {n: None if n in BAD else "fine" for n in range(1, ROWS + 1)}
    aside = {error.key: error.message for error in db.errors()}
    assert set(aside) == BAD
    assert [message for message in aside.values() if told not in message] == []


@pytest.mark.parametrize(
    ("kind", "most"),
    [*((kind, ATTEMPTS) for kind in SAYS), *((kind, 1) for kind in ONCE), *((kind, TRIES + 2) for kind in ALONE)],
)
def test_bad_rows_are_set_aside_wherever_they_are_and_all_others_are_right(docs, kind, most):
    say, told = {**SAYS, **ONCE, **ALONE}[kind]
    fill(docs)
    with FakeOpenAI(provider(say)) as server:
        result = predict(docs, llm(server))
        check(docs, told)
        assert (result.written, result.failed, result.changed, result.pending) == (ROWS - len(BAD), len(BAD), 0, 0)
        requests = asked(server)
        assert set(requests.values()) <= set(range(1, most + 1))
        assert {error.attempts for error in docs.errors()} <= set(requests.values())
        (used,) = docs.usage()
        assert used.calls == result.requests == server.received
        if kind in SAYS:
            assert used.failed == sum(requests.values()) == ATTEMPTS * len(BAD)
            assert used.cost >= used.calls  # each of them is billed


@pytest.mark.parametrize("kind", ["no content", "500"])
def test_a_listener_sets_bad_rows_aside_and_keeps_all_others(docs, kind):
    say, told = {**SAYS, **ONCE, **ALONE}[kind]
    with FakeOpenAI(provider(say)) as server:
        docs.add(Listener(model=llm(server), key="body", select=sa.select(docs.docs), output="out"))
        docs.listen()
        fill(docs)
        docs.drain(60)
        check(docs, told)
        assert max(asked(server).values()) <= TRIES + 2


def test_a_first_row_that_meets_no_answer_does_not_keep_the_others_from_being_asked(docs):
    """Nothing was answered before, and one is asked at a time: it looks like an outage, and another row tells."""
    fill(docs, bad={1}, rows=6)
    with FakeOpenAI(provider({"status": 500})) as server:
        model = OpenAI("llm", base_url=server.url, api_key=new_key(), max_batch_size=1)
        assert (predict(docs, model).written, [error.key for error in docs.errors()]) == (5, [1])


# -- what is kept for another time ---------------------------------------------------------------------------


def test_what_was_no_answer_is_asked_for_again_and_what_was_one_is_not(docs):
    fill(docs)
    with FakeOpenAI(provider({"content": "Half", "finish_reason": "error"})) as server:
        model = llm(server)
        predict(docs, model)
    with FakeOpenAI("fine") as server:
        model = OpenAI("llm", base_url=server.url, api_key=new_key())
        with docs.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE docs SET out = NULL")
        docs.retry_errors(model)
        predict(docs, model)
        assert set(column(docs).values()) == {"fine"}
        assert {question(request.body) for request in server.requests} >= {f"bad {n}" for n in BAD}


def test_cut_answers_that_are_kept_are_counted_and_not_kept_for_another_time(docs):
    fill(docs, bad={1, 2, 3}, rows=5)
    with FakeOpenAI(provider({"content": "Half of", "finish_reason": "length"})) as server:
        model = llm(server, on_length="keep")
        result = predict(docs, model)
        assert (result.written, result.failed, result.cut) == (5, 0, 3)
        assert "3 cut at the limit of tokens" in str(result)
        assert column(docs) == {1: "Half of", 2: "Half of", 3: "Half of", 4: "fine", 5: "fine"}
        with docs.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE docs SET out = NULL WHERE id IN (1, 4)")
        again = predict(docs, model)
        assert (again.written, again.cut, again.cached, server.received) == (2, 1, 1, 6)


# -- parameters ----------------------------------------------------------------------------------------------


def no_temperature(request):
    if "temperature" in request:
        raise Refuse(400, "Unsupported value.", param="temperature", code="unsupported_value")
    return "fine"


def test_a_parameter_that_is_refused_for_the_first_rows_stops_the_prediction(docs):
    fill(docs, bad=(), rows=300)
    with FakeOpenAI(no_temperature) as server:
        model = llm(server)
        with pytest.raises(ParameterRefused, match=r"Unsupported value.*'temperature'"):
            predict(docs, model, temperature=0)
        assert server.received < 60
        assert len(docs.errors()) < sending.FIRST_ROWS
        assert predict(docs, model).written == 300
        assert docs.errors() == []


def test_a_parameter_that_is_refused_later_is_the_rows_own(docs):
    """As where it comes from a field of the row."""
    fill(docs)

    def answer(request):
        if request["user"].startswith("bad"):
            raise Refuse(400, "Invalid user.", param="user")
        return "fine"

    with FakeOpenAI(answer) as server:
        model = llm(server)
        X = {"input": "body", "user": "body"}  # noqa: N806
        model.predict(X=X, db=docs, select=sa.select(docs.docs), output="out", progress=False)
        check(docs, "Invalid user")


# -- batches of texts ----------------------------------------------------------------------------------------


def embedder(server, **options):
    return OpenAIEmbedding(
        "embedder", base_url=server.url, api_key=new_key(), dimensions=8, retry_delay_s=0, max_tries=TRIES, **options
    )


def spoil(status):
    def embed(text, dimensions):
        if text.startswith("bad"):
            raise Refuse(status, "not today")
        return unit_vector(text, dimensions)

    return embed


def check_vectors(db, told):
    stored, aside = column(db), {error.key: error.message for error in db.errors()}
    assert {n for n, vector in stored.items() if vector is None} == set(aside) == BAD
    assert [message for message in aside.values() if told not in message] == []


@pytest.mark.parametrize("status", [200, 400, 500])
def test_texts_that_spoil_their_batch_are_found_and_all_others_are_embedded(docs, status):
    fill(docs)
    with FakeOpenAI(embed=spoil(status)) as server:
        result = predict(docs, embedder(server, batch_size=32))
        check_vectors(docs, "not today")
        assert (result.written, result.failed, result.changed) == (ROWS - len(BAD), len(BAD), 0)
        (used,) = docs.usage()
        assert used.calls == server.received


def test_one_text_of_a_table_that_spoils_its_only_batch_is_found(docs):
    fill(docs, bad={7}, rows=20)
    with FakeOpenAI(embed=spoil(500)) as server:
        assert predict(docs, embedder(server)).written == 19
        assert [error.key for error in docs.errors()] == [7]
        assert server.received < 40


def test_one_text_that_spoils_its_batch_is_alone_after_two_rounds():
    with FakeOpenAI(embed=spoil(400)) as server:
        model = embedder(server, batch_size=64)
        sound = [f"row {n}" for n in range(63)]
        model.embed([*sound, "row 63"])
        with pytest.raises(ProviderRefused, match="not today"):
            model.embed([*sound[:30], "bad 30", *sound[30:]])
        model.embed([*sound, "row 63"])  # a refusal of one text teaches nothing about how many are taken
        sizes = [len(request.body["input"]) for request in server.requests]
        assert (sizes[:2], sorted(sizes[2:-1]), sizes[-1]) == ([64, 64], [1] * 8 + [8] * 8, 64)


def test_one_text_whose_batch_is_always_too_fast_is_found_by_parts(docs):
    fill(docs, bad={7}, rows=200)
    with FakeOpenAI(embed=spoil(429)) as server:
        assert predict(docs, embedder(server, batch_size=8)).written == 199
        assert [error.key for error in docs.errors()] == [7]
        assert server.refused < 5 * sending.THROTTLED_TRIES


def test_a_listener_finds_the_texts_that_spoil_their_batch(docs):
    with FakeOpenAI(embed=spoil(500)) as server:
        docs.add(Listener(model=embedder(server), key="body", select=sa.select(docs.docs), output="out"))
        docs.listen()
        fill(docs)
        docs.drain(60)
        check_vectors(docs, "not today")


def test_the_largest_batch_that_a_provider_takes_is_learned_and_kept_to(docs):
    fill(docs, bad=(), rows=200)
    with FakeOpenAI(max_inputs=32) as server:
        model = embedder(server, batch_size=100, max_batch_size=1)
        assert predict(docs, model).written == 200
        sizes = [len(request.body["input"]) for request in server.requests]
        assert sizes == [100, 32, 32, 32, 4, 32, 32, 32, 4]
        assert docs.errors() == []
        assert len(model.embed([f"text {n}" for n in range(40)])) == 40
        assert [len(request.body["input"]) for request in server.requests][len(sizes) :] == [32, 8]


def test_a_list_of_texts_of_which_one_is_bad_raises_its_error():
    with FakeOpenAI(embed=spoil(400)) as server, pytest.raises(Exception, match="not today"):
        embedder(server).embed(["a", "bad", "c"])


def interrupted(db, model, until):
    """A prediction that Ctrl-C ends then."""

    def interrupt():
        until()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        predict(db, model)
    thread.join()


def stopped(db, model, until):
    """A listener that is stopped then."""
    db.add(Listener(model=model, key="body", select=sa.select(db.docs), output="out"))
    db.listen()
    until()
    db.stop()


@pytest.mark.parametrize("end", [interrupted, stopped])
def test_texts_that_are_being_embedded_at_the_end_are_cut_off_and_booked(docs, end, monkeypatch):
    monkeypatch.setattr(flight, "CLOSE_S", 0.01)
    fill(docs, bad={3, 6}, rows=8)

    def until():
        wait_until(lambda: server.received == 8 and server.in_flight == 2)
        wait_until(lambda: len([vector for vector in column(docs).values() if vector is not None]) == 6)

    with FakeOpenAI(latency_s=lambda request: 3600.0 if request["input"][0].startswith("bad") else 0.0) as server:
        end(docs, embedder(server, batch_size=1, max_batch_size=8), until)
        (booked,) = docs.usage()
        assert (booked.calls, booked.failed, server.received, docs.errors()) == (8, 2, 8, [])


@pytest.mark.parametrize("end", [interrupted, stopped])
def test_requests_that_are_in_flight_at_the_end_are_booked(docs, end, monkeypatch):
    monkeypatch.setattr(flight, "CLOSE_S", 600.0)
    fill(docs)

    def until():
        wait_until(lambda: server.received == ROWS and server.in_flight == len(BAD))
        wait_until(lambda: list(column(docs).values()).count("fine") == ROWS - len(BAD))

    with FakeOpenAI("fine", latency_s=lambda request: 3600.0 if question(request).startswith("bad") else 0.0) as server:
        model = llm(server)
        model.max_batch_size = model.concurrency = ROWS
        end(docs, model, until)
        (booked,) = docs.usage()
        assert (booked.calls, booked.failed, server.received) == (ROWS, len(BAD), ROWS)
        assert booked.input_tokens == 2 * (ROWS - len(BAD))
        assert docs.errors() == []
