"""Inputs of several owners on their way at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from pinnacle import model
from pinnacle.base import loop
from pinnacle.base.rows import Fields
from pinnacle.runtime import flight
from pinnacle.runtime.caller import Caller
from pinnacle.runtime.flow import Flow
from tests.contract.documents import wait_until


def flow_of(function: Any, **options: Any) -> Flow:
    options = {"identifier": "m", "output_type": int, "concurrency": 2, "retry_delay_s": 0, **options}
    return Flow(Caller(model(function, **options), Fields(("x",)), {}, 4))


def taken_until(flow: Flow, is_enough: Any) -> list[Any]:
    """(owner, position, output or error, whether others were served) of all that comes until there is enough of it."""
    seen: list[Any] = []

    def look() -> bool:
        for owner, outcomes in flow.take():
            seen.extend((owner, *pair) for pair in zip(outcomes.positions, outcomes.outputs, strict=True))
            seen.extend((owner, item.position, str(item.error), item.others_served) for item in outcomes.unanswered)
            seen.extend((owner, item.position, str(item.error)) for item in outcomes.failed)
        return bool(is_enough(seen))

    wait_until(look)
    return seen


def test_what_hangs_holds_back_neither_its_own_page_nor_the_next():
    released: list[asyncio.Event] = []

    async def answer(value):
        if value == 0:
            released.append(asyncio.Event())
            await released[0].wait()
        return value

    flow = flow_of(answer)
    flow.add("first", range(4), [0, 1, 2, 3])
    flow.add("second", range(10, 14), [4, 5, 6, 7])
    seen = taken_until(flow, lambda seen: len(seen) == 7)
    assert sorted(seen) == [
        ("first", 1, 1), ("first", 2, 2), ("first", 3, 3),
        ("second", 10, 4), ("second", 11, 5), ("second", 12, 6), ("second", 13, 7),
    ]  # fmt: skip
    assert not flow.is_over
    flow._calls._loop.call_soon_threadsafe(released[0].set)
    assert taken_until(flow, lambda _: flow.is_over) == [("first", 0, 0)]


def test_what_meets_no_answer_comes_back_once_another_is_answered():
    async def answer(value):
        if value == 0:
            raise ConnectionError("gone")
        return value

    flow = flow_of(answer, concurrency=1)
    flow.add("page", range(3), [0, 1, 2])
    assert taken_until(flow, lambda _: flow.is_over) == [("page", 1, 1), ("page", 2, 2), ("page", 0, "gone", True)]
    assert flow._caller.outage is None


def test_what_answers_as_it_is_cancelled_is_handed_over_and_no_other_has_failed(monkeypatch):
    monkeypatch.setattr(flight, "CLOSE_S", 600.0)
    asked = []

    async def answer(value):
        asked.append(value)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if value == 2:
                raise ValueError("cut off") from None
            if value == 0:
                raise
        return value

    flow = flow_of(answer, concurrency=3)
    flow.add("page", range(10, 14), range(4))
    wait_until(lambda: len(asked) == 3)
    (portion,) = flow.close()
    assert (portion[0], portion[1].positions, portion[1].outputs) == ("page", [11], [1])
    assert (portion[1].failed, portion[1].unanswered) == ([], [])
    assert (flow.is_over, flow.close(), sorted(asked)) == (True, [], [0, 1, 2])


def test_calls_in_threads_return_before_it_is_closed_and_are_handed_over(monkeypatch):
    monkeypatch.setattr(flight, "CLOSE_S", 600.0)
    asked = []

    def answer(value):
        asked.append(value)
        wait_until(lambda: flow.is_over)
        return value

    flow = flow_of(answer)
    flow.add("page", range(10, 14), range(4))
    wait_until(lambda: len(asked) == 2)
    outcomes = [outcomes for _, outcomes in flow.close()]
    assert sorted(position for done in outcomes for position in done.positions) == [10, 11]
    assert sorted(asked) == [0, 1]


def test_calls_in_threads_that_wait_for_a_server_are_cut_off_and_have_not_failed(monkeypatch):
    monkeypatch.setattr(flight, "CLOSE_S", 0.01)
    asked, ended = [], []

    async def request(value):
        asked.append(value)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(value)

    flow = flow_of(lambda value: loop.run(request(value)))
    flow.add("page", range(4), range(4))
    wait_until(lambda: len(asked) == 2)
    assert flow.close() == []
    assert sorted(asked) == sorted(ended) == [0, 1]


def test_what_does_not_end_when_it_is_cancelled_is_waited_for_a_moment_only(monkeypatch):
    monkeypatch.setattr(flight, "CLOSE_S", 0.01)
    asked, released = [], []

    async def answer(value):
        asked.append(value)
        while not released:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return value

    flow = flow_of(answer)
    flow.add("page", [0], [0])
    wait_until(lambda: asked == [0])
    assert flow.close() == []
    released.append(True)


def test_outages_in_a_row_end_it_and_the_rest_is_not_asked_for():
    asked = []

    async def answer(value):
        asked.append(value)
        raise ConnectionError("gone")

    flow = flow_of(answer, concurrency=1)
    flow.add("page", range(9), range(9))
    seen = taken_until(flow, lambda _: flow.is_over)
    assert seen == [("page", n, "gone", False) for n in range(3)]
    assert (asked, str(flow._caller.outage)) == ([0, 1, 2], "gone")


@pytest.mark.parametrize("concurrency", [1, 3])
def test_what_is_tried_again_waits_without_a_place(concurrency):
    tried: list[int] = []

    async def answer(value):
        tried.append(value)
        if value == 0 and tried.count(0) < 2:
            raise ValueError("again")
        return value

    flow = flow_of(answer, concurrency=concurrency, retry_delay_s=0.05)
    flow.add("page", range(3), [0, 1, 2])
    assert sorted(taken_until(flow, lambda _: flow.is_over)) == [("page", n, n) for n in range(3)]
    assert tried == [0, 1, 2, 0]
