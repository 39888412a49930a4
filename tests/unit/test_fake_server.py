"""The fake server's answers, as OpenAI's own client reads them, and its life from start to close."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import openai
import psutil
import pytest

from pinnacle.base.errors import ConfigError
from pinnacle.testing import FakeOpenAI, Refuse, unit_vector

WAIT_S = 600.0
ASKED: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello wide world"}]
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}


@contextmanager
def client_of(server: FakeOpenAI, *, api_key: str = "any") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key=api_key, max_retries=0, timeout=WAIT_S) as client:
        yield client


def ask(server: FakeOpenAI, **parameters: Any) -> Any:
    """The choice that OpenAI's client reads."""
    with client_of(server) as client:
        return client.chat.completions.create(**{"model": "m", "messages": ASKED, **parameters}).choices[0]


def post(url: str, **parameters: Any) -> tuple[int, Any]:
    """Status and JSON of a raw POST."""

    async def send() -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.post(url, **parameters) as response:
            return response.status, await response.json()

    return asyncio.run(send())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_chat_is_answered_with_the_question_reversed_and_words_as_tokens():
    with FakeOpenAI() as server, client_of(server) as client:
        answer = client.chat.completions.create(model="any/model", messages=ASKED)
    assert answer.choices[0].message.content == "dlrow ediw olleh"
    assert (answer.model, answer.choices[0].finish_reason) == ("any/model", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 3, 8)


def test_the_asynchronous_client_gets_the_same():
    async def ask_all(url: str) -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=WAIT_S) as client:
            tasks = [client.chat.completions.create(model="m", messages=ASKED) for _ in range(3)]
            texts = [answer.choices[0].message.content for answer in await asyncio.gather(*tasks)]
            streamed = await client.chat.completions.create(model="m", messages=ASKED, stream=True)
            return [*texts, "".join([event.choices[0].delta.content or "" async for event in streamed])]

    with FakeOpenAI() as server:
        assert asyncio.run(ask_all(server.url)) == ["dlrow ediw olleh"] * 4


def test_an_answer_is_a_text_or_texts_in_turn_or_a_function_of_the_request():
    with FakeOpenAI("fixed") as server:
        assert ask(server).message.content == "fixed"
    with FakeOpenAI(["first", "last"]) as server:
        assert [ask(server).message.content for _ in range(3)] == ["first", "last", "last"]
    with FakeOpenAI(lambda request: f"{request['model']} at {request['temperature']}") as server:
        assert ask(server, temperature=0.5).message.content == "m at 0.5"


def test_an_answer_may_be_a_tool_call_or_give_its_own_reason():
    with FakeOpenAI(lambda request: {"tool_calls": [TOOL_CALL]}) as server:
        choice = ask(server)
    assert choice.message.tool_calls[0].function.name == "weather"
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    with FakeOpenAI(lambda request: {"content": "no", "finish_reason": "content_filter"}) as server:
        assert ask(server).finish_reason == "content_filter"


def test_answers_are_cut_to_max_tokens_and_repeated_n_times():
    with FakeOpenAI("one two three") as server, client_of(server) as client:
        answer = client.chat.completions.create(model="m", messages=ASKED, n=2, max_tokens=2)
    assert [choice.message.content for choice in answer.choices] == ["one two"] * 2
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_content_in_parts_is_read_as_its_text():
    with FakeOpenAI() as server:
        parts = [{"type": "text", "text": "ab"}, {"type": "text", "text": "cd"}]
        assert ask(server, messages=[{"role": "user", "content": parts}]).message.content == "dc ba"


def test_a_script_refuses_with_status_message_and_headers():
    def refuse(request: dict[str, Any]) -> str:
        raise Refuse(400, "too long", {"x-reason": "length"}, code="context_length_exceeded")

    with FakeOpenAI(refuse) as server, pytest.raises(openai.BadRequestError, match="too long") as caught:
        ask(server)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.response.headers["x-reason"] == "length"
    assert (server.received, server.served) == (1, 0)


def test_a_script_that_fails_is_a_500_that_says_why(caplog):
    said = pytest.raises(openai.InternalServerError, match="the script raised KeyError: 'missing'")
    with FakeOpenAI(lambda request: request["missing"]) as server, said:
        ask(server)
    assert "script failed" in caplog.text


def test_a_stream_comes_word_by_word_and_ends_with_the_usage_when_asked():
    with FakeOpenAI("one two") as server, client_of(server) as client:
        plain = list(client.chat.completions.create(model="m", messages=ASKED, stream=True))
        options: Any = {"include_usage": True}
        *events, last = client.chat.completions.create(model="m", messages=ASKED, stream=True, stream_options=options)
    assert [event.choices[0].delta.content for event in events] == ["", "one", " two", None]
    assert (events[0].choices[0].delta.role, events[-1].choices[0].finish_reason) == ("assistant", "stop")
    assert [event.usage for event in (*plain, *events)] == [None] * 8
    assert (last.choices, last.usage and last.usage.total_tokens) == ([], 7)


def test_a_stream_carries_tool_calls_and_ends_in_done():
    with FakeOpenAI(lambda request: {"tool_calls": [TOOL_CALL]}) as server, client_of(server) as client:
        events = list(client.chat.completions.create(model="m", messages=ASKED, stream=True))
        calls = [call for event in events for call in event.choices[0].delta.tool_calls or ()]
        raw = client.chat.completions.with_raw_response.create(model="m", messages=ASKED, stream=True)
        assert raw.http_response.read().endswith(b"data: [DONE]\n\n")
    assert [(call.index, call.function and call.function.arguments) for call in calls] == [(0, '{"city": "Ulm"}')]
    assert events[-1].choices[0].finish_reason == "tool_calls"


def test_legacy_completions_answer_one_prompt_or_many_and_stream():
    with FakeOpenAI() as server, client_of(server) as client:
        one = client.completions.create(model="m", prompt="ab cd")
        many = client.completions.create(model="m", prompt=["ab", "cd"], n=2)
        streamed = client.completions.create(model="m", prompt="ab cd", stream=True)
        assert "".join(event.choices[0].text for event in streamed) == "dc ba"
    assert one.choices[0].text == "dc ba"
    assert [(choice.index, choice.text) for choice in many.choices] == [(0, "ba"), (1, "ba"), (2, "dc"), (3, "dc")]
    assert many.usage is not None
    assert (many.usage.prompt_tokens, many.usage.completion_tokens) == (2, 4)


def test_embeddings_are_unit_vectors_of_the_text_alone():
    with FakeOpenAI() as server, client_of(server) as client:
        # The client asks for base64 unless told otherwise.
        packed = client.embeddings.create(model="m", input=["a b", "c"], dimensions=5)
        plain = client.embeddings.create(model="m", input="a b", dimensions=5, encoding_format="float")
        default = client.embeddings.create(model="m", input="a b")
    formats = [request.body.get("encoding_format") for request in server.requests]
    assert formats == ["base64", "float", "base64"]
    assert [item.embedding for item in packed.data] == [unit_vector("a b", 5), unit_vector("c", 5)]
    assert plain.data[0].embedding == unit_vector("a b", 5)
    assert len(default.data[0].embedding) == 8
    assert packed.usage.prompt_tokens == 3
    assert math.isclose(math.hypot(*unit_vector("a b", 5)), 1, abs_tol=1e-6)
    assert unit_vector("a b", 5) != unit_vector("c", 5)


def test_embeddings_can_be_scripted():
    with FakeOpenAI(embed=lambda text, dimensions: [float(len(text))] * dimensions) as server, client_of(server) as c:
        assert c.embeddings.create(model="m", input="abc", dimensions=2).data[0].embedding == [3.0, 3.0]


@pytest.mark.parametrize("path", ["/generate", "/v1"])
def test_vllm_gets_its_prompt_back_with_the_answer(path):
    with FakeOpenAI(" you") as server:
        assert post(server.root + path, json={"prompt": "thank", "n": 2}) == (200, {"text": ["thank you"] * 2})
    with FakeOpenAI(lambda request: {"text": ["as scripted"]}) as server:
        assert post(server.root + path, json={"prompt": "thank"}) == (200, {"text": ["as scripted"]})


def test_models_are_listed_and_any_other_may_be_named():
    with FakeOpenAI(models=["a", "org/b"]) as server, client_of(server) as client:
        assert [model.id for model in client.models.list()] == ["a", "org/b"]
        assert client.models.retrieve("org/b").id == "org/b"


def test_a_wrong_key_is_refused_everywhere():
    with FakeOpenAI(api_key="sk-right") as server:
        with client_of(server, api_key="sk-wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                client.models.list()
            with pytest.raises(openai.AuthenticationError):
                client.chat.completions.create(model="m", messages=ASKED)
        with client_of(server, api_key="sk-right") as client:
            client.chat.completions.create(model="m", messages=ASKED)
    assert server.served == 1


def test_requests_that_make_no_sense_are_refused_as_openai_does():
    with FakeOpenAI() as server:
        status, answer = post(f"{server.url}/chat/completions", json={"model": "m"})
        assert (status, answer["error"]["code"]) == (400, "missing_required_parameter")
        assert post(f"{server.url}/chat/completions", data=b"not json")[0] == 400
        assert post(f"{server.url}/embeddings", json={"input": []})[0] == 400
        assert post(f"{server.url}/unheard-of", json={})[0] == 404


def test_requests_are_recorded_with_body_headers_time_and_company():
    before = time.monotonic()
    with FakeOpenAI() as server:
        ask(server, seed=7)
    (received,) = server.requests
    assert (received.path, received.body["seed"], received.in_flight) == ("/v1/chat/completions", 7, 1)
    assert before < received.at < time.monotonic()
    assert received.headers["authorization"] == "Bearer any"
    assert "Bearer" not in repr(received)


def test_only_the_last_requests_are_kept_or_none():
    with FakeOpenAI(keep_requests=2) as server:
        for seed in range(3):
            ask(server, seed=seed)
    assert [request.body["seed"] for request in server.requests] == [1, 2]
    with FakeOpenAI(keep_requests=0) as server:
        ask(server)
    assert (server.requests, server.received) == ([], 1)


def test_stats_count_requests_tokens_and_times():
    with FakeOpenAI("one two") as server:
        ask(server)
        status, stats = post(f"{server.root}/stats")
    assert status == 200
    assert stats == server.stats()
    assert (stats["received"], stats["served"], stats["refused"], stats["in_flight"]) == (1, 1, 0, 0)
    assert (stats["prompt_tokens"], stats["completion_tokens"]) == (5, 2)
    assert len(stats["served_times"]) == 1
    assert stats["refused_times"] == []


def test_many_requests_wait_for_their_latency_together():
    async def ask_all(url: str) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:

            async def ask_once() -> None:
                async with session.post(f"{url}/chat/completions", json={"messages": ASKED}) as response:
                    await response.read()

            await asyncio.gather(*(ask_once() for _ in range(256)))

    with FakeOpenAI(latency_s=0.05) as server:
        started = time.monotonic()
        asyncio.run(ask_all(server.url))
        took_s = time.monotonic() - started
    assert (server.served, server.max_in_flight) == (256, 64)
    assert 4 * 0.05 <= took_s < 256 * 0.05 / 4


def test_latency_may_depend_on_the_request():
    with FakeOpenAI(latency_s=lambda request: request["seed"] / 100) as server:
        started = time.monotonic()
        ask(server, seed=10)
        assert time.monotonic() - started >= 0.1


def test_the_server_listens_on_loopback_alone():
    with FakeOpenAI():
        listening = [c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]


def test_closing_leaves_no_thread_and_no_socket_behind():
    files, threads = psutil.Process().num_fds(), threading.enumerate()
    with FakeOpenAI() as server:
        with client_of(server) as client:
            client.chat.completions.create(model="m", messages=ASKED)
            server.close()  # with the client's connection open
        server.close()  # again
    assert (psutil.Process().num_fds(), threading.enumerate()) == (files, threads)


def test_a_connection_that_was_just_accepted_is_closed_too():
    for _ in range(30):
        with FakeOpenAI() as server, socket.create_connection(("127.0.0.1", int(server.root.rpartition(":")[2]))):
            server.close()
    gc.collect()  # a socket left open would be a warning here


def test_closing_does_not_wait_for_requests_under_way():
    failures: list[Exception] = []

    def hang(url: str) -> None:
        try:
            post(f"{url}/chat/completions", json={"messages": ASKED})
        except aiohttp.ClientError as error:
            failures.append(error)

    with FakeOpenAI(latency_s=3600) as server:
        thread = threading.Thread(target=hang, args=[server.url])
        thread.start()
        wait_until(lambda: server.in_flight == 1)
        started = time.monotonic()
    assert time.monotonic() - started < 600
    thread.join()
    assert len(failures) == 1


def test_a_server_starts_once_and_on_a_port_that_is_free():
    with FakeOpenAI() as server:
        assert repr(server) == f"FakeOpenAI({server.url})"
        with pytest.raises(ConfigError, match="starts once"):
            server.start()
        taken = FakeOpenAI(port=int(server.root.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            taken.start()
    with pytest.raises(ConfigError, match="not running"):
        server.come_up()


def test_options_that_make_no_sense_are_refused_at_once():
    with pytest.raises(ConfigError, match="rate_limit is"):
        FakeOpenAI(rate_limit=(0, 1.0))
    with pytest.raises(ConfigError, match="at least one text"):
        FakeOpenAI([])


@pytest.mark.parametrize("name", ["FakeOpenAI", "ServerProcess"])
def test_without_aiohttp_the_missing_package_is_named(name):
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from pinnacle import MissingPlugin\n"
        "try:\n"
        f"    from pinnacle.testing import {name}\n"
        f"    {name}()\n"
        "except MissingPlugin as error: sys.stdout.write(f'{error.package}: {error}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.startswith("aiohttp: ")
    assert "pip install 'pinnacle-ai[testing]'" in done.stdout
