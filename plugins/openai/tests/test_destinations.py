"""A key goes where this process says, whatever the database says: seen at the socket of another server."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa

from pinnacle import AccountRefused, ConfigError, Listener, ModelUnavailable, ProviderRefused, pinnacle
from pinnacle.base.settings import Settings
from pinnacle.ext.llm import OpenAI, OpenAIEmbedding
from pinnacle.testing import FakeOpenAI

KEY = "sk-the-key-of-this-process-0815"
docs = sa.table("docs", sa.column("id"), sa.column("body"))


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("PINNACLE_SECRET_FILE", "off")  # definitions are not signed: what follows holds all the same
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "OWN_KEY"):
        monkeypatch.setenv(name, KEY)


@pytest.fixture
def meant():
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def thief():
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def url(tmp_path):
    with sqlite3.connect(tmp_path / "user.db") as connection:
        connection.execute("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)")
        connection.execute("INSERT INTO docs (body) VALUES ('one')")
    connection.close()
    return f"sqlite:///{tmp_path / 'user.db'}"


def tamper(url, **fields):
    """What somebody does who may write pinnacle's tables."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
        for key, stored in raw.execute("SELECT rowid, body FROM pinnacle_component WHERE kind = 'model'").fetchall():
            body = json.loads(stored)
            body["fields"].update(fields)
            raw.execute("UPDATE pinnacle_component SET body = ? WHERE rowid = ?", (json.dumps(body), key))
    raw.close()


def sent_to(server) -> str:
    return "".join(f"{request.headers} {request.query} {request.body}" for request in server.requests)


def stored_and_changed(url, model, **fields):
    with pinnacle(url) as db:
        db.add(model)
    tamper(url, **fields)
    return pinnacle(url)


WAYS = {
    "the usual key": {},
    "a key by name": {"api_key": "env:OWN_KEY"},
    "a header": {"client_kwargs": {"default_headers": {"X-Gateway-Token": "env:OWN_KEY"}}},
    "a query": {"client_kwargs": {"default_query": {"sig": "env:OWN_KEY"}}},
    "an extra header": {"inference_kwargs": {"extra_headers": {"X-Gateway-Token": "env:OWN_KEY"}}},
    "an extra query": {"inference_kwargs": {"extra_query": {"sig": "env:OWN_KEY"}}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_changed_address_gets_no_key_by_any_way(url, meant, thief, way, monkeypatch):
    # Written in another process: this one has never been told of the place.
    monkeypatch.setattr("pinnacle.base.destinations._said", set())
    model = OpenAI("m", base_url=meant.url, **WAYS[way])
    with stored_and_changed(url, model, base_url=thief.url) as db:
        loaded, told = db.load("model", "m"), ""
        rows = {"X": "body", "db": db, "select": sa.select(docs), "progress": False}
        for ask in (
            lambda: loaded.predict("hello"),
            lambda: loaded.predict(output="out", **rows),
            lambda: loaded.predict(output="b", mode="batch", **rows),
        ):
            try:
                ask()
            except (AccountRefused, ConfigError) as error:
                told += str(error)
    assert KEY not in sent_to(thief)
    if way != "the usual key":  # which a server of one's own may not need
        port = thief.url.split(":")[2].removesuffix("/v1")
        assert told.count(f"set PINNACLE_SECRETS=OWN_KEY@127.0.0.1:{port} in this process") >= 2
        assert thief.received == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": "env:OWN_KEY"}, {"client_kwargs": {"default_headers": {"X-A": "env:OWN_KEY"}}},
        {"client_kwargs": {"default_query": {"a": "env:OWN_KEY"}}}, {"api_version": "2024-10-21"},
        {"inference_kwargs": {"extra_headers": {"X-A": "env:OWN_KEY"}}},
    ],
)  # fmt: skip
def test_no_other_variable_goes_where_one_may(url, meant, fields, monkeypatch):
    settings = Settings(secrets=(f"MEANT@127.0.0.1:{meant.url.split(':')[2].removesuffix('/v1')}",), secret_file="off")
    monkeypatch.setattr("pinnacle.base.destinations._said", set())
    stored_and_changed(url, OpenAI("m", base_url=meant.url), **fields).close()
    with pinnacle(url, settings=settings) as db, contextlib.suppress(AccountRefused, ProviderRefused):
        db.load("model", "m").predict("x")
    assert KEY not in sent_to(meant)


def test_embeddings_send_it_nowhere_else_either(url, meant, thief):
    with (
        stored_and_changed(
            url, OpenAIEmbedding("m", base_url=meant.url, api_key="env:OWN_KEY"), base_url=thief.url
        ) as db,
        pytest.raises(AccountRefused, match="PINNACLE_SECRETS=OWN_KEY@127"),
    ):
        db.load("model", "m").embed("hello")
    assert thief.received == 0


def test_headers_that_the_library_takes_from_the_environment_are_left_out_too(url, meant, thief, monkeypatch):
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Gate: {KEY}")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    OpenAI(base_url=meant.url).predict("x")
    assert meant.requests[-1].headers["x-gate"] == KEY
    with stored_and_changed(url, OpenAI("m", base_url=meant.url), base_url=thief.url) as db:
        loaded = db.load("model", "m")
        loaded.predict("x")
        loaded.submit_batch({"one": ("x", {})}, "token")
    assert thief.received > 1
    assert KEY not in sent_to(thief)
    assert "org-of-mine" not in sent_to(thief)


def test_what_this_process_made_works_here_and_so_does_its_stored_copy(url, meant):
    model = OpenAI("m", base_url=meant.url, api_key="env:OWN_KEY")
    with pinnacle(url) as db:
        db.add(model)
        assert db.load("model", "m").predict("abc") == "cba"
        db.add(Listener(model=model, key="body", select=sa.select(docs), output="out"))
        db.listen()
        db.drain(60)
        assert db.execute("SELECT out FROM docs").all() == [("eno",)]
    assert {request.headers["authorization"] for request in meant.requests} == {f"Bearer {KEY}"}


OWN_MODELS = """
from pinnacle import Model


def connect(key):
    return key


def call(model, prompt):
    return f"{prompt} with {model.client} and {model.args['token']}"


chat = Model.from_function(
    "chat", fn=call, setup_fn=connect, api_key="env:OWN_KEY", args={"token": "env:OWN_TOKEN", "url": "http://a", "n": 1}
)
"""


def test_a_function_gets_its_keys_where_its_module_makes_the_model_and_as_it_does(url, tmp_path, monkeypatch):
    (tmp_path / "own_models_of_tests.py").write_text(OWN_MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OWN_TOKEN", "the-token-of-tests")
    made = importlib.import_module("own_models_of_tests").chat
    with pinnacle(url) as db:
        db.add(made)
        assert db.load("model", "chat").predict("hi") == f"hi with {KEY} and the-token-of-tests"
    for changed in ({"url": "http://evil"}, {"token": "env:OPENAI_API_KEY"}):
        tamper(url, args={**made.args, **changed})
        with pinnacle(url) as db, pytest.raises(AccountRefused, match="@own_models_of_tests:call in this process"):
            db.load("model", "chat").predict("hi")


def test_a_file_that_the_database_names_is_not_read(url, meant, tmp_path, monkeypatch):
    monkeypatch.setattr("pinnacle.base.destinations._said", set())
    for fields in ({"ca_file": "/etc/hostname"}, {"client_certificate": "/etc/hostname"}):
        with stored_and_changed(url, OpenAI("m", base_url=meant.url), **fields) as db:
            loaded = db.load("model", "m")
            port = meant.url.split(":")[2].removesuffix("/v1")
            for ask in (loaded.predict, loaded.find_batch):
                with pytest.raises(ModelUnavailable, match=f"set PINNACLE_SECRETS=/etc/hostname@127.0.0.1:{port} in"):
                    ask("x")
            allowing = Settings(secrets=(f"/etc/hostname@127.0.0.1:{port}",), secret_file="off")
            with pinnacle(url, settings=allowing) as open_db:  # and is asked for now, by plain http
                assert open_db.load("model", "m").http_client().bound is not None
        tamper(url, ca_file=None, client_certificate=None)
    assert meant.received == 0


def test_rows_name_no_secrets(url, meant):
    model = OpenAI("m", base_url=meant.url)
    for name in ("extra_headers", "extra_query"):
        with pinnacle(url) as db, pytest.raises(ConfigError, match=f"{name} of model 'm' is not taken from rows"):
            model.predict(X={"input": "body", name: "body"}, db=db, select=sa.select(docs), output="o", progress=False)
    assert meant.received == 0


WORKER = """
import logging, os, sys, threading
from pinnacle import pinnacle

asked = threading.Event()


class Shown(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        if "PINNACLE_SECRETS" in record.getMessage():
            asked.set()


logging.getLogger("pinnacle").addHandler(Shown())
with pinnacle(sys.argv[1]) as db:
    if "PINNACLE_SECRETS" in os.environ:
        db.listen()
        db.drain(200)
    else:
        db.worker().run(asked)  # what it is about to note of that is noted when it ends
    (listener,) = db.listeners()
    print(listener.last_error, listener.paused, listener.processed)
"""


def work(url, **environment) -> str:
    """What a worker in a process of its own says of its listener when it has worked or failed."""
    made = subprocess.run(
        [sys.executable, "-c", WORKER, url], capture_output=True, text=True, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert made.stdout.partition(": ")[2].strip().removesuffix(" None 0") in made.stderr  # it is logged, too
    return made.stdout + made.stderr


def test_a_worker_in_another_process_asks_for_the_setting_and_works_with_it(url, meant):
    with pinnacle(url) as db:
        model = OpenAI("m", base_url=meant.url, api_key="env:OWN_KEY")
        db.add(Listener(model=model, key="body", select=sa.select(docs), output="out"))
    port = meant.url.split(":")[2].removesuffix("/v1")
    told = work(url)
    assert f"set PINNACLE_SECRETS=OWN_KEY@127.0.0.1:{port} in this process if that is meant" in told
    assert (meant.received, KEY in told) == (0, False)
    work(url, PINNACLE_SECRETS=f"OWN_KEY@127.0.0.1:{port}")
    with pinnacle(url) as db:
        assert db.execute("SELECT out FROM docs").all() == [("eno",)]


def test_a_refusal_for_want_of_the_usual_key_names_the_setting(url, monkeypatch):
    with FakeOpenAI(api_key=KEY) as server, pinnacle(url) as db:
        db.add(OpenAI("m", base_url=server.url))
        monkeypatch.setattr("pinnacle.base.destinations._said", set())
        port = server.url.split(":")[2].removesuffix("/v1")
        loaded = db.load("model", "m")
        for ask in (lambda: loaded.predict("x"), lambda: loaded.find_batch("token")):
            with pytest.raises(AccountRefused, match=f"set PINNACLE_SECRETS=OPENAI_API_KEY@127.0.0.1:{port}"):
                ask()
    assert KEY not in sent_to(server)
