"""When requests may start: exact windows, first come first served, gates, and breakers that open and close."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinnacle import ConfigError, ProviderUnavailable
from pinnacle.llm.limiter import (
    FAILURES_TO_OPEN,
    LONGEST_BREAK_S,
    WITNESS_STANDS_S,
    Account,
    Breaker,
    Gate,
    account_of,
)
from pinnacle.testing import FakeOpenAI
from tests import virtual
from tests.llms import new_key, openai, recorder

EPSILON_S = 1e-6
moments = st.lists(st.integers(0, 300), max_size=25, unique=True).map(
    lambda steps: [step / 100 for step in sorted(steps)]
)


def most_starts(times: list[float], seconds: float) -> int:
    """The most starts in any window of so many seconds, counted one by one."""
    return max(sum(start <= other < start + seconds - EPSILON_S for other in times) for start in times)


def starts(account: Account, arrivals: list[float], cancelled: dict[int, float] | None = None) -> list[float]:
    """When requests that come at these times start, in the order of their coming, in virtual time."""

    async def main(clock):
        account._clock = clock
        began: dict[int, float] = {}

        async def one(number: int, at: float) -> None:
            await asyncio.sleep(at)
            await account.start()
            began[number] = clock()

        tasks = [asyncio.ensure_future(one(n, at)) for n, at in enumerate(arrivals)]
        for number, at in (cancelled or {}).items():
            asyncio.get_running_loop().call_at(at, tasks[number].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        return [began[number] for number in sorted(began)]

    return virtual.run(main)


# -- windows ---------------------------------------------------------------------------------------------


@settings(deadline=None)  # a loaded machine may take its time
@given(arrivals=moments, count=st.integers(1, 5), seconds=st.floats(0.05, 2))
def test_requests_start_in_turn_and_as_early_as_the_window_allows(arrivals, count, seconds):
    account = Account()
    account.declare((count, seconds), by="model")
    expected: list[float] = []
    for number, at in enumerate(arrivals):
        before = expected[number - count] + seconds if number >= count else 0.0
        expected.append(max(at, before, expected[-1] if expected else 0.0))
    assert starts(account, arrivals) == pytest.approx(expected, abs=EPSILON_S)


@settings(deadline=None)  # a loaded machine may take its time
@given(arrivals=moments.filter(bool), limits=st.lists(st.tuples(st.integers(1, 5), st.floats(0.05, 2)), min_size=1))
def test_all_limits_of_an_account_hold_together(arrivals, limits):
    account = Account()
    for limit in limits:
        account.declare(limit, by=str(limit))
    times = starts(account, arrivals)
    assert len(times) == len(arrivals)
    for count, seconds in limits:
        assert most_starts(times, seconds) <= count


@settings(deadline=None)  # a loaded machine may take its time
@given(arrivals=moments, dropped=st.sets(st.integers(0, 24)), at=st.floats(0, 3))
def test_cancelled_requests_leave_no_hole(arrivals, dropped, at):
    kept = [n for n in range(len(arrivals)) if n not in dropped]
    cancelled = {n: min(at, arrivals[n]) for n in dropped if n < len(arrivals)}
    whole, alone = Account(), Account()
    for account in (whole, alone):
        account.declare((2, 0.5), by="model")
    assert starts(whole, arrivals, cancelled) == pytest.approx(starts(alone, [arrivals[n] for n in kept]))


def test_one_who_gives_up_while_waiting_lets_the_next_go_at_its_time():
    account = Account()
    account.declare((1, 1.0), by="model")
    assert starts(account, [0, 0, 0], {1: 0.5}) == pytest.approx([0, 1])


def test_a_window_is_exact_in_real_time_over_threads_and_loops():
    seen, count, seconds = threading.local(), 5, 0.2

    def clock() -> float:
        seen.before, seen.last = getattr(seen, "last", 0.0), time.monotonic()
        return seen.last

    account, times = Account(clock), []
    account.declare((count, seconds), by="model")

    async def ask():
        for _ in range(3):
            await account.start()
            times.append(seen.before)  # when it was let go; `start` looks at the clock once more, maybe much later

    async def many():
        await asyncio.gather(ask(), ask())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(asyncio.run, (many() for _ in range(4))))
    assert len(times) == 24
    assert most_starts(sorted(times), seconds) <= count
    assert max(times) - min(times) < 20 * seconds


@pytest.mark.parametrize(
    "limit", [0, (0, 1), (1, 0), (1,), (1, 2, 3), (1.5, 1), (True, 1), (1, float("inf")), ("1", 1), "1/s"]
)
def test_a_rate_limit_is_requests_and_seconds(limit):
    with pytest.raises(ConfigError, match="rate_limit is"):
        recorder(rate_limit=limit)


def test_a_rate_limit_holds_for_all_models_of_a_provider_and_key():
    key, times = new_key(), []

    def note(prompt):
        times.append(time.monotonic())
        return "ok"

    models = [recorder(note, api_key=key, rate_limit=(4, 0.3)).model, recorder(note, api_key=key).model]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda model: model.predict(["x"] * 6), models))
    assert len(times) == 12
    assert max(times) - min(times) > 2 * 0.3 - 0.05


def test_models_with_other_keys_do_not_share_an_account():
    assert account_of("host", "a") is account_of("host", "a")
    assert len({account_of("host", "a"), account_of("host", "b"), account_of("other", "a")}) == 3


# -- gates -------------------------------------------------------------------------------------------------


def test_the_server_never_sees_more_requests_in_flight_than_max_batch_size_over_threads():
    with FakeOpenAI(latency_s=0.01) as server:
        models = [openai(server, max_batch_size=5) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda model: model.predict(["abc"] * 60), models))
        assert answers == [["cba"] * 60] * 2
        assert server.max_in_flight == 5


@pytest.mark.parametrize("is_async", [True, False])
def test_a_function_is_never_called_more_often_at_once_than_max_batch_size(is_async):
    lock, running, most = threading.Lock(), [0], [0]

    def enter(by: int) -> None:
        with lock:
            running[0] += by
            most[0] = max(most[0], running[0])

    def call(model, prompt):
        enter(1)
        time.sleep(0.002)
        enter(-1)
        return prompt

    async def acall(model, prompt):
        enter(1)
        await asyncio.sleep(0.002)
        enter(-1)
        return prompt

    model = recorder(fn=acall if is_async else call, max_batch_size=3).model
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: model.predict(list("abcdefgh")), range(3))) == [list("abcdefgh")] * 3
    assert most[0] == 3


@settings(deadline=None)  # a loaded machine may take its time
@given(arrivals=moments, stays=st.lists(st.floats(0.01, 1), min_size=25, max_size=25), limit=st.integers(1, 4))
def test_a_gate_lets_in_as_many_as_it_has_places_in_turn(arrivals, stays, limit):
    gate, inside, order = Gate(limit), [0], []

    async def main(clock):
        async def one(number, at):
            await asyncio.sleep(at)
            async with gate:
                order.append(number)
                inside[0] += 1
                assert inside[0] <= limit
                await asyncio.sleep(stays[number])
                inside[0] -= 1

        await asyncio.gather(*(one(n, at) for n, at in enumerate(arrivals)))
        return clock()

    ended = virtual.run(main)
    free = [0.0] * limit
    for at, stay in zip(arrivals, stays, strict=False):
        soonest = min(range(limit), key=free.__getitem__)
        free[soonest] = max(at, free[soonest]) + stay
    assert order == list(range(len(arrivals)))
    assert ended == pytest.approx(max([*free, *arrivals], default=0.0), abs=1e-3)


@settings(deadline=None)  # a loaded machine may take its time
@given(st.lists(st.tuples(st.integers(0, 7), st.floats(0, 2)), max_size=8))
def test_those_who_give_up_at_a_gate_take_no_place_with_them(cancellations):
    gate = Gate(2)

    async def main(clock):
        async def one():
            async with gate:
                await asyncio.sleep(0.5)

        tasks = [asyncio.ensure_future(one()) for _ in range(8)]
        for number, at in cancellations:
            asyncio.get_running_loop().call_at(at, tasks[number].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        entered = [gate.__aenter__() for _ in range(2)]
        await asyncio.gather(*entered)  # both places are free again, or this waits for ever
        assert gate._free == 0

    virtual.run(main)


# -- breakers ----------------------------------------------------------------------------------------------


DOWN = ConnectionRefusedError("nobody listens")


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.admit(now)
        breaker.failed(now, DOWN)
    return breaker


def until_it_admits(breaker: Breaker, now: float) -> float:
    """When a request is let through next, on a grid of 10 ms."""
    while True:
        now += 0.01
        try:
            breaker.admit(now)
        except ProviderUnavailable:
            continue
        return now


def test_a_breaker_opens_after_failures_in_a_row_and_names_the_reason():
    breaker = opened()
    assert breaker.is_open
    with pytest.raises(ProviderUnavailable, match="nobody listens"):
        breaker.admit(0.0)


def test_failures_between_successes_open_nothing():
    breaker = Breaker()
    for _ in range(20):
        for _ in range(FAILURES_TO_OPEN - 1):
            breaker.failed(0.0, DOWN)
        breaker.succeeded()
    assert not breaker.is_open


def test_an_open_breaker_lets_one_probe_through_when_the_break_is_over():
    breaker = opened()
    now = until_it_admits(breaker, 0.0)
    assert now > 0.1
    with pytest.raises(ProviderUnavailable):
        breaker.admit(now + 100)  # the probe is not back yet


def test_a_probe_that_fails_makes_the_break_longer_up_to_a_limit():
    breaker, now, breaks = opened(), 0.0, []
    for _ in range(9):
        then = until_it_admits(breaker, now)
        breaks.append(then - now)
        breaker.failed(then, DOWN)
        now = then
    assert breaks[1] > breaks[0]
    assert all(b < LONGEST_BREAK_S * 1.2 for b in breaks)
    assert breaks[-1] > LONGEST_BREAK_S * 0.8


def test_a_probe_that_succeeds_closes_the_breaker():
    breaker = opened()
    now = until_it_admits(breaker, 0.0)
    breaker.succeeded()
    assert not breaker.is_open
    for _ in range(10):
        breaker.admit(now)


def test_a_probe_that_is_cancelled_lets_another_one_through():
    breaker = opened()
    now = until_it_admits(breaker, 0.0)
    breaker.gave_up()
    assert not breaker.is_probing
    breaker.admit(now)
    assert breaker.is_probing


def test_where_a_witness_can_be_asked_failures_in_a_row_open_nothing_before_it_failed_too():
    breaker = Breaker()
    asks = [breaker.failed(0.0, DOWN, can_ask=True) for _ in range(FAILURES_TO_OPEN + 3)]
    assert asks == [False] * (FAILURES_TO_OPEN - 1) + [True] + [False] * 3  # one asks, and what comes meanwhile waits
    assert breaker.is_probing
    breaker.succeeded()
    assert not breaker.is_open
    assert not any(breaker.failed(0.0, DOWN, can_ask=True) for _ in range(2 * FAILURES_TO_OPEN - 1))
    assert breaker.failed(0.0, DOWN, can_ask=True)
    breaker.doubted(0.0, DOWN)
    assert until_it_admits(breaker, 0.0) > 0.1


def test_one_doubts_at_a_time_and_holds_nobody_up():
    breaker = Breaker()
    assert breaker.ask()
    assert not breaker.ask()
    breaker.admit(0.0)
    breaker.succeeded()
    assert breaker.ask()
    breaker.gave_up()
    assert breaker.ask()
    assert not opened().ask()


def test_the_witness_is_the_quickest_request_of_late():
    account = Account(clock := Clock())

    def answered(name, took_s):
        account.succeeded({}, clock.now - took_s, by="model", witness=name)

    for name, took_s in (("slow", 3.0), ("quick", 1.0), ("slower", 4.0)):
        answered(name, took_s)
    assert (account.witness("model"), account.witness("other")) == ("quick", None)
    clock.now += WITNESS_STANDS_S + 1
    answered("newer", 2.0)
    assert account.witness("model") == "newer"


def test_who_waits_in_the_queue_when_a_provider_goes_down_is_told():
    account = Account()
    account.declare((1, 0.3), by="model")

    async def main(clock):
        account._clock = clock
        tasks = [asyncio.ensure_future(account.start()) for _ in range(4)]
        await asyncio.sleep(0.35)
        for _ in range(FAILURES_TO_OPEN):
            account.failed(DOWN)
        return [type(result) for result in await asyncio.gather(*tasks, return_exceptions=True)]

    assert virtual.run(main) == [float, float, ProviderUnavailable, ProviderUnavailable]


def test_a_dead_server_is_asked_now_and_then_and_not_again_and_again():
    with FakeOpenAI() as server:
        server.go_down(503)
        model = openai(server, max_tries=1)
        for _ in range(50):
            with pytest.raises(ProviderUnavailable):
                model.predict("x")
        assert server.received < FAILURES_TO_OPEN + 3
        server.come_up()
        deadline = time.monotonic() + 20
        while (answer := answer_or_none(model)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert answer == "cba"


def answer_or_none(model):
    try:
        return model.predict("abc")
    except ProviderUnavailable:
        return None


def test_a_limit_that_is_declared_anew_takes_the_place_of_the_old_one():
    account = Account(clock := Clock())
    account.declare((1, 10.0), by="model")
    assert started(account) == 1
    account.declare((3, 10.0), by="model")
    clock.now += 0.1
    assert started(account) == 2  # the first counts still


def test_a_gate_that_grows_lets_in_who_waits():
    async def main():
        gate = Gate(1)
        async with gate:
            entering = asyncio.ensure_future(gate.__aenter__())
            await asyncio.sleep(0)
            gate.resize(2)
            await asyncio.wait_for(entering, 5)
            gate.resize(1)
            third = asyncio.ensure_future(gate.__aenter__())
            await gate.__aexit__()
            await asyncio.sleep(0)
            assert not third.done()
        await asyncio.wait_for(third, 5)

    asyncio.run(main())


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


LOOK = 7


def started(account: Account) -> int:
    """How many of a few requests start at once."""

    async def main() -> int:
        tasks = [asyncio.ensure_future(account.start()) for _ in range(LOOK)]
        for _ in range(3 * LOOK):
            await asyncio.sleep(0)
        done = sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return done

    return asyncio.run(main())
