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

from pinnacle import (
    AccountRefused,
    AnswerCut,
    ConfigError,
    NoAnswer,
    ParameterRefused,
    ProviderRefused,
    ProviderUnavailable,
    Usage,
)
from pinnacle.base import loop
from pinnacle.base.outages import is_outage
from pinnacle.llm import sending
from pinnacle.llm.limiter import account_of
from pinnacle.plugin import HttpClient
from pinnacle.testing import FakeOpenAI, Faults, Refuse
from pinnacle.testing.answers import question
from tests.contract.documents import wait_until
from tests.llms import openai, recorder

UNANSWERED = ["500", "502", "503", "529", "408", "hang", "garbage", "cut"]
WITHOUT_ANSWER = ["empty", "null", "error", "broken", "filtered", "refused", "thinking"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Pauses between tries are short."""
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.002)


def is_quiet(server: FakeOpenAI) -> bool:
    return server.in_flight == 0


# -- tried again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*UNANSWERED, *WITHOUT_ANSWER])
def test_what_brings_no_answer_is_tried_again_until_there_is_one(kind):
    with FakeOpenAI("hello", faults=[kind, kind]) as server:
        model = openai(server, timeout_s=0.3 if kind == "hang" else 60.0)
        assert model.predict("x") == "hello"
        assert server.received == 3
        total = model.spent.total
        assert (total.calls, total.failed, total.retried) == (3, 2, 2)


@pytest.mark.parametrize("kind", UNANSWERED)
def test_without_an_answer_for_anyone_the_provider_is_unavailable(kind):
    with FakeOpenAI("hello", faults={kind: 1.0}) as server:
        model = openai(server, timeout_s=0.1 if kind == "hang" else 60.0, max_tries=3)
        with pytest.raises(ProviderUnavailable, match=r"'gpt-3.5-turbo': 3 requests met no answer"):
            model.predict("x")
        assert server.received == 3
        wait_until(lambda: is_quiet(server))


def poison(request, status=500, headers=None):
    if question(request).startswith("poison"):
        raise Refuse(status, "it hurts", headers)
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


@pytest.mark.parametrize("max_tries", [1, 2, 3, 6])
def test_a_request_that_alone_meets_no_answer_is_told_from_an_outage_by_one_that_was_answered(max_tries):
    """As at the end of a table: nobody else asks any more, and what was answered before is asked once more."""
    with FakeOpenAI(poison) as server:
        model = openai(server, max_tries=max_tries)
        assert model.predict("x") == "fine"
        with pytest.raises(ProviderRefused, match=r"it hurts.*Others were served meanwhile") as caught:
            model.predict("poison")
        asked = [question(request.body) for request in server.requests]
        assert caught.value.tries == asked.count("poison")
        assert max_tries <= caught.value.tries <= max_tries + 1
        assert asked.count("x") <= 1 + 2
        assert model.spent.total.calls == len(asked)


def test_neighbours_that_meet_no_answer_are_told_from_an_outage():
    async def main(model):
        return await asyncio.gather(*(model.apredict(f"poison {n}") for n in range(40)), return_exceptions=True)

    with FakeOpenAI(poison) as server:
        model = openai(server, max_tries=3, max_batch_size=8)
        assert model.predict("x") == "fine"
        assert {type(error) for error in asyncio.run(main(model))} == {ProviderRefused}
        asked = [question(request.body) for request in server.requests]
        assert asked.count("x") < 20
        assert len(asked) - asked.count("x") <= 40 * (3 + 2)
        assert model.predict("x") == "fine"


def test_what_was_answered_before_and_is_not_now_tells_of_an_outage():
    with FakeOpenAI(poison) as server:
        model = openai(server, max_tries=3)
        assert model.predict("x") == "fine"
        server.go_down(503)
        with pytest.raises(ProviderUnavailable, match=r"no answer|does not answer"):
            model.predict("poison")


def test_a_request_that_alone_is_always_too_fast_is_refused_in_the_end():
    async def main(model):
        bad = asyncio.ensure_future(model.apredict("poison"))
        while not bad.done():
            assert await model.apredict("x") == "fine"
        return await bad

    with FakeOpenAI(lambda request: poison(request, 429)) as server:
        model = openai(server)
        assert model.predict(["x"] * 50) == ["fine"] * 50
        with pytest.raises(ProviderRefused, match=r"it hurts.*Others were served meanwhile") as caught:
            asyncio.run(main(model))
        assert server.refused == caught.value.tries
        assert sending.THROTTLED_TRIES < caught.value.tries < 3 * sending.THROTTLED_TRIES


def test_a_day_that_one_request_is_told_to_wait_holds_nobody_up():
    with FakeOpenAI(lambda request: poison(request, 429, {"Retry-After": "86400"})) as server:
        model = openai(server)
        assert model.predict("x") == "fine"
        with pytest.raises(ProviderRefused, match="Others were served meanwhile"):
            model.predict("poison")
        assert server.refused < 3 * sending.THROTTLED_TRIES
        assert not account_of(model.provider(), model.key()).is_paused


def test_a_long_wait_is_believed_once_what_was_answered_before_is_refused_too():
    with FakeOpenAI("hello", faults=Faults([None, "429", "429"], retry_after_s=3600.0)) as server:
        model = openai(server, timeout_s=60)
        assert model.predict("x") == "hello"
        with contextlib.suppress(TimeoutError):
            asyncio.run(asyncio.wait_for(model.apredict("y"), 0.5))
        account = account_of(model.provider(), model.key())
        assert (server.received, account.is_paused) == (3, True)
        assert 100 < account.pace.wait_s(time.monotonic()) <= 120


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
        assert server.refused == 3
        assert 21 <= server.served <= 22  # one that was answered may be asked again, to see whether others are served
        assert model.spent.total.failed == 3


def test_refusals_for_being_too_fast_open_no_breaker():
    with FakeOpenAI("hello", faults=[None] * 20 + ["429"] * 8) as server:
        assert openai(server, max_tries=1, max_batch_size=8).predict(["x"] * 30) == ["hello"] * 30


# -- responses without an answer -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITHOUT_ANSWER)
def test_a_response_without_an_answer_is_asked_for_a_few_times_and_is_no_outage(kind):
    with FakeOpenAI("an answer", faults={kind: 1.0}) as server:
        model = openai(server, max_attempts=2, cost=(1.0, 0.0))
        for _ in range(4):  # more of them in a row than open the breaker
            with pytest.raises(NoAnswer, match=r"'gpt-3\.5-turbo'") as caught:
                model.predict("one two")
            assert (caught.value.tries, caught.value.is_final) == (2, True)
        total = model.spent.total
        assert (server.received, total.calls, total.failed, total.retried) == (8, 8, 8, 4)
        assert total.cost > 0  # every one of them is billed


def test_an_answer_that_was_cut_is_no_answer_unless_it_is_to_be_kept():
    with FakeOpenAI("twelve words", faults={"length": 1.0}) as server:
        with pytest.raises(AnswerCut, match=r"on_length='keep'") as caught:
            openai(server).predict("x")
        assert (server.received, caught.value.finish_reason) == (1, "length")
        assert openai(server, on_length="keep").predict("x") == "twelve"
        with pytest.raises(AnswerCut):
            openai(server, on_length="keep", choices=["twelve"]).predict("x")  # half a form is none
        assert server.received == 3
    with pytest.raises(ConfigError, match="on_length="):
        openai(server, on_length="cut")


def test_a_cut_answer_is_billed():
    with FakeOpenAI("twelve words", faults=["length"]) as server:
        model = openai(server, cost=(1.0, 10.0))
        with pytest.raises(AnswerCut):
            model.predict("x")
        assert model.spent.total == Usage(calls=1, failed=1, input_tokens=1, output_tokens=1, cost=11.0)


@pytest.mark.parametrize("count", [-1, -(10**9), 2**53 + 1, 1e300])
def test_counts_that_cannot_be_are_no_answer_and_billed_by_estimate(count):
    usage = {"prompt_tokens": count, "completion_tokens": count}
    with FakeOpenAI(lambda request: {"content": "abcdef", "usage": usage}) as server:
        model = openai(server, cost=(1.0, 10.0), max_attempts=1)
        with pytest.raises(NoAnswer, match="which cannot be"):
            model.predict("abc")
        assert model.spent.total.cost == 1.0 + 2 * 10.0  # a token for three bytes


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


def test_an_input_that_is_refused_as_an_account_is_told_from_one_by_what_is_in_flight():
    """As a service that moderates inputs by 403: the refusal comes before the first answer."""

    async def main(model):
        others = [asyncio.ensure_future(model.apredict(text)) for text in ("x", "y")]
        await asyncio.to_thread(wait_until, lambda: server.in_flight == 2)
        with pytest.raises(ProviderRefused) as caught:
            await model.apredict("poison")
        assert type(caught.value) is ProviderRefused
        assert await asyncio.gather(*others) == ["fine", "fine"]

    with FakeOpenAI(lambda request: poison(request, 403), latency_s=0.5) as server:
        asyncio.run(main(openai(server)))


def test_a_quota_in_a_rows_own_words_is_no_refused_account():
    def refuse(request):
        raise Refuse(422, body={"detail": [{"loc": ["body", "messages"], "input": question(request)}]})

    with FakeOpenAI(refuse) as server, pytest.raises(ProviderRefused) as caught:
        openai(server).predict("insufficient_quota")
    assert type(caught.value) is ProviderRefused


def test_a_parameter_that_is_refused_for_the_first_inputs_is_at_fault_itself():
    def refuse(request):
        if "temperature" in request:
            raise Refuse(400, "Unsupported value.", param="temperature")
        return "fine"

    with FakeOpenAI(refuse) as server:
        model = openai(server)
        kinds = []
        for _ in range(sending.FIRST_ROWS):
            with pytest.raises(ProviderRefused) as caught:
                model.predict("x", temperature=0)
            kinds.append(type(caught.value))
        assert kinds == [ProviderRefused] * (sending.FIRST_ROWS - 1) + [ParameterRefused]
        assert (caught.value.parameter, caught.value.status, caught.value.halts_prediction) == (
            "temperature",
            400,
            True,
        )
        assert model.predict("x") == "fine"
        with pytest.raises(ProviderRefused) as caught:  # since something was answered, it is a row's own
            model.predict("x", temperature=0)
        assert type(caught.value) is ProviderRefused


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
