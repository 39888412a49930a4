"""What goes wrong on the fake server on purpose: faults, limits and outages, seen by real clients."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from itertools import islice
from typing import Any

import aiohttp
import openai
import pytest

from pinnacle.base.errors import ConfigError
from pinnacle.testing import FakeOpenAI, Faults, Refuse
from pinnacle.testing.limits import SlidingWindow, in_words
from tests.unit.test_fake_server import ASKED, ask, client_of, wait_until


async def read(session: aiohttp.ClientSession, url: str, **body: Any) -> tuple[int, Any, bytes]:
    """Status, headers and body of one call."""
    async with session.post(f"{url}/chat/completions", json={"messages": ASKED, **body}) as response:
        return response.status, response.headers, await response.read()


def call(server: FakeOpenAI, *, timeout_s: float = 10.0, **body: Any) -> tuple[int, Any, bytes]:
    async def send() -> tuple[int, Any, bytes]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(timeout_s)) as session:
            return await read(session, server.url, **body)

    return asyncio.run(send())


def test_faults_come_in_turn_as_listed_and_then_no_more():
    with FakeOpenAI(faults=["429", None, "500", "404"]) as server:
        assert [call(server)[0] for _ in range(6)] == [429, 200, 500, 404, 200, 200]
    assert (server.received, server.served, server.refused) == (6, 3, 1)
    assert server.faults == {"429": 1, "500": 1, "404": 1}


def test_openais_client_raises_its_own_errors():
    with FakeOpenAI(faults=["429", "500", "503"]) as server:
        for error in (openai.RateLimitError, openai.InternalServerError, openai.InternalServerError):
            with pytest.raises(error):
                ask(server)


def test_openais_client_gets_over_faults_by_trying_again():
    with FakeOpenAI(faults=Faults(["429", "cut"], retry_after_s=0.01)) as server, client_of(server) as client:
        client.with_options(max_retries=2).chat.completions.create(model="m", messages=ASKED)
    assert (server.received, server.served) == (3, 1)


def test_chances_are_drawn_from_the_seed():
    faults = Faults({"429": 0.10, "500": 0.02, "hang": 0.01}, seed=1)
    kinds = list(islice(faults.kinds(), 20_000))
    assert kinds == list(islice(faults.kinds(), 20_000))
    assert kinds != list(islice(Faults(faults.plan, seed=2).kinds(), 20_000))
    shares = {kind: count / len(kinds) for kind, count in Counter(kinds).items()}
    assert shares == pytest.approx({"429": 0.10, "500": 0.02, "hang": 0.01, None: 0.87}, abs=0.01)


def test_chances_decide_what_a_server_does():
    with FakeOpenAI(faults={"500": 0.5}) as server:
        statuses = [call(server)[0] for _ in range(40)]
    expected = [int(kind or 200) for kind in islice(Faults({"500": 0.5}).kinds(), 40)]
    assert statuses == expected
    assert {200, 500} == set(statuses)


def test_a_429_is_bare_unless_a_wait_is_given():
    with FakeOpenAI(faults=["429"]) as server:
        _, headers, body = call(server)
    assert not [name for name in headers if "retry" in name.lower() or "ratelimit" in name.lower()]
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    with FakeOpenAI(faults=Faults(["429"], retry_after_s=0.25)) as server:
        _, headers, _ = call(server)
    assert (headers["Retry-After"], headers["retry-after-ms"]) == ("1", "250")


def test_a_hung_request_is_never_answered_and_ends_with_its_client():
    with FakeOpenAI(faults=["hang"]) as server:
        with pytest.raises(asyncio.TimeoutError):
            call(server, timeout_s=0.1)
        wait_until(lambda: server.in_flight == 0)
        assert server.served == 0


@pytest.mark.parametrize("stream", [False, True])
def test_garbage_is_a_200_that_is_not_json(stream):
    with FakeOpenAI(faults=["garbage"]) as server:
        status, _, body = call(server, stream=stream)
        with pytest.raises(ValueError):
            json.loads(body.removeprefix(b"data: "))
    assert (status, server.served) == (200, 0)
    with FakeOpenAI(faults=["garbage"]) as server, client_of(server) as client, pytest.raises(ValueError):
        list(client.chat.completions.create(model="m", messages=ASKED, stream=stream))


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_answer_ends_half_way(stream):
    with FakeOpenAI("a long answer", faults=["cut"]) as server:
        with pytest.raises(aiohttp.ClientPayloadError):
            call(server, stream=stream)
        status, headers, body = call(server, stream=stream)
    assert (status, server.served) == (200, 1)
    assert stream or int(headers["Content-Length"]) == len(body)


def test_a_slow_body_trickles_and_is_whole():
    async def pieces(url: str) -> list[bytes]:
        request = aiohttp.request("POST", f"{url}/chat/completions", json={"messages": ASKED})
        async with request as response:
            return [piece async for piece in response.content.iter_any()]

    with FakeOpenAI("slowly", faults=Faults(["slow"], slow_s=0.5)) as server:
        started = time.monotonic()
        received = asyncio.run(pieces(server.url))
        assert time.monotonic() - started >= 0.5
    assert len(received) > 2
    assert json.loads(b"".join(received))["choices"][0]["message"]["content"] == "slowly"


def test_an_answer_may_be_empty_or_null():
    with FakeOpenAI(["told"], faults=["empty", "null"]) as server:
        assert json.loads(call(server)[2])["choices"] == []
        assert ask(server).message.content is None
        assert server.served == 0
        assert ask(server).message.content == "told"
    with FakeOpenAI(faults=["empty", "null"]) as server:
        assert b'"choices": []' in call(server, stream=True)[2]
        assert b"olleh" not in call(server, stream=True)[2]


def test_half_an_answer_tells_why_it_ended():
    with FakeOpenAI("four", faults=["broken", "length"]) as server:
        ends = [ask(server) for _ in range(2)]
    assert [(end.message.content, end.finish_reason) for end in ends] == [("fo", "error"), ("fo", "length")]


def test_a_response_may_be_a_refusal_reasoning_or_filtered():
    with FakeOpenAI(faults=["filtered", "refused", "thinking"]) as server:
        filtered, refused, thinking = (json.loads(call(server)[2])["choices"][0] for _ in range(3))
    assert (filtered["finish_reason"], filtered["message"]["content"]) == ("content_filter", None)
    assert (refused["message"]["refusal"], refused["message"]["content"]) == ("I cannot help with that.", None)
    assert (thinking["message"]["reasoning_content"], thinking["message"]["content"]) == (
        "Let me think about that.", None,
    )  # fmt: skip


def test_an_error_may_stand_in_a_200():
    with FakeOpenAI(faults=["error"]) as server:
        status, _, body = call(server)
    assert (status, json.loads(body)["error"]["message"]) == (200, "The upstream failed.")


def test_a_script_may_say_how_an_answer_ended_and_what_it_cost():
    said = {"content": "half", "finish_reason": "error", "error": {"message": "died"}, "usage": {"prompt_tokens": -1}}
    with FakeOpenAI(lambda request: said) as server:
        answer = json.loads(call(server)[2])
    (choice,) = answer["choices"]
    assert (choice["finish_reason"], choice["error"]) == ("error", {"message": "died"})
    assert set(choice["message"]) == {"role", "content"}
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (-1, 1)


@pytest.mark.parametrize(("body", "sent"), [({"detail": "no"}, b'{"detail": "no"}'), (b"<html>", b"<html>")])
def test_a_refusal_may_have_a_body_of_its_own(body, sent):
    def refuse(request):
        raise Refuse(422, body=body)

    with FakeOpenAI(refuse) as server:
        status, _, found = call(server)
    assert (status, found) == (422, sent)


def test_more_texts_than_are_taken_at_once_are_refused():
    with FakeOpenAI(max_inputs=2) as server, client_of(server) as client:
        assert len(client.embeddings.create(model="m", input=["a", "b"]).data) == 2
        with pytest.raises(openai.BadRequestError, match="larger than 2") as refused:
            client.embeddings.create(model="m", input=["a", "b", "c"])
        assert refused.value.param == "input"


def test_faults_meet_embeddings_too():
    with FakeOpenAI(faults=["429", "empty", "null"]) as server, client_of(server) as client:
        with pytest.raises(openai.RateLimitError):
            client.embeddings.create(model="m", input="a")
        with pytest.raises(ValueError, match="No embedding data"):
            client.embeddings.create(model="m", input="a")
        assert client.embeddings.create(model="m", input="a").data[0].embedding is None


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (["hagn"], "did you mean 'hang'"),
        (["200"], "no fault '200'"),
        ("429", "not '429'"),
        ({"429": 0.7, "500": 0.7}, "at most 1"),
        ({"429": -0.1}, "at least 0"),
    ],
)
def test_faults_that_make_no_sense_are_refused(plan, message):
    with pytest.raises(ConfigError, match=message):
        FakeOpenAI(faults=plan)


def test_beyond_the_limit_requests_are_refused_with_headers_that_say_how_long():
    with FakeOpenAI(rate_limit=(2, 600)) as server:
        answers = [call(server) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert [headers["x-ratelimit-remaining-requests"] for _, headers, _ in answers] == ["1", "0", "0"]
    assert {headers["x-ratelimit-limit-requests"] for _, headers, _ in answers} == {"2"}
    assert answers[0][1]["x-ratelimit-reset-requests"] == "10m0s"
    assert "Retry-After" not in answers[1][1]
    assert 590 < int(answers[2][1]["Retry-After"]) <= 600
    assert 590_000 < int(answers[2][1]["retry-after-ms"]) <= 600_000
    assert (server.served, server.refused) == (2, 1)


def test_without_headers_the_refusals_are_bare():
    with FakeOpenAI(rate_limit=(1, 60), headers=False) as server:
        answers = [call(server) for _ in range(2)]
    assert [status for status, _, _ in answers] == [200, 429]
    assert not [name for _, headers, _ in answers for name in headers if "retry" in name.lower() or "x-" in name]


def test_the_limit_gives_way_as_the_window_slides():
    with FakeOpenAI(rate_limit=(1, 0.1)) as server:
        assert call(server)[0] == 200
        wait_until(lambda: call(server)[0] == 200)


def test_a_window_holds_its_count_at_every_moment():
    window = SlidingWindow(3, 1.0)
    admitted = [at for at in (step / 100 for step in range(500)) if window.admit(at)]
    assert len(admitted) == 15
    assert all(later - earlier >= 1.0 for earlier, later in zip(admitted, admitted[3:], strict=False))
    assert window.wait_s(4.5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (0.02, "20ms"), (1.2, "1.2s"), (60, "1m0s"), (360, "6m0s"), (3725.5, "1h2m5.5s"), (0.0001, "1ms")],
)
def test_durations_are_written_as_openai_writes_them(seconds, words):
    assert in_words(seconds) == words


def test_a_server_that_is_down_refuses_connections_and_comes_back_on_its_port():
    with FakeOpenAI() as server, client_of(server) as client:
        client.models.list()
        server.go_down()
        server.go_down()  # it is
        for _ in range(3):
            with pytest.raises(openai.APIConnectionError):
                client.models.list()
        server.come_up()
        server.come_up()
        assert client.models.list().data


def test_going_down_cuts_the_requests_under_way():
    async def cut(server: FakeOpenAI) -> None:
        async with aiohttp.ClientSession() as session:
            task = asyncio.create_task(read(session, server.url))
            while server.in_flight == 0:
                await asyncio.sleep(0.002)
            server.go_down()
            with pytest.raises(aiohttp.ClientConnectionError):
                await task

    with FakeOpenAI(latency_s=3600) as server:
        asyncio.run(cut(server))
        wait_until(lambda: server.in_flight == 0)


def test_a_server_that_is_down_may_also_answer_503():
    with FakeOpenAI() as server:
        server.go_down(503)
        assert call(server)[0] == 503
        server.come_up()
        assert call(server)[0] == 200


def test_a_script_may_take_the_server_down():
    def last_words(request: dict[str, Any]) -> str:
        server.go_down()
        return "bye"

    with FakeOpenAI(last_words) as server:
        with pytest.raises(aiohttp.ClientConnectionError):
            call(server)
        with pytest.raises(aiohttp.ClientConnectionError):
            call(server)
    assert (server.received, server.served) == (1, 0)


def test_a_scripted_429_counts_as_refused():
    def refuse(request: dict[str, Any]) -> str:
        raise Refuse(429, "not now")

    with FakeOpenAI(refuse) as server:
        assert call(server)[0] == 429
    assert server.refused == 1


def test_a_script_may_bring_the_server_up_again():
    def blink(request: dict[str, Any]) -> str:
        server.go_down()
        server.come_up()
        return "bye"

    with FakeOpenAI(blink) as server:
        with pytest.raises(aiohttp.ClientConnectionError):
            call(server)
        wait_until(lambda: can_connect(server))


def can_connect(server: FakeOpenAI) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", int(server.root.rpartition(":")[2]))) == 0
