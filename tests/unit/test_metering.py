"""What calls cost: counted once, from any thread, and never more than a budget allows."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinnacle import BudgetReached, ConfigError, Price, Usage
from pinnacle.base.metering import Meter, meter
from pinnacle.llm.prices import price_of
from pinnacle.testing import FakeOpenAI
from tests.llms import embedder, openai, recorder

PRICE = (5e-7, 1.5e-6)


def test_usage_adds_up_and_is_false_when_it_is_nothing():
    total = Usage(1, 0, 1, 10, 5, 0, 0.5) + Usage(calls=2, failed=1, cached=3, cost=0.25)
    assert total == Usage(3, 1, 1, 10, 5, 3, 0.75)
    assert not Usage()
    assert Usage(cached=1)


def test_a_meter_loses_nothing_to_many_threads():
    total = Meter()

    def work(seed: int) -> None:
        for _ in range(500):
            total.settle(total.reserve(0.25), Usage(calls=1, input_tokens=seed, cost=0.25))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert total.total == Usage(calls=4000, input_tokens=500 * sum(range(8)), cost=1000.0)
    assert total._reserved == 0


def test_what_was_taken_is_not_taken_again():
    one = Meter()
    one.count(Usage(calls=2, cost=0.5))
    assert (one.take(), one.take()) == (Usage(calls=2, cost=0.5), Usage())
    one.count(Usage(calls=1))
    assert (one.take(), one.total) == (Usage(calls=1), Usage(calls=3, cost=0.5))


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 5))
def test_calls_that_cost_what_they_were_expected_to_never_pass_a_budget(costs, budget):
    one = Meter(budget)
    for cost in costs:
        try:
            reserved = one.reserve(cost)
        except BudgetReached:
            continue
        one.settle(reserved, Usage(calls=1, cost=cost))
    assert one.total.cost <= budget


def test_a_budget_is_passed_by_no_more_than_the_calls_in_flight_when_they_cost_more_than_expected():
    in_flight, cost, budget = 8, 0.01, 0.2
    one = Meter(budget)

    def work(seed: int) -> int:
        chance, done = random.Random(seed), 0
        while True:
            try:
                reserved = one.reserve(chance.random() * cost / 10)
            except BudgetReached:
                return done
            one.settle(reserved, Usage(calls=1, cost=cost))
            done += 1

    with ThreadPoolExecutor(in_flight) as pool:
        calls = sum(pool.map(work, range(in_flight)))
    assert one.total.calls == calls
    assert budget - 2 * cost <= one.total.cost <= budget + in_flight * cost


def test_a_reached_budget_names_what_is_left_and_what_the_next_call_may_cost():
    one = Meter(1.0)
    one.settle(one.reserve(0.75), Usage(calls=1, cost=0.75))
    with pytest.raises(BudgetReached, match=r"\$1 leaves \$0\.250000.*may cost \$0\.750000"):
        one.reserve(0.1)


def test_a_call_that_failed_gives_back_what_was_set_aside():
    one = Meter(1.0)
    for _ in range(10):
        one.settle(one.reserve(0.9), Usage(calls=1, failed=1))
    assert one.total == Usage(calls=10, failed=10)


# -- prices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cost", "price"),
    [
        (None, None),
        (5e-7, Price(5e-7, 0.0)),
        ((5e-7, 1e-6), Price(5e-7, 1e-6)),
        ([1, 2], Price(1, 2)),
        (0, Price(0)),
        ((2.0, 3.0, 0.5), Price(2.0, 3.0, 0.5)),
    ],
)
def test_a_price_is_a_pair_or_one_number_for_input(cost, price):
    assert price_of(cost) == price


@pytest.mark.parametrize("cost", [-1, (1,), (1, 2, 3, 4), ("1", 2), True, (float("nan"), 1), float("inf"), {"in": 1}])
def test_what_is_no_price_is_refused_at_construction(cost):
    with pytest.raises(ConfigError, match="cost is US dollars a token"):
        recorder(cost=cost)


# -- models --------------------------------------------------------------------------------------------------


def test_the_cost_of_a_model_is_its_tokens_times_its_price():
    with FakeOpenAI() as server:
        model = openai(server, cost=PRICE, max_batch_size=8)
        model.predict([f"{'word ' * (number % 7)}end" for number in range(100)])
        total, stats = model.spent.total, server.stats()
    assert (total.input_tokens, total.output_tokens) == (stats["prompt_tokens"], stats["completion_tokens"])
    exact = total.input_tokens * Fraction(PRICE[0]) + total.output_tokens * Fraction(PRICE[1])
    assert total.cost == pytest.approx(float(exact), rel=1e-12)
    assert total.calls == 100


def test_failed_and_repeated_requests_are_counted_and_cost_nothing():
    with FakeOpenAI("two words", faults=["500", None, "garbage"]) as server:
        model = openai(server, cost=(1.0, 10.0))
        model.predict(["one", "one"])
        total = model.spent.total
        assert total == Usage(calls=4, failed=2, retried=2, input_tokens=2, output_tokens=4, cost=42.0)


def test_a_run_counts_what_its_calls_cost_beside_the_model():
    run = Meter()
    token = meter.set(run)
    try:
        model = recorder(lambda prompt: ("ok", (3, 1)), cost=(1.0, 10.0)).model
        model.predict(["a", "b"])
    finally:
        meter.reset(token)
    model.predict("c")
    assert run.total == Usage(calls=2, input_tokens=6, output_tokens=2, cost=26.0)
    assert model.spent.total == Usage(calls=3, input_tokens=9, output_tokens=3, cost=39.0)


def test_no_call_is_made_that_a_budget_does_not_cover():
    asked = recorder(lambda prompt: ("ok", (3, 1)), cost=(1.0, 10.0), max_batch_size=1)
    token = meter.set(Meter(13.0 * 3 + 1))
    try:
        with pytest.raises(BudgetReached):
            asked.model.predict(["abc def"] * 10)
    finally:
        meter.reset(token)
    assert len(asked.asked) == 3


def test_the_answers_own_limit_is_part_of_what_a_call_may_cost():
    asked = recorder(lambda prompt: ("ok", (1, 1)), cost=(1.0, 10.0))
    token = meter.set(Meter(100.0))
    try:
        with pytest.raises(BudgetReached, match=r"may cost \$101"):
            asked.model.predict("abc", max_tokens=10)
    finally:
        meter.reset(token)
    assert asked.asked == []


def test_tokens_that_are_not_told_are_estimated_where_there_is_a_price():
    priced, free = recorder("x" * 6, cost=(1.0, 10.0)).model, recorder("x" * 6).model
    priced.predict("x" * 9)
    free.predict("x" * 9)
    assert priced.spent.total == Usage(calls=1, input_tokens=3, output_tokens=2, cost=23.0)
    assert free.spent.total == Usage(calls=1)


def test_asking_again_for_an_answer_that_fits_is_paid_for_each_time():
    answers = iter(["eggs", "ham"])
    asked = recorder(lambda prompt: (next(answers), (1, 1)), cost=(1.0, 10.0), choices=["ham"])
    assert asked.model.predict("x") == "ham"
    assert asked.model.spent.total == Usage(calls=2, input_tokens=2, output_tokens=2, cost=22.0)


def test_an_embedder_costs_its_tokens_times_one_price():
    model = embedder(cost=0.5, batch_size=2)
    model.embed(["one", "two words", "and three words"])
    assert model.spent.total == Usage(calls=2, input_tokens=6, cost=3.0)
