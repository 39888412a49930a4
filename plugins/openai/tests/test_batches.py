"""``mode="batch"``: rows by the provider's Batch API, submitted once, collected by whoever asks next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import sqlalchemy as sa

import pinnacle
from pinnacle.ext.llm import OpenAI
from pinnacle.testing import FakeOpenAI, Refuse

docs = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))


def answer(request):
    text = request["messages"][-1]["content"]
    if text.startswith("bad"):
        raise Refuse(400, "no bad words")
    return text.upper()


@pytest.fixture
def server():
    with FakeOpenAI(answer=answer, batch_polls=1) as server:
        yield server


@pytest.fixture
def engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/app.db")
    docs.create(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def db(engine):
    with pinnacle.pinnacle(str(engine.url)) as db:
        yield db


def insert(engine, *bodies):
    with engine.begin() as connection:
        connection.execute(sa.insert(docs), [{"body": body} for body in bodies])


def run(server, db, **options):
    model = OpenAI(base_url=server.url, api_key="env:KEY_OF_TESTS", cost=(1e-6, 2e-6))
    return db.predict(model, "body", sa.select(docs), output="said", mode="batch", **options)


def said(engine):
    with engine.connect() as connection:
        return dict(connection.execute(sa.text("SELECT id, said FROM docs ORDER BY id")).all())


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY_OF_TESTS", "sk-of-tests")


def until_collected(server, db, **options):
    results = [run(server, db, **options)]
    while results[-1].pending:
        results.append(run(server, db, **options))
        assert len(results) < 20
    return results


def chat_calls(server):
    return [received for received in server.requests if received.path.endswith("/chat/completions")]


def batches_made(server):
    return [received for received in server.requests if received.path.endswith("/batches") and received.body]


def test_rows_are_submitted_then_collected(server, engine, db):
    insert(engine, "one", "two", None, "one")
    first, *_, last = until_collected(server, db)
    assert (first.pending, first.written, first.empty) == (3, 1, 1)
    assert (last.read, last.written, last.fresh) == (4, 3, 1)
    assert said(engine) == {1: "ONE", 2: "TWO", 3: None, 4: "ONE"}
    assert (last.written, len(batches_made(server)), chat_calls(server)) == (3, 1, [])
    again = run(server, db)
    assert (again.fresh, again.pending, len(batches_made(server))) == (4, 0, 1)


def test_a_batch_costs_half_and_is_booked(server, engine, db):
    insert(engine, "one two", "three")
    until_collected(server, db)
    (row,) = db.usage()
    assert (row.input_tokens, row.output_tokens) == (3, 3)
    assert row.cost == pytest.approx((3 * 1e-6 + 3 * 2e-6) / 2, abs=1e-12)


def test_another_process_collects_what_was_submitted(server, engine, db):
    insert(engine, "one", "two")
    run(server, db)
    with pinnacle.pinnacle(str(engine.url)) as other:
        until_collected(server, other)
    assert (said(engine), len(batches_made(server))) == ({1: "ONE", 2: "TWO"}, 1)


def test_errors_are_the_rows_own(server, engine, db):
    insert(engine, "one", "bad", "two")
    last = until_collected(server, db)[-1]
    assert (last.failed, last.set_aside) == (1, 0)
    assert said(engine) == {1: "ONE", 2: None, 3: "TWO"}
    (error,) = db.errors()
    assert (error.key, error.error) == (2, "ProviderRefused")
    assert "no bad words" in error.message


def test_a_row_that_changed_meanwhile_is_asked_for_again(server, engine, db):
    insert(engine, "one", "two")
    run(server, db)
    with engine.begin() as connection:
        connection.execute(sa.update(docs).where(docs.c.id == 1).values(body="newer"))
    until_collected(server, db)
    assert (said(engine), len(batches_made(server))) == ({1: "NEWER", 2: "TWO"}, 2)


def test_new_rows_go_in_a_batch_of_their_own(server, engine, db):
    insert(engine, "one")
    run(server, db)
    insert(engine, "two")
    run(server, db)
    until_collected(server, db)
    assert (said(engine), len(batches_made(server))) == ({1: "ONE", 2: "TWO"}, 2)


def test_a_crash_after_submitting_loses_no_batch(server, engine, db, monkeypatch):
    """The process dies between the provider's answer and the record of it."""
    insert(engine, "one", "two")
    submit = OpenAI.submit_batch

    def dies(self, requests, token):
        submit(self, requests, token)
        raise KeyboardInterrupt

    monkeypatch.setattr(OpenAI, "submit_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        run(server, db)
    monkeypatch.undo()
    monkeypatch.setenv("KEY_OF_TESTS", "sk-of-tests")
    until_collected(server, db)
    assert (said(engine), len(batches_made(server))) == ({1: "ONE", 2: "TWO"}, 1)


def test_a_crash_before_submitting_submits_again(server, engine, db, monkeypatch):
    insert(engine, "one")

    def dies(self, requests, token):
        raise KeyboardInterrupt

    monkeypatch.setattr(OpenAI, "submit_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        run(server, db)
    monkeypatch.undo()
    monkeypatch.setenv("KEY_OF_TESTS", "sk-of-tests")
    until_collected(server, db)
    assert (said(engine), len(batches_made(server))) == ({1: "ONE"}, 1)


@pytest.mark.parametrize("options", [{"listen": True}, {"dry_run": True}, {"budget": 1.0}])
def test_what_does_not_go_with_batches_is_refused(server, engine, db, options):
    insert(engine, "one")
    with pytest.raises(pinnacle.ConfigError, match="batch"):
        run(server, db, **options)
    assert batches_made(server) == []


def test_an_answer_that_was_paid_for_is_not_submitted_again(server, engine, db):
    insert(engine, "one", "two")
    model = OpenAI(base_url=server.url, api_key="env:KEY_OF_TESTS", cost=(1e-6, 2e-6))
    model.predict(X="body", db=db, select=sa.select(docs), output="said")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE docs SET said = NULL WHERE id = 1"))
    result = run(server, db)
    assert (result.written, result.cached, result.pending, batches_made(server)) == (1, 1, 0, [])


def test_a_live_run_beside_a_batch_is_refused(server, engine, db):
    insert(engine, "one")
    run(server, db)
    model = OpenAI(base_url=server.url, api_key="env:KEY_OF_TESTS", cost=(1e-6, 2e-6))
    with pytest.raises(pinnacle.Conflict, match="batch"):
        model.predict(X="body", db=db, select=sa.select(docs), output="said")
    until_collected(server, db)
    assert (said(engine), chat_calls(server)) == ({1: "ONE"}, [])


def test_line_ends_within_an_answer_end_no_line(engine, db):
    with FakeOpenAI(answer=lambda request: "a\u2028b\u0085c\n" + request["messages"][-1]["content"]) as server:
        insert(engine, "one")
        until_collected(server, db)
    assert said(engine) == {1: "a\u2028b\u0085c\none"}


def test_a_service_that_is_down_is_told_as_such(engine, db):
    with FakeOpenAI() as server:
        insert(engine, "one")
        server.go_down()
        with pytest.raises(pinnacle.ProviderUnavailable):
            run(server, db)
        server.come_up()
        until_collected(server, db)
    assert said(engine) == {1: "eno"}


def test_fields_of_a_batch_go_to_one_column(server, engine, db):
    insert(engine, "one")
    with pytest.raises(pinnacle.ConfigError, match="batch"):
        db.predict(
            OpenAI(base_url=server.url, output_schema={"type": "object", "properties": {"a": {"type": "string"}}}),
            "body", sa.select(docs), output={"a": "a"}, mode="batch",
        )  # fmt: skip


def test_a_line_that_met_a_busy_server_is_asked_for_again(engine, db):
    refusals = iter([503])

    def answer(request):
        if request["messages"][-1]["content"] == "two" and (status := next(refusals, None)):
            raise Refuse(status, "overloaded")
        return request["messages"][-1]["content"].upper()

    with FakeOpenAI(answer) as server:
        insert(engine, "one", "two")
        until_collected(server, db)
        assert (said(engine), db.errors(), len(batches_made(server))) == ({1: "ONE", 2: "TWO"}, [], 2)


def test_a_line_that_cannot_be_read_costs_its_row_alone(engine, db):
    def cut(results):
        """Ten lines: one is cut, two are no line of any batch, one is no UTF-8, and one has an answer twice."""
        lines = results.splitlines()
        spoilt = [lines[0][:90], b"garbage \xff", b"[]", lines[1].replace(b'"role"', b'"\xff"'), *lines[4:], lines[4]]
        return b"\n".join(spoilt)

    with FakeOpenAI(answer, batch_results=cut) as server:
        insert(engine, *(f"text {number}" for number in range(10)))
        until_collected(server, db)
        assert len(batches_made(server)) == 1
    found = said(engine)
    assert {key for key, value in found.items() if value == f"TEXT {key - 1}"} == {1, 2, 3, 4, 5, 6}
    assert {error.key: error.error for error in db.errors()} == dict.fromkeys((7, 8, 9, 10), "NoAnswer")
    assert sorted(error.message for error in db.errors())[0].startswith("the line of its answer")
    assert sorted(error.message for error in db.errors())[-1].startswith("the results of the provider's batch")


def test_an_answer_that_the_database_refuses_is_its_rows_error(server, engine, db):
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE docs ADD COLUMN said TEXT CHECK (said <> 'TWO')"))
    insert(engine, "one", "two", "three")
    until_collected(server, db)
    assert said(engine) == {1: "ONE", 2: None, 3: "THREE"}
    assert [(error.key, error.error) for error in db.errors()] == [(2, "RowRejected")]
    assert (len(batches_made(server)), db.usage()[0].input_tokens) == (1, 3)


def test_what_is_no_answer_is_its_rows_error_and_billed(engine, db):
    with FakeOpenAI(lambda request: "" if request["messages"][-1]["content"] == "two" else "fine") as server:
        insert(engine, "one", "two")
        until_collected(server, db)
        assert len(batches_made(server)) == 1
    assert said(engine) == {1: "fine", 2: None}
    assert [(error.key, error.error) for error in db.errors()] == [(2, "NoAnswer")]
    assert db.usage()[0].input_tokens == 2


def test_an_error_that_is_raised_is_raised_when_all_is_kept(server, engine, db):
    insert(engine, "bad", "one", "two")
    with pytest.raises(pinnacle.ModelError, match="no bad words"):
        until_collected(server, db, on_error="raise")
    assert said(engine) == {1: None, 2: "ONE", 3: "TWO"}
    assert (db.usage()[0].input_tokens, [error.key for error in db.errors()]) == (2, [1])
    with pytest.raises(pinnacle.ModelError, match="1 row was set aside"):
        run(server, db, on_error="raise")
    assert (run(server, db).set_aside, run(server, db).failed) == (1, 0)


@pytest.mark.parametrize("other", [{"system_prompt": "Shout."}, {"temperature": 0.5}], ids=["version", "keywords"])
def test_a_batch_of_another_version_is_booked_and_its_answers_are_not_used(server, engine, db, other):
    def run_as(**fields):
        keywords = {name: fields.pop(name) for name in ("temperature",) if name in fields}
        model = OpenAI(base_url=server.url, api_key="env:KEY_OF_TESTS", cost=(1e-6, 2e-6), **fields)
        return db.predict(model, "body", sa.select(docs), output="said", mode="batch", **keywords)

    insert(engine, "one two three")
    assert run_as().pending == 1
    results = [run_as(**other)]
    while results[-1].pending:
        results.append(run_as(**other))
        assert len(results) < 20
    assert (said(engine), len(batches_made(server))) == ({1: "ONE TWO THREE"}, 2)
    (row,) = db.usage()
    assert (row.calls, row.output_tokens, row.input_tokens >= 6) == (2, 6, True)
    live = OpenAI(base_url=server.url, api_key="env:KEY_OF_TESTS", cost=(1e-6, 2e-6))
    assert live.predict("x") == "X"


def test_a_live_run_of_another_version_goes_on_beside_a_batch(server, engine, db):
    insert(engine, "one")
    run(server, db)
    model = OpenAI(base_url=server.url, api_key="env:KEY_OF_TESTS", cost=(1e-6, 2e-6), system_prompt="Shout.")
    assert model.predict(X="body", db=db, select=sa.select(docs), output="said").written == 1


COLLECT = """
import sys
import sqlalchemy as sa
import pinnacle
from pinnacle.ext.llm import OpenAI

docs = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))
with pinnacle.pinnacle(sys.argv[1]) as db:
    model = OpenAI(base_url=sys.argv[2], api_key="env:KEY_OF_TESTS", cost=(1e-6, 2e-6))
    while db.predict(model, "body", sa.select(docs), output="said", mode="batch").pending:
        pass
"""


@pytest.mark.parametrize("point", ["after-write", "in-book"])
def test_the_bill_outlives_a_crash_between_collecting_and_booking(server, engine, db, point):
    insert(engine, "one two", "three")
    run(server, db)
    killed = subprocess.run(
        [sys.executable, "-c", COLLECT, str(engine.url), server.url],
        env={**os.environ, "PINNACLE_FAILPOINTS": f"{point}:1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    until_collected(server, db)
    (row,) = db.usage()
    assert (row.calls, row.input_tokens, row.output_tokens) == (1, 3, 3)
    assert (said(engine), len(batches_made(server))) == ({1: "ONE TWO", 2: "THREE"}, 1)


def test_a_batch_that_stands_twice_on_record_is_booked_once(server, engine, db, monkeypatch):
    """The process dies between the record of the provider's id and the end of that of the token."""
    insert(engine, "one two", "three")
    ledger = db._backend.ledger
    with monkeypatch.context() as dying:
        dying.setattr(type(ledger), "delete_batch", lambda self, batch: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(server, db)
    until_collected(server, db)
    (row,) = db.usage()
    assert (row.calls, row.input_tokens, len(batches_made(server))) == (1, 3, 1)
