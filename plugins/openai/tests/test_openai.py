"""OpenAI and OpenAIEmbedding against a fake server: addresses, keys, what is sent, what comes back, what it costs."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from urllib.parse import urlsplit

import openai as library
import pydantic
import pytest
import sqlalchemy as sa

from pinnacle import AccountRefused, ConfigError, MissingPlugin, Model, ProviderRefused, Usage, pinnacle
from pinnacle.ext.llm import OpenAI, OpenAIEmbedding
from pinnacle.testing import FakeOpenAI, Refuse
from pinnacle.testing.answers import question

KEY = "sk-do-not-tell"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def server():
    with FakeOpenAI() as running:
        yield running


@pytest.fixture
def surroundings(server, monkeypatch):
    """The environment as a user sets it."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return server


def body(server, number=-1):
    return server.requests[number].body


def at(server, **options):
    return OpenAI(**{"base_url": server.url, "api_key": "any", "retry_delay_s": 0, **options})


def embedder(server, **options):
    return OpenAIEmbedding(**{"base_url": server.url, "api_key": "any", "retry_delay_s": 0, **options})


# -- what a user does, as written ----------------------------------------------------------------------------


def test_the_default_asks_gpt_at_the_address_and_with_the_key_of_the_environment(surroundings):
    assert OpenAI().predict("1+1=") == "=1+1"
    assert body(surroundings) == {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "1+1="}]}
    assert surroundings.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert surroundings.requests[-1].path == "/v1/chat/completions"


def test_any_model_name_is_sent_as_it_is_and_nothing_is_looked_up_first(surroundings):
    for name in ("gpt-4", "mistralai/Mistral-7B-Instruct-v0.2", "my own: model", "ñ"):
        assert OpenAI(model_name=name).predict("1+1=") == "=1+1"
        assert body(surroundings)["model"] == name
    assert {request.path for request in surroundings.requests} == {"/v1/chat/completions"}


def test_openai_api_base_is_the_address(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    llm = OpenAI(openai_api_base=server.url, model_name="mistralai/Mistral-7B-Instruct-v0.2")
    assert llm.identifier == "mistralai-Mistral-7B-Instruct-v0.2"
    assert llm.predict("abc") == "cba"


def test_a_prompt_template_and_a_prompt_function_make_the_prompt(surroundings):
    template = "Translate the sentence into Chinese: {input}"
    OpenAI(model_name="gpt-3.5-turbo", prompt_template=template).predict("Hello")
    assert question(body(surroundings)) == "Translate the sentence into Chinese: Hello"
    function = OpenAI(
        model_name="gpt-3.5-turbo", prompt_func=lambda x, lang: f"Translate the sentence into {lang}: {x}"
    )
    function.predict("Hello", lang="Japanese")
    assert question(body(surroundings)) == "Translate the sentence into Japanese: Hello"
    assert "lang" not in body(surroundings)


def test_inference_kwargs_and_those_of_predict_are_both_sent_and_predicts_win(surroundings):
    llm = OpenAI(model_name="gpt-3.5-turbo", inference_kwargs={"temperature": 0.7})
    llm.predict("Hello", seed=1)
    assert (body(surroundings)["temperature"], body(surroundings)["seed"]) == (0.7, 1)
    llm.predict("Hello", temperature=0)
    assert body(surroundings)["temperature"] == 0


def test_inference_kwargs_are_in_the_catalog(tmp_path):
    with pinnacle(f"sqlite:///{tmp_path / 'a.db'}") as db:
        db.add(OpenAI(inference_kwargs={"temperature": 0.7}))
        assert db.load("model", "gpt-3.5-turbo").inference_kwargs == {"temperature": 0.7}
        assert db.add(OpenAI(inference_kwargs={"temperature": 0.8})).version == 1


def test_a_dialog_is_sent_as_it_is(server):
    dialog = [{"role": "system", "content": "S"}, {"role": "user", "content": "abc"}]
    assert at(server).predict(dialog) == "cba"
    assert body(server)["messages"] == dialog
    assert at(server).predict([dialog, dialog]) == ["cba", "cba"]


@pytest.mark.parametrize("text", ["", "Grüße \U0001f600", "nul \x00", "half a pair: \ud83d", "{input}", "\\n \" '"])
def test_any_text_arrives_as_it_is(text):
    with FakeOpenAI("fine") as server:
        assert at(server).predict(text) == "fine"
        assert question(body(server)) == text


@pytest.mark.parametrize("word", ["model", "messages", "stream"])
def test_what_is_made_of_other_fields_cannot_be_set_as_a_keyword(server, word):
    with pytest.raises(ConfigError, match=f"cannot set '{word}'"):
        at(server, inference_kwargs={word: True})
    with pytest.raises(ConfigError, match=f"cannot set '{word}'"):
        at(server).predict("x", **{word: True})
    assert server.received == 0


# -- addresses and keys ----------------------------------------------------------------------------------


def test_an_address_in_the_call_goes_before_the_environments(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert at(server).predict("abc") == "cba"


def test_two_addresses_that_differ_are_refused():
    with pytest.raises(ConfigError, match="one thing by two names"):
        OpenAI(base_url="http://a", openai_api_base="http://b")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "", "/v1"])
@pytest.mark.parametrize("cls", [OpenAI, OpenAIEmbedding])
def test_what_is_no_address_is_refused_at_construction(cls, url):
    with pytest.raises(ConfigError, match="base_url is the address of a service"):
        cls(base_url=url)


def test_a_missing_key_is_told_naming_its_variable(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for ask in (OpenAI().predict, OpenAIEmbedding().embed):
        with pytest.raises(AccountRefused, match="OPENAI_API_KEY"):
            ask("x")


def test_a_key_that_is_corrected_is_used_from_then_on(monkeypatch):
    with FakeOpenAI(api_key=KEY) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        llm = OpenAI(base_url=server.url)
        with pytest.raises(AccountRefused, match="Incorrect API key"):
            llm.predict("abc")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert llm.predict("abc") == "cba"


def test_the_librarys_own_options_are_honoured(server):
    llm = at(server, client_kwargs={"organization": "org-1", "default_headers": {"X-Mine": "yes"}})
    llm.predict("x")
    headers = server.requests[-1].headers
    assert (headers["openai-organization"], headers["x-mine"]) == ("org-1", "yes")


def test_a_key_among_the_librarys_options_is_refused_for_it_would_be_stored():
    with pytest.raises(ConfigError, match="client_kwargs holds api_key") as caught:
        OpenAI(client_kwargs={"api_key": KEY})
    assert KEY not in str(caught.value)


def test_the_same_is_sent_as_the_library_sends(server):
    at(server).predict("abc", temperature=0.5)
    with library.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        messages = [{"role": "user", "content": "abc"}]
        client.chat.completions.create(model="gpt-3.5-turbo", messages=messages, temperature=0.5)
    ours, theirs = server.requests
    assert (ours.path, ours.body) == (theirs.path, theirs.body)
    for name in ("authorization", "content-type", "accept"):
        assert ours.headers[name] == theirs.headers[name]


# -- from_url --------------------------------------------------------------------------------------------


def test_a_url_gives_the_provider_the_variable_of_the_key_the_address_and_the_model(monkeypatch):
    url = "openai+https://{OPENROUTER_KEY}@openrouter.ai/api/v1;model=google/gemini-2.0-flash"
    llm = Model.from_url(url, "llm")
    assert (llm.identifier, llm.base_url, llm.model_name, llm.api_key) == (
        "llm", "https://openrouter.ai/api/v1", "google/gemini-2.0-flash", "env:OPENROUTER_KEY",
    )  # fmt: skip
    assert Model.from_url(url).identifier == "google-gemini-2.0-flash"
    assert Model.from_url(url, "llm", cost=1e-6, max_batch_size=3).max_batch_size == 3


def test_a_model_of_a_url_is_asked_with_the_key_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    llm = Model.from_url(f"openai+{server.url.replace('http://', 'http://{MY_KEY}@')};model=m", "llm")
    assert llm.predict("abc") == "cba"
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("url", "base_url", "key"),
    [
        ("openai+http://localhost:8000/v1;model=m", "http://localhost:8000/v1", None),
        ("openai+http://{K}@[::1]:8000/v1;model=m", "http://[::1]:8000/v1", "env:K"),
        ("openai+https://{K}@example.org;model=m", "https://example.org", "env:K"),
        ("openai+https://sk-1@example.org/v1;model=m", "https://example.org/v1", "sk-1"),
        ("openai+https://sk%2F1%40%3A@example.org/v1;model=m", "https://example.org/v1", "sk/1@:"),
        ("openai+https://example.org/a%20b;model=m=1", "https://example.org/a%20b", None),
    ],
)
def test_a_url_may_have_a_port_an_ipv6_address_and_a_percent_encoded_key(url, base_url, key):
    llm = Model.from_url(url, "llm")
    assert (llm.base_url, llm.api_key) == (base_url, key)


@pytest.mark.parametrize(
    "url",
    [
        f"https://{KEY}@example.org/v1;model=m", f"openai+https://{KEY}@example.org/v1",
        f"openai+https://{KEY}@example.org/v1;model=", f"openai+https://{KEY}@example.org/v1;modell=m",
        f"openai+https://{KEY}@example.org:port/v1;model=m", f"openai+https://{KEY}@[::1/v1;model=m",
        f"openai+ftp://{KEY}@example.org/v1;model=m", f"openai+https://{KEY}@;model=m",
        f"openai+https://{KEY}/more@example.org/v1;model=m", f"openai+https://{KEY}?x@example.org/v1;model=m",
        f"openai+https://{KEY}#x@example.org/v1;model=m", f"openai+https://{KEY}@example.org/v1?a=b;model=m",
        f"openai+https://Bearer {{{KEY}}}@example.org/v1;model=m", f"openai+https://{KEY}@ex\u2100mple.org/v1;model=m",
        f"openai+https://{KEY}@example.org:99999/v1;model=m", "", KEY, None,
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_read_is_refused_without_repeating_its_key(url):
    with pytest.raises(ConfigError, match="a model's URL is provider") as caught:
        Model.from_url(url, "llm")
    assert KEY not in "".join(traceback.format_exception(caught.value)).replace(f"url = {url!r}", "")


def test_a_url_of_another_provider_names_what_to_install():
    with pytest.raises(MissingPlugin, match="pip install 'pinnacle-gemini'"):
        Model.from_url("gemini+https://{K}@example.org;model=m", "llm")


# -- schemas -----------------------------------------------------------------------------------------------


class City(pydantic.BaseModel):
    name: str
    people: int


OSLO = {"name": "Oslo", "people": 700_000}


def test_a_schema_is_sent_as_response_format_and_not_in_the_prompt():
    with FakeOpenAI(json.dumps(OSLO)) as server:
        assert at(server, output_schema=City).predict("Oslo?") == OSLO
        sent = body(server)
    assert sent["response_format"]["type"] == "json_schema"
    assert sent["response_format"]["json_schema"]["schema"] == City.model_json_schema()
    assert sent["messages"] == [{"role": "user", "content": "Oslo?"}]


def test_choices_are_sent_as_a_schema_and_give_the_choice():
    with FakeOpenAI('{"choice": "ham"}') as server:
        assert at(server, choices=["spam", "ham"]).predict("x") == "ham"
        schema = body(server)["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["choice"]["enum"] == ["spam", "ham"]


def no_formats(request):
    if "response_format" in request:
        raise Refuse(400, "'response_format' of type 'json_schema' is not supported with this model.")
    return json.dumps(OSLO)


def test_a_server_that_takes_no_schema_is_told_in_words_from_then_on():
    with FakeOpenAI(no_formats) as server:
        llm = at(server, output_schema=City)
        assert llm.predict("Oslo?") == OSLO
        assert [("response_format" in request.body) for request in server.requests] == [True, False]
        assert "JSON Schema" in json.dumps(body(server)["messages"])
        assert llm.predict(["a", "b"]) == [OSLO, OSLO]
        assert server.received == 4


def test_each_of_its_requests_is_counted_and_waits_for_its_time():
    with FakeOpenAI(no_formats) as server:
        llm = at(server, output_schema=City, rate_limit=(4, 0.5), max_batch_size=4)
        assert llm.predict(["a"] * 4) == [OSLO] * 4
        assert llm.spent.total.calls == server.received == 8
        first, *_, last = (request.at for request in server.requests)
        assert last - first > 0.45


def test_another_400_is_not_taken_for_it():
    def refuse(request):
        raise Refuse(400, "the prompt is too long")

    with FakeOpenAI(refuse) as server:
        with pytest.raises(ProviderRefused, match="too long"):
            at(server, output_schema=City).predict("x")
        assert server.received == 1


def test_an_answer_that_does_not_fit_is_asked_for_again_in_the_same_dialog():
    with FakeOpenAI(["no", json.dumps(OSLO)]) as server:
        assert at(server, output_schema=City).predict("Oslo?") == OSLO
        assert [message["role"] for message in body(server)["messages"]] == ["user", "assistant", "user"]
        assert "response_format" in body(server)


# -- money -------------------------------------------------------------------------------------------------


def test_tokens_are_those_that_the_service_counted(server):
    llm = at(server, cost=(1.0, 10.0))
    llm.predict("one two three")
    assert llm.spent.total == Usage(calls=1, input_tokens=3, output_tokens=3, cost=33.0)


def test_the_names_of_openais_own_service_have_listed_prices():
    price = OpenAI(model_name="gpt-3.5-turbo", api_key="any").price
    assert (price.input, price.output) == (pytest.approx(5e-7), pytest.approx(1.5e-6))
    assert OpenAIEmbedding(model_name="text-embedding-3-small", api_key="any").price.input == pytest.approx(2e-8)


def test_a_server_of_ones_own_and_an_unknown_name_have_no_price(server):
    assert at(server).price is None
    assert embedder(server).price is None
    assert OpenAI(model_name="no-such-model-1", api_key="any").price is None


def test_a_price_of_the_users_own_goes_before_the_list():
    assert OpenAI(api_key="any", cost=(1.0, 2.0)).price.input == 1.0
    assert OpenAI(api_key="any", cost=0).price.input == 0


# -- over a table --------------------------------------------------------------------------------------------


@pytest.fixture
def docs(tmp_path):
    """A table of texts with a language each, in a database of its own."""
    url = f"sqlite:///{tmp_path / 'user.db'}"
    engine = sa.create_engine(url)
    table = sa.Table(
        "docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("body", sa.Text), sa.Column("lang", sa.Text),
    )  # fmt: skip
    table.create(engine)
    with engine.begin() as connection:
        rows = [{"body": text, "lang": lang} for text, lang in (("one", "fr"), ("bad", "de"), ("two", "fr"))]
        connection.execute(sa.insert(table), rows)
    yield url, table, engine
    engine.dispose()


def answers_of(engine, column):
    with engine.connect() as connection:
        return list(connection.execute(sa.text(f'SELECT "{column}" FROM docs ORDER BY id')).scalars())


def refuse_bad(request):
    if "bad" in question(request):
        raise Refuse(400, "not nice")
    return question(request).upper()


def test_rows_that_are_refused_are_set_aside_while_their_neighbours_finish(docs):
    url, table, engine = docs
    with FakeOpenAI(refuse_bad) as server, pinnacle(url) as db:
        llm = at(server, identifier="llm")
        result = llm.predict(X="body", db=db, select=sa.select(table), progress=False)
        assert (result.written, result.failed, result.requests) == (2, 1, 3)
        assert answers_of(engine, "body__llm") == ["ONE", None, "TWO"]
        (error,) = db.errors()
        assert (error.key, error.error, error.attempts) == (2, "ProviderRefused", 1)
        assert llm.predict(X="body", db=db, select=sa.select(table), progress=False).calls == 0
        with engine.begin() as connection:
            connection.execute(table.insert().values(body="three"))
        assert llm.predict(X="body", db=db, select=sa.select(table), progress=False).written == 1
        assert server.received == 4


def test_keywords_of_a_row_fill_the_prompt_or_are_sent(docs):
    url, table, engine = docs
    with FakeOpenAI(lambda request: f"{question(request)} {request.get('user')}") as server, pinnacle(url) as db:
        llm = at(server, identifier="llm", prompt_template="{input} in {lang}", inference_kwargs={"seed": 1})
        X = {"input": "body", "lang": "lang", "user": "lang"}  # noqa: N806
        llm.predict(X=X, db=db, select=sa.select(table), output="answer", progress=False, temperature=0)
        assert answers_of(engine, "answer") == ["one in fr fr", "bad in de de", "two in fr fr"]
        assert {(r.body["temperature"], r.body["seed"], "lang" in r.body) for r in server.requests} == {(0, 1, False)}


def test_what_a_run_cost_is_told_and_adds_up(docs):
    url, table, _ = docs
    with FakeOpenAI() as server, pinnacle(url) as db:
        llm = at(server, identifier="llm", cost=(1.0, 10.0))
        result = llm.predict(X="body", db=db, select=sa.select(table), progress=False)
        assert (result.input_tokens, result.output_tokens, result.cost) == (3, 3, 33.0)


def test_a_refused_account_ends_a_run_and_no_row_is_blamed(docs, monkeypatch):
    url, table, engine = docs
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with FakeOpenAI("fine", api_key=KEY) as server, pinnacle(url) as db:
        llm = OpenAI("llm", base_url=server.url)
        with pytest.raises(AccountRefused):
            llm.predict(X="body", db=db, select=sa.select(table), progress=False)
        assert db.errors() == []
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert llm.predict(X="body", db=db, select=sa.select(table), progress=False).written == 3
        assert answers_of(engine, "body__llm") == ["fine"] * 3


def test_a_missing_key_ends_a_run_and_no_row_is_blamed(docs, monkeypatch):
    url, table, _ = docs
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pinnacle(url) as db:
        with pytest.raises(AccountRefused, match="OPENAI_API_KEY"):
            OpenAI("llm").predict(X="body", db=db, select=sa.select(table), progress=False)
        assert db.errors() == []


LOAD = """
import sys
from pinnacle import pinnacle
with pinnacle(sys.argv[1]) as db:
    print(db.load("model", "llm").predict("abc", seed=1))
"""


def test_a_stored_model_answers_the_same_in_a_new_process(docs, server, monkeypatch):
    url = docs[0]
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("PINNACLE_SECRETS", f"MY_KEY@{urlsplit(server.url).netloc}")
    options = {"prompt_template": "Say {input}", "inference_kwargs": {"temperature": 0.5}, "system_prompt": "S"}
    llm = OpenAI("llm", base_url=server.url, api_key="env:MY_KEY", **options)
    with pinnacle(url) as db:
        db.add(llm)
    answer = llm.predict("abc", seed=1)
    found = subprocess.run([sys.executable, "-c", LOAD, url], capture_output=True, text=True, timeout=600, check=True)
    assert found.stdout.strip() == answer
    ours, theirs = server.requests
    assert (ours.body, ours.headers["authorization"]) == (theirs.body, theirs.headers["authorization"])


# -- secrets -----------------------------------------------------------------------------------------------


def test_a_key_is_in_no_row_no_log_no_repr_no_pickle_and_no_traceback(docs, monkeypatch, caplog, tmp_path):
    url, table, _ = docs
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)

    def echo(request):
        raise Refuse(400, f"the header was Bearer {KEY}")

    with FakeOpenAI(echo) as server, pinnacle(url) as db:
        llm = OpenAI("llm", base_url=server.url)
        llm.predict(X="body", db=db, select=sa.select(table), progress=False)
        with pytest.raises(ProviderRefused) as caught:
            llm.predict("x")
        said = [repr(llm), repr(db.errors()), "".join(traceback.format_exception(caught.value)), caplog.text]
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert [text for text in said if KEY in text] == []
    assert KEY.encode() not in pickle.dumps(llm)
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
