"""An API key appears nowhere: not in the database, not in logs, messages, tracebacks, reprs or copies."""

from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import sqlite3
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from pinnacle_openai import OpenAI, OpenAIEmbedding

from pinnacle import AccountRefused, InvalidAnswer, Listener, ProviderUnavailable, pinnacle
from pinnacle.base.settings import Settings
from pinnacle.testing import FakeOpenAI, Refuse

KEY = "sk-proj-4f9aX7q2LmZ81tRw0bYc"
IMPATIENT = Settings(outage_patience_s=0.2)
docs = sa.table("docs", sa.column("id"), sa.column("body"))


@pytest.fixture(params=["literal", "variable"])
def key(request, monkeypatch) -> str:
    """A key as a user gives it: itself, or the name of the variable that holds it."""
    monkeypatch.setenv("SECRET_TEST_KEY", KEY)
    return KEY if request.param == "literal" else "env:SECRET_TEST_KEY"


@pytest.fixture
def url(tmp_path) -> str:
    with sqlite3.connect(tmp_path / "user.db") as connection:
        connection.execute("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)")
        connection.executemany("INSERT INTO docs (body) VALUES (?)", [("one",), ("two",), ("three",)])
    connection.close()
    return f"sqlite:///{tmp_path / 'user.db'}"


@pytest.fixture
def logs(caplog):
    """Everything that anybody logs, tracebacks included."""
    caplog.set_level(logging.DEBUG)
    for name in ("aiohttp", "aiohttp.client", "openai", "httpx", "asyncio", "pinnacle"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def seen_in(path: Path) -> str:
    """All bytes of the database's files, and all of its tables as text."""
    raw = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    connection = sqlite3.connect(path)
    rows = "\n".join(connection.iterdump())
    connection.close()
    return raw.decode("latin-1") + rows


def told(error: BaseException) -> str:
    """An error as anybody would print it, with what it was raised from."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error) + repr(vars(error))


def echoing(status: int):
    """A service that repeats the key it was given, as some do."""

    def answer(request):
        raise Refuse(status, f"Incorrect API key provided: {KEY}. Find yours at https://example.com.")

    return answer


def test_a_key_is_in_no_row_file_log_or_repr_of_calls_that_succeed(url, tmp_path, key, logs):
    with FakeOpenAI(api_key=KEY) as server, pinnacle(url) as db:
        llm = OpenAI("llm", base_url=server.url, api_key=key)
        embedder = OpenAIEmbedding("emb", base_url=server.url, api_key=key)
        assert llm.predict("abc") == "cba"
        result = llm.predict(X="body", db=db, select=sa.select(docs), output="answer", progress=False)
        assert result.written == 3
        embedder.predict(X="body", db=db, select=sa.select(docs), output="vector", progress=False)
        db.add(Listener(model=llm, key="body", select=sa.select(docs), output="kept"))
        shown = [repr(item) for item in (llm, embedder, db, vars(llm), llm.wire(), result, db.show("model", "llm"))]
        shown = [text for text in shown if text != repr(vars(llm))] if key == KEY else shown
    assert KEY not in "".join(shown)
    assert KEY not in seen_in(tmp_path / "user.db")
    assert KEY not in logs.text


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_a_service_that_repeats_the_key_in_its_message_does_not_bring_it_in(url, tmp_path, key, logs, status):
    with FakeOpenAI(answer=echoing(status)) as server, pinnacle(url, settings=IMPATIENT) as db:
        llm = OpenAI("llm", base_url=server.url, api_key=key, max_tries=2)
        with pytest.raises(Exception, match="Incorrect API key provided") as caught:
            llm.predict("abc")
        raised = told(caught.value)
        try:
            llm.predict(X="body", db=db, select=sa.select(docs), output="answer", progress=False)
        except (AccountRefused, ProviderUnavailable) as error:
            raised += told(error)
        raised += "".join(map(repr, db.errors()))
    assert KEY not in raised
    assert KEY not in seen_in(tmp_path / "user.db")
    assert KEY not in logs.text


SPELLINGS = {
    "url": lambda: quote(KEY, safe=""), "basic": lambda: base64.b64encode(f"user:{KEY}".encode()).decode(),
    "json": lambda: json.dumps({"key": KEY}), "half": lambda: KEY[:20], "bytes": lambda: repr(f"\x00{KEY}".encode()),
    "cut": lambda: "x" * 280 + KEY,
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_service_that_repeats_it_in_another_spelling_does_not_bring_it_in(url, tmp_path, logs, spelling):
    said = SPELLINGS[spelling]()

    def answer(request):
        raise Refuse(400, f"no such key: {said}")

    with FakeOpenAI(answer) as server, pinnacle(url) as db:
        llm = OpenAI("llm", base_url=server.url, api_key=KEY)
        llm.predict(X="body", db=db, select=sa.select(docs), output="answer", progress=False)
        (error, *_) = db.errors()
        told_text = error.message + str(error) + logs.text + seen_in(tmp_path / "user.db")
    assert "no such key: " in error.message
    for piece in (KEY[:14], base64.b64encode(f"user:{KEY}".encode()).decode()[8:24]):
        assert piece not in told_text


def test_an_answer_that_cannot_be_used_is_quoted_without_the_key(key, url):
    with FakeOpenAI(f"I think {KEY}") as server, pinnacle(url) as db:
        llm = OpenAI("llm", base_url=server.url, api_key=key, choices=["a", "b"], max_reasks=0)
        with pytest.raises(InvalidAnswer) as caught:
            llm.predict("x")
        llm.predict(X="body", db=db, select=sa.select(docs), output="answer", progress=False)
        assert KEY not in told(caught.value) + "".join(map(repr, db.errors()))


def test_a_timeout_and_a_dead_server_tell_no_key(url, tmp_path, key, logs):
    with FakeOpenAI(faults={"hang": 1.0}) as server:
        llm = OpenAI("llm", base_url=server.url, api_key=key, timeout_s=0.05, max_tries=1)
        with pytest.raises(Exception, match="no answer") as hung:
            llm.predict("abc")
    gone = OpenAI("gone", base_url=server.url, api_key=key, max_tries=1)
    with pytest.raises(Exception, match="no answer") as dead:
        gone.predict("abc")
    assert KEY not in told(hung.value) + told(dead.value) + logs.text


def test_a_copy_for_another_process_does_not_carry_what_was_made_with_the_key(key):
    with FakeOpenAI(api_key=KEY) as server:
        llm = OpenAI("llm", base_url=server.url, api_key=key)
        llm.predict("abc")
        copied = pickle.dumps(llm)
        assert KEY.encode() not in copied
        assert copy.copy(llm).predict("abc") == copy.deepcopy(llm).predict("abc") == "cba"  # in this process it is kept
        if key != KEY:
            assert pickle.loads(copied).predict("abc") == "cba"
