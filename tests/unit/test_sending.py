"""How requests are sent: what is tried again, what is final, what is an outage, and that nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import threading
import time

import pytest

from pinnacle import AccountRefused, InvalidAnswer, ProviderRefused, ProviderUnavailable
from pinnacle.base import loop
from pinnacle.base.outages import is_outage
from pinnacle.llm import sending
from pinnacle.plugin import HttpClient
from pinnacle.testing import FakeOpenAI, Faults, Refuse
from pinnacle.testing.answers import question
from tests.contract.documents import wait_until
from tests.llms import openai, recorder

UNANSWERED = ["500", "502", "503", "529", "408", "hang", "garbage", "cut", "empty", "null"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Pauses between tries are short."""
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.002)


def is_quiet(server: FakeOpenAI) -> bool:
    return server.in_flight == 0


# -- tried again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", UNANSWERED)
def test_what_brings_no_answer_is_tried_again_until_there_is_one(kind):
    with FakeOpenAI("hello", faults=[kind, kind]) as server:
        model = openai(server, timeout_s=0.3)
        assert model.predict("x") == "hello"
        assert server.received == 3
        total = model.spent.total
        assert (total.calls, total.failed, total.retried) == (3, 2, 2)


@pytest.mark.parametrize("kind", UNANSWERED)
def test_without_an_answer_for_anyone_the_provider_is_unavailable(kind):
    with FakeOpenAI("hello", faults={kind: 1.0}) as server:
        model = openai(server, timeout_s=0.1, max_tries=3)
        with pytest.raises(ProviderUnavailable, match=r"'gpt-3.5-turbo': 3 requests met no answer"):
            model.predict("x")
        assert server.received == 3
        wait_until(lambda: is_quiet(server))


def poison(request):
    if question(request) == "poison":
        raise Refuse(500, "it hurts")
    return "fine"


def test_a_request_that_alone_meets_no_answer_is_refused_while_others_are_served():
    async def main(model):
        bad = asyncio.ensure_future(model.apredict("poison"))
        while not bad.done():
            assert await model.apredict("x") == "fine"
        return await bad

    with FakeOpenAI(poison) as server:
        model = openai(server, max_tries=3)
        with pytest.raises(ProviderRefused, match="Others were served meanwhile") as caught:
            asyncio.run(main(model))
        assert (caught.value.status, type(caught.value)) == (500, ProviderRefused)


@pytest.mark.parametrize("max_tries", [1, 2, 3])
def test_an_outage_that_begins_while_requests_are_in_flight_is_no_requests_fault(max_tries):
    begun, served = itertools.count(), []

    async def answer(model, prompt):
        if next(begun) < 3:
            served.append(prompt)
            return "fine"
        while len(served) < 3:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # the answers of the others have arrived
        raise ConnectionResetError("down")

    async def main(model):
        return await asyncio.gather(*(model.apredict("x") for _ in range(8)), return_exceptions=True)

    results = asyncio.run(main(recorder(fn=answer, max_tries=max_tries).model))
    assert [type(result) for result in results] == [str] * 3 + [ProviderUnavailable] * 5


@pytest.mark.parametrize("retry_after_s", [None, 0.05])
def test_refusals_for_being_too_fast_use_up_no_tries(retry_after_s):
    with FakeOpenAI("hello", faults=Faults([None] * 20 + ["429"] * 3, retry_after_s=retry_after_s)) as server:
        model = openai(server, max_tries=1)
        assert model.predict(["x"] * 21) == ["hello"] * 21
        assert (server.served, server.refused) == (21, 3)
        assert model.spent.total.failed == 3


def test_refusals_for_being_too_fast_open_no_breaker():
    with FakeOpenAI("hello", faults=[None] * 20 + ["429"] * 8) as server:
        assert openai(server, max_tries=1, max_batch_size=8).predict(["x"] * 30) == ["hello"] * 30


# -- final -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_sent_once_and_told_with_its_status(status):
    def refuse(request):
        raise Refuse(status, "the prompt is not nice")

    with FakeOpenAI(refuse) as server:
        with pytest.raises(ProviderRefused, match=r"'gpt-3\.5-turbo'.*the prompt is not nice") as caught:
            openai(server).predict("x")
        assert (caught.value.status, type(caught.value), server.received) == (status, ProviderRefused, 1)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "invalid_api_key"), (402, None), (403, None), (404, "model_not_found"), (429, "insufficient_quota"),
     (429, "billing_hard_limit_reached"), (400, "insufficient_quota")],
)  # fmt: skip
def test_an_account_that_is_refused_is_told_at_once(status, code):
    def refuse(request):
        raise Refuse(status, "not you", code=code)

    with FakeOpenAI(refuse) as server:
        with pytest.raises(AccountRefused, match="not you") as caught:
            openai(server).predict("x")
        assert (caught.value.status, server.received) == (status, 1)


@pytest.mark.parametrize("finish_reason", ["length", "content_filter"])
def test_an_answer_cut_off_before_its_first_word_is_no_answer(finish_reason):
    with FakeOpenAI(lambda request: {"content": "", "finish_reason": finish_reason}) as server:
        with pytest.raises(InvalidAnswer, match=finish_reason):
            openai(server).predict("x")
        assert server.received == 1


def test_an_empty_answer_that_ended_by_itself_is_an_answer():
    with FakeOpenAI("") as server:
        assert openai(server).predict("x") == ""


def test_a_refusal_in_words_is_the_models_answer_and_not_asked_for_again():
    with FakeOpenAI(lambda request: {"content": None, "refusal": "I cannot help with that"}) as server:
        with pytest.raises(InvalidAnswer, match="I cannot help with that"):
            openai(server).predict("x")
        assert server.received == 1


def test_an_error_of_the_users_own_function_is_raised_as_it_is_and_once():
    def fail(prompt):
        raise KeyError("mine")

    asked = recorder(fail)
    with pytest.raises(KeyError, match="mine"):
        asked.model.predict("x")
    assert len(asked.asked) == 1


@pytest.mark.parametrize("answer", [7, None, ["a"], ("a",), ("a", (1,)), ("a", (1, -1)), {"a": 1}])
def test_a_function_that_returns_no_answer_is_told_what_to_return(answer):
    with pytest.raises(TypeError, match="answers with a string"):
        recorder(lambda prompt: answer).model.predict("x")


# -- time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [["hang"], Faults(["slow"], slow_s=30)])
def test_a_request_ends_when_its_time_is_over_and_is_closed(faults):
    with FakeOpenAI("word " * 100, faults=faults) as server:
        began = time.monotonic()
        with pytest.raises(ProviderUnavailable, match="TimeoutError"):
            openai(server, timeout_s=0.2, max_tries=1).predict("x")
        assert 0.2 <= time.monotonic() - began < 25
        wait_until(lambda: is_quiet(server))


def test_a_coroutine_of_the_users_own_ends_when_its_time_is_over():
    ended = []

    async def hang(model, prompt):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(prompt)

    with pytest.raises(ProviderUnavailable, match="TimeoutError"):
        recorder(fn=hang, timeout_s=0.05, max_tries=2).model.predict("x")
    assert ended == ["x", "x"]


def test_a_port_where_nobody_listens_is_an_outage():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with FakeOpenAI() as server, pytest.raises(ProviderUnavailable, match=str(port)):
        openai(server, base_url=f"http://127.0.0.1:{port}/v1", max_tries=2).predict("x")


def test_a_server_that_restarts_is_met_with_a_new_connection():
    with FakeOpenAI("hello") as server:
        model = openai(server)
        assert model.predict("x") == "hello"
        server.go_down()
        server.come_up()
        assert model.predict("x") == "hello"


# -- nothing is left running ---------------------------------------------------------------------------


def test_cancelling_a_caller_leaves_no_request_running():
    async def main(model):
        task = asyncio.ensure_future(model.apredict(["x"] * 10))
        await asyncio.to_thread(wait_until, lambda: server.in_flight == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: is_quiet(server))

    with FakeOpenAI("hello", faults=["hang"] * 4) as server:
        model = openai(server, max_batch_size=4)
        asyncio.run(main(model))
        assert server.received == 4
        assert model.predict("x") == "hello"  # and every place is free again


def test_an_interrupt_leaves_no_request_running():
    with FakeOpenAI("hello", faults=["hang"] * 3) as server:

        def interrupt():
            wait_until(lambda: server.in_flight == 3)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            openai(server).predict(["x"] * 3)
        thread.join()
        wait_until(lambda: is_quiet(server))


def test_the_first_error_of_a_list_ends_the_requests_beside_it():
    def answer(request):
        if question(request) == "bad":
            raise Refuse(400, "bad")
        return "fine"

    with FakeOpenAI(answer, latency_s=lambda request: 60.0) as server:
        with pytest.raises(ProviderRefused):
            openai(server).predict(["a", "b", "bad", "c"])
        wait_until(lambda: is_quiet(server))
        assert server.received == 4


@pytest.mark.parametrize("way", ["predict", "apredict", "apredict in a new loop", "predict in a loop"])
def test_one_model_is_asked_from_every_kind_of_caller(way):
    async def predict_inside(model):
        return model.predict("abc")

    with FakeOpenAI() as server:
        model = openai(server)
        ask = {
            "predict": lambda: model.predict("abc"),
            "apredict": lambda: asyncio.run(model.apredict("abc")),
            "apredict in a new loop": lambda: [asyncio.run(model.apredict("abc")) for _ in range(2)][1],
            "predict in a loop": lambda: asyncio.run(predict_inside(model)),
        }[way]
        assert model.predict("x") == "x"
        assert ask() == "cba"
        assert model.predict("x") == "x"


def test_a_server_that_accepts_no_connection_is_given_up_in_time():
    """The queue of a listening socket that nobody accepts from is filled first."""
    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        client = HttpClient(connect_timeout_s=0.2)
        began = time.monotonic()
        with pytest.raises(TimeoutError) as raised:
            loop.run(client.post(f"http://127.0.0.1:{listening.getsockname()[1]}/", {}))
        assert time.monotonic() - began < 60
        assert is_outage(raised.value)
