"""Every setting of the client does what it says, or is refused when it is written."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import openai as library
import pytest
import sqlalchemy as sa
from pinnacle_openai import chat

from pinnacle import AccountRefused, ConfigError, ModelUnavailable, ProviderRefused, ProviderUnavailable, pinnacle
from pinnacle.base import loop
from pinnacle.ext.llm import OpenAI, OpenAIEmbedding
from pinnacle.testing import FakeOpenAI, Refuse
from pinnacle.testing.answers import question

TOKEN = "tok-4711-very-secret-0815"
VERSION = "2024-10-21"
docs = sa.table("docs", sa.column("id"), sa.column("body"))


@pytest.fixture
def server():
    with FakeOpenAI() as running:
        yield running


def at(server, **options):
    return OpenAI(**{"base_url": server.url, "api_key": "any", **options})


def embedder(server, **options):
    return OpenAIEmbedding(**{"base_url": server.url, "api_key": "any", **options})


def last(server):
    return server.requests[-1]


# -- client_kwargs -----------------------------------------------------------------------------------------


def test_each_setting_of_the_client_is_sent_as_the_library_sends_it(server):
    given = {
        "organization": "org-1", "project": "proj-1", "default_headers": {"X-Title": "app"},
        "default_query": {"a": "b", "on": True, "n": 2},
    }  # fmt: skip
    at(server, client_kwargs=given).predict("x")
    embedder(server, client_kwargs=given).embed("x")
    with library.OpenAI(base_url=server.url, api_key="any", max_retries=0, **given) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    for request in server.requests:
        assert request.query == {"a": "b", "on": "true", "n": "2"}
        sent = [request.headers[name] for name in ("openai-organization", "openai-project", "x-title", "authorization")]
        assert sent == ["org-1", "proj-1", "app", "Bearer any"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"timeout": 3}, "timeout, .* pass timeout_s="),
        ({"max_retries": 3}, "max_retries, .* pass max_tries="),
        ({"http_client": object()}, "http_client, .* ca_file= and client_certificate="),
        ({"azure_endpoint": "https://a"}, "azure_endpoint, .* pass base_url="),
        ({"defualt_headers": {}}, "defualt_headers, .* it takes default_headers, default_query, organization, project"),
        ({"organization": 3}, "organization in client_kwargs is text"),
        ({"default_headers": {"X-A": 3}}, "default_headers has 'X-A', whose value is no text"),
        ({"default_headers": "X-A: 3"}, "default_headers is a dict"),
        ({"default_headers": {"X A": "3"}}, "default_headers has 'X A', which cannot be sent"),
        ({"default_headers": {"X-A": "3\r\nX-B: 4"}}, "default_headers has 'X-A', which cannot be sent"),
        ({"default_query": {"a": [1]}}, "default_query has 'a', whose value is no text, but a list"),
        ([], "client_kwargs is a dict"),
    ],
)
@pytest.mark.parametrize("cls", [OpenAI, OpenAIEmbedding])
def test_what_cannot_be_honoured_is_refused_when_it_is_written(cls, given, told):
    with pytest.raises(ConfigError, match=told):
        cls(client_kwargs=given)


# -- secrets among headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Gateway-Token": "short"}, {"apiKey": "q9!"}, {"Cookie": "a=b"}, {"X-Who": TOKEN}, {"X-Who": "Bearer abc"},
        {"X-Who": "eyJhbGciOiJIUzI1NiJ9.e30.x"}, {"X-Who": "0123456789abcdef0123456789abcdef"},
    ],
)  # fmt: skip
def test_a_secret_in_plain_text_is_refused_with_a_way_to_pass_it(headers):
    (name, value), *_ = headers.items()
    for make in (
        lambda: OpenAI(client_kwargs={"default_headers": headers}),
        lambda: OpenAI(client_kwargs={"default_query": headers}),
        lambda: OpenAI(inference_kwargs={"extra_headers": headers}),
        lambda: OpenAI(api_key="any").predict("x", extra_headers=headers),
    ):
        with pytest.raises(ConfigError, match=f"{name}.*looks like a secret.*env:NAME") as raised:
            make()
        assert value not in str(raised.value)


def test_plain_headers_are_no_secrets():
    plain = {
        "HTTP-Referer": "https://example.com/app",
        "X-Title": "Our internal app",
        "anthropic-beta": "tools-2024-05",
    }
    assert OpenAI(client_kwargs={"default_headers": plain}).client_kwargs["default_headers"] == plain


def test_a_variable_is_sent_and_its_content_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY", TOKEN)
    file = tmp_path / "a.db"

    def answer(request):
        raise Refuse(400, f"you said {TOKEN}")

    given = {"default_headers": {"X-Gateway-Token": "env:GATEWAY"}, "default_query": {"sig": "env:GATEWAY"}}
    with FakeOpenAI(answer) as server, pinnacle(f"sqlite:///{file}") as db:
        with db.engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)"))
            connection.execute(sa.text("INSERT INTO docs (body) VALUES ('a')"))
        model = at(server, client_kwargs=given)
        model.predict(X="body", db=db, select=sa.select(docs), output="out", progress=False)
        assert (last(server).headers["x-gateway-token"], last(server).query["sig"]) == (TOKEN, TOKEN)
        (error,) = db.errors()
        assert "you said [key]" in error.message
        assert TOKEN not in repr(model)
    assert TOKEN.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_variable_may_be_named_for_one_request_too(server, monkeypatch):
    monkeypatch.setenv("GATEWAY", TOKEN)
    given = {"extra_headers": {"X-Gateway-Token": "env:GATEWAY"}, "extra_query": {"sig": "env:GATEWAY", "n": 1}}
    at(server, inference_kwargs=given).predict("x")
    embedder(server).embed("x", **given)
    for request in server.requests:
        assert request.headers["x-gateway-token"] == TOKEN
        assert request.query == {"sig": TOKEN, "n": "1"}


def test_a_variable_that_is_not_set_is_told_and_stops_all(server):
    with pytest.raises(AccountRefused, match="NOT_SET_ANYWHERE"):
        at(server, client_kwargs={"default_headers": {"X-A": "env:NOT_SET_ANYWHERE"}}).predict("x")


# -- beside the parameters ---------------------------------------------------------------------------------

EXTRA = {
    "extra_body": {"top_k": 3, "temperature": 1}, "extra_headers": {"X-Title": "mine"}, "extra_query": {"a": "b"},
    "timeout": 30,
}  # fmt: skip


@pytest.mark.parametrize("way", ["inference_kwargs", "keywords", "embedding"])
def test_extra_arguments_go_where_the_library_puts_them(server, way):
    given = {"default_headers": {"x-title": "all", "X-B": "b"}, "default_query": {"a": "all", "c": "d"}}
    {
        "inference_kwargs": lambda: at(server, client_kwargs=given, inference_kwargs=EXTRA).predict("x"),
        "keywords": lambda: at(server, client_kwargs=given).predict("x", **EXTRA),
        "embedding": lambda: embedder(server, client_kwargs=given).embed("x", **EXTRA),
    }[way]()
    request = last(server)
    assert (request.body["top_k"], request.body["temperature"]) == (3, 1)
    assert not set(EXTRA) & set(request.body)
    assert request.query == {"a": "b", "c": "d"}
    assert (request.headers["x-title"], request.headers["x-b"]) == ("mine", "b")


def test_a_timeout_is_that_of_its_requests():
    with FakeOpenAI(faults={"hang": 1.0}) as server:
        began = time.monotonic()
        with pytest.raises(Exception, match="TimeoutError"):
            at(server, max_tries=1, timeout_s=3600).predict("x", timeout=0.05)
        with pytest.raises(Exception, match="TimeoutError"):
            embedder(server, max_tries=1, timeout_s=3600).embed("x", timeout=0.05)
        assert time.monotonic() - began < 600
    with FakeOpenAI("late", latency_s=0.2) as server:
        assert at(server, max_tries=1, timeout_s=0.05).predict("x", timeout=600) == "late"


@pytest.mark.parametrize(
    "wrong",
    [
        {"extra_body": {"messages": []}}, {"extra_body": {"a": [{"api_key": "x"}]}}, {"api_key": "x"},
        {"extra_body": {"stream": True}}, {"extra_body": [1]}, {"timeout": 0},
        {"timeout": "3"}, {"extra_query": {"a": {}}}, {"extra_headers": {"X-A": 1}},
    ],
)  # fmt: skip
def test_extra_arguments_that_cannot_be_are_refused_before_anything_is_sent(server, wrong):
    with pytest.raises(ConfigError):
        at(server, inference_kwargs=wrong)
    with pytest.raises(ConfigError):
        at(server).predict("x", **wrong)
    assert server.received == 0


def test_a_batch_takes_extra_fields_and_refuses_what_is_of_one_request(server):
    model = at(server, inference_kwargs={"extra_body": {"top_k": 3}, "timeout": 5})
    batch = model.submit_batch({"one": ("abc", {})}, "token")
    assert model.fetch_batch(batch).outputs == {"one": "cba"}
    with pytest.raises(ConfigError, match="extra_headers= is for one request, and a batch is one file"):
        at(server).submit_batch({"one": ("abc", {"extra_headers": {"X-A": "b"}})}, "token")


# -- redirects ---------------------------------------------------------------------------------------------


def test_nothing_follows_a_redirect_and_what_is_there_is_no_answer():
    with FakeOpenAI("from the other host", faults={"redirect": 1.0}) as server:
        for ask in (at(server, max_tries=2).predict, embedder(server, max_tries=2).embed):
            with pytest.raises(ProviderRefused, match="leads on to localhost, which is not followed"):
                ask("a private prompt")
        assert server.served == 0
        assert {request.headers["host"] for request in server.requests} == {server.url.split("/")[2]}


def test_the_librarys_client_for_batches_follows_none_and_trusts_the_same_files(server, tmp_path):
    made = at(server).files_client(max_retries=0)
    assert made._client.follow_redirects is False
    loop.run(made.close())
    with pytest.raises(ConfigError, match="no certificate authorities"):
        at(server, ca_file=str(tmp_path / "none")).files_client(max_retries=0)


# -- what is read of batches -------------------------------------------------------------------------------


def test_a_line_of_a_batch_that_is_too_long_costs_its_row_alone():
    with FakeOpenAI(lambda request: "word " * 2_000 if question(request) == "long" else "ok") as server:
        model = at(server, max_answer_bytes=4_000)
        found = model.fetch_batch(model.submit_batch({"a": ("x", {}), "b": ("long", {}), "c": ("y", {})}, "token"))
    assert found.outputs == {"a": "ok", "c": "ok"}
    assert "cannot be read" in str(found.errors["b"])


def test_a_request_about_a_batch_ends_in_time(monkeypatch):
    monkeypatch.setattr(chat, "BATCH_LIMIT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = OpenAI(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1", api_key="any", timeout_s=3600)
        with pytest.raises(ProviderUnavailable, match="no end of a request about a batch"):
            model.find_batch("token")


# -- Azure -------------------------------------------------------------------------------------------------

DEPLOYED = "/openai/deployments/my%20gpt"


@pytest.mark.parametrize(
    ("path", "version", "asked"),
    [
        ("", VERSION, DEPLOYED), ("/", VERSION, DEPLOYED), ("/openai", VERSION, DEPLOYED),
        ("/openai/deployments/other", VERSION, "/openai/deployments/other"),
        ("/openai/deployments/other/chat/completions", VERSION, "/openai/deployments/other"),
        ("/openai/v1/", "preview", "/openai/v1"),
    ],
)  # fmt: skip
def test_azure_is_asked_by_its_paths_with_its_version_and_its_header(path, version, asked, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-1")
    with FakeOpenAI(api_key="azure-key-1") as server:
        address = {"base_url": f"{server.root}{path}", "api_version": version, "model_name": "my gpt"}
        assert OpenAI(**address).predict("abc") == "cba"
        chat = last(server)
        batch = OpenAI(**address).submit_batch({"one": ("abc", {})}, "token")
        assert OpenAI(**address).find_batch("token") == batch
        assert OpenAI(**address).fetch_batch(batch).outputs == {"one": "cba"}
        assert len(OpenAIEmbedding(**address).embed("abc")[0]) == 8
        for request in server.requests:
            assert request.query["api-version"] == version
            assert request.headers["api-key"] == "azure-key-1"
            assert "authorization" not in request.headers
        assert chat.path == f"{asked}/chat/completions".replace("%20", " ")
        assert chat.body["model"] == "my gpt"


def test_azures_version_may_stand_in_the_default_query():
    query = {"default_query": {"api-version": VERSION}}
    model = OpenAI(base_url="https://name.openai.azure.com", api_key="k", model_name="gpt", client_kwargs=query)
    wire = model.wire()
    assert (wire.url, wire.http.query) == (
        "https://name.openai.azure.com/openai/deployments/gpt", {"api-version": VERSION},
    )  # fmt: skip


def test_azures_v1_needs_no_version_and_is_known_by_its_host():
    model = OpenAI(base_url="https://name.openai.azure.com/openai/v1", api_key="k" * 8)
    wire = model.wire()
    assert (wire.url, wire.http.query) == ("https://name.openai.azure.com/openai/v1", {})
    assert wire.http.headers["api-key"] == "k" * 8
    assert "Authorization" not in wire.http.headers


def test_azures_token_goes_as_the_header_that_the_user_says(monkeypatch):
    monkeypatch.setenv("ENTRA", "Bearer abc")
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    with FakeOpenAI(api_key="abc") as server:
        headers = {"default_headers": {"Authorization": "env:ENTRA"}}
        model = OpenAI(base_url=server.root, api_version=VERSION, model_name="gpt", client_kwargs=headers)
        assert model.predict("abc") == "cba"
        assert "api-key" not in last(server).headers
        assert model.fetch_batch(model.submit_batch({"one": ("abc", {})}, "token")).outputs == {"one": "cba"}


def test_an_azure_address_that_leaves_open_what_is_meant_is_refused():
    with pytest.raises(ConfigError, match="does not say which API: give it the path /openai/v1, or api_version="):
        OpenAI(base_url="https://name.openai.azure.com")
    with pytest.raises(ConfigError, match="api_version= is for Azure"):
        OpenAI(api_version=VERSION)
    models = OpenAI(base_url="https://name.services.ai.azure.com/models", api_version=VERSION, api_key="any")
    with pytest.raises(ConfigError, match="has no batches"):
        models.submit_batch({"one": ("abc", {})}, "token")


# -- formats of embeddings ---------------------------------------------------------------------------------


def formats(server):
    return [request.body["encoding_format"] for request in server.requests]


def test_floats_are_asked_for_where_base64_is_refused_and_from_then_on(server):
    with FakeOpenAI(refuses=["encoding_format=base64"]) as refusing:
        model = embedder(refusing, batch_size=1, dimensions=8)
        assert model.embed("abc") == embedder(server).embed("abc")
        assert formats(refusing) == ["base64", "float"]
        assert model.embed(["a", "b"]) == embedder(server).embed(["a", "b"])
        assert formats(refusing)[2:] == ["float", "float"]


def test_many_texts_at_once_learn_it_too(server):
    with FakeOpenAI(refuses=["encoding_format=base64"]) as refusing:
        model = embedder(refusing, batch_size=1, dimensions=8)
        texts = [f"text {number}" for number in range(40)]
        assert model.embed(texts) == embedder(server).embed(texts)
        assert formats(refusing).count("base64") <= 2 * model.max_batch_size


def test_a_text_that_a_refusal_repeats_teaches_nothing():
    def embed(text, size):
        if "bad" in text:
            raise Refuse(400, f"cannot embed {text!r}")
        return [1.0] * size

    with FakeOpenAI(embed=embed) as server:
        model = embedder(server, dimensions=8)
        with pytest.raises(ProviderRefused, match="cannot embed"):
            model.embed("bad base64")
        assert model.embed("good") == [[1.0] * 8]
        assert formats(server) == ["base64", "float", "base64"]


def test_the_format_can_be_said(server):
    model = embedder(server, encoding_format="float")
    assert model.embed("abc") == model.embed("abc", encoding_format="base64") == embedder(server).embed("abc")
    assert formats(server) == ["float", "base64", "base64"]
    for wrong in (lambda: embedder(server, encoding_format="int8"), lambda: model.embed("a", encoding_format="int8")):
        with pytest.raises(ConfigError, match="encoding_format is 'base64'"):
            wrong()
    with FakeOpenAI(refuses=["encoding_format=base64"]) as refusing, pytest.raises(ProviderRefused):
        embedder(refusing, encoding_format="base64").embed("abc")


# -- what newer models want --------------------------------------------------------------------------------


def test_what_the_caller_says_of_tokens_and_roles_is_sent_as_it_is(server):
    dialog = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "abc"}]
    assert at(server, model_name="o3").predict(dialog, max_completion_tokens=5) == "cba"
    assert last(server).body == {"model": "o3", "messages": dialog, "max_completion_tokens": 5}
    asyncio.run(at(server, system_prompt="Be brief", system_role="developer").apredict("abc"))
    assert last(server).body["messages"] == dialog
    with pytest.raises(ConfigError, match="system_role is 'system' or 'developer'"):
        at(server, system_role="user")


@pytest.mark.parametrize(
    ("name", "meant"), [("temprature", "temperature"), ("max_token", "max_tokens"), ("topp", "top_p")]
)
def test_a_misspelt_parameter_is_warned_of(server, name, meant):
    with pytest.warns(UserWarning, match=f"'{name}' is sent as it is; is '{meant}' meant"):
        at(server).check_parameters({name: 1})
    at(server).check_parameters({"min_tokens": 1, "best_of": 1, "max_new_tokens": 1, meant: 1})


def test_a_proxy_that_is_not_for_this_address_is_left_alone_whatever_its_kind(server, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert at(server).predict("a") == "a"
    monkeypatch.delenv("NO_PROXY")
    with pytest.raises(ModelUnavailable, match="socks5"):
        at(server).predict("a")
    with pytest.raises(ModelUnavailable, match=r"pip install 'httpx\[socks\]'"):
        at(server).files_client(max_retries=0)


@pytest.mark.parametrize(
    ("status", "error"), [(403, ModelUnavailable), (407, ModelUnavailable), (502, ProviderUnavailable)]
)
def test_what_a_proxy_refuses_is_no_rows_fault(monkeypatch, status, error):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        threading.Thread(target=refuse_ways, args=(proxy, status), daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with pytest.raises(error, match=str(status)):
            OpenAI("llm", base_url="https://far.example/v1", api_key="any", max_tries=1).predict("a")


def refuse_ways(proxy, status):
    """A proxy that makes no way to any server."""
    with contextlib.suppress(OSError):
        while True:
            caller, _ = proxy.accept()
            with caller:
                caller.recv(65536)
                caller.sendall(f"HTTP/1.1 {status} No Way\r\nContent-Length: 0\r\n\r\n".encode())
