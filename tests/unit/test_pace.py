"""The learned pace against a simulated provider with a sliding window: how much it gets, and how much is refused."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pinnacle.llm.pace import Pace, seconds_of
from pinnacle.testing.limits import SlidingWindow, retry_after

PLACES, LATENCY_S = 64, 0.05
dice = random.Random(1)


@dataclass
class Provider:
    """Takes a request or not, as the fake server does; the clock is the simulation's."""

    window: SlidingWindow
    tells: bool
    changed: tuple[float, int] | None = None
    chance: float = 0.0
    taken: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def meet(self, now: float) -> tuple[bool, dict[str, str]]:
        if self.changed is not None and now >= self.changed[0]:
            self.window.count = self.changed[1]
        is_taken = dice.random() >= self.chance and self.window.admit(now)
        (self.taken if is_taken else self.refused).append(now)
        headers = self.window.headers(now) if self.tells else {}
        if self.tells and not is_taken:
            headers |= {name.lower(): value for name, value in retry_after(self.window.wait_s(now)).items()}
        return is_taken, headers

    def rate(self, since: float, until: float) -> float:
        return sum(since <= at < until for at in self.taken) / (until - since)

    def refused_share(self, since: float, until: float) -> float:
        refused = sum(since <= at < until for at in self.refused)
        return refused / (refused + sum(since <= at < until for at in self.taken))


def delays(seed: int, usual_s: float, rare_s: float) -> Iterator[float]:
    """Of the network and of a machine that also does other things."""
    source = random.Random(seed)
    while True:
        yield source.uniform(0, usual_s) + (source.uniform(0, rare_s) if source.random() < 0.02 else 0.0)


def simulated(provider: Provider, seconds: float, *, seed: int = 0, rare_s: float = 0.05) -> Pace:
    """A client that always has more to ask, with so many places."""
    pace, late = Pace(), delays(seed, 0.004, rare_s)
    events: list[tuple[float, int, str, Any]] = []
    numbers = iter(range(10**9))

    def then(at: float, what: str, value: Any = None) -> None:
        heapq.heappush(events, (at, next(numbers), what, value))

    free, now = PLACES, 0.0
    then(0.0, "look")
    while now < seconds:
        now, _, what, value = heapq.heappop(events)
        if what == "look" and free:
            wait = pace.wait_s(now)
            if wait > 0:
                then(now + wait + next(late) / 4, "look")
                continue
            pace.started(now)
            free -= 1
            then(now + next(late), "arrive", now)
            then(now, "look")
        elif what == "arrive":
            is_taken, headers = provider.meet(now)
            told = (headers, value)
            then(now + next(late) + (LATENCY_S if is_taken else 0), "accepted" if is_taken else "refused", told)
        elif what in ("accepted", "refused"):
            getattr(pace, what)(now, *value)
            free += 1
            if free == 1:
                then(now, "look")
    return pace


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("count", "seconds"), [(20, 1), (100, 1), (300, 10)])
def test_a_limit_told_in_headers_is_held_and_hardly_passed(count, seconds, seed):
    provider = Provider(SlidingWindow(count, seconds), tells=True)
    simulated(provider, 30.0, seed=seed)
    assert provider.rate(0, 30) >= 0.95 * count / seconds
    assert provider.refused_share(3, 30) <= 0.02


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("count", "seconds", "share", "refused"), [(20, 1, 0.95, 0.05), (100, 1, 0.95, 0.05), (300, 10, 0.7, 0.06)]
)
def test_a_limit_that_nobody_tells_is_held_and_seldom_passed(count, seconds, share, refused, seed):
    provider = Provider(SlidingWindow(count, seconds), tells=False)
    simulated(provider, 30.0, seed=seed)
    assert provider.rate(0, 30) >= share * count / seconds
    assert provider.refused_share(3, 30) <= refused


def test_a_limit_that_is_raised_is_found():
    provider = Provider(SlidingWindow(20, 1), tells=False, changed=(30.0, 40))
    simulated(provider, 120.0)
    assert provider.rate(0, 30) >= 0.95 * 20
    assert provider.rate(90, 120) >= 0.9 * 40


@pytest.mark.parametrize("before", [100, 500])
def test_a_limit_that_is_lowered_is_found(before):
    provider = Provider(SlidingWindow(before, 1), tells=False, changed=(8.0, 20))
    simulated(provider, 33.0)
    assert provider.rate(13, 33) >= 0.7 * 20


def test_refusals_by_chance_hardly_slow_a_client_down():
    provider = Provider(SlidingWindow(10_000, 1), tells=False, chance=0.1)
    simulated(provider, 5.0)
    assert provider.rate(0, 5) >= 0.8 * PLACES / (LATENCY_S + 0.004)


def test_a_client_does_not_collapse_where_most_are_refused_by_chance():
    provider = Provider(SlidingWindow(10_000, 1), tells=False, chance=0.6)
    simulated(provider, 8.0)
    assert provider.rate(0, 8) >= 0.2 * PLACES / (LATENCY_S + 0.004)


def test_a_pause_that_an_answer_asks_for_is_made():
    pace = Pace()
    pace.started(0.0)
    pace.refused(0.1, {"retry-after-ms": "700", "retry-after": "1"})
    assert pace.wait_s(0.1) == pytest.approx(0.7)


def test_a_burst_that_is_refused_in_part_tells_the_rate_that_was_taken():
    pace = Pace()
    for _ in range(64):
        pace.started(0.0)
    for _ in range(44):
        pace.refused(0.01, {}, started=0.0)
    assert pace.rate == 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1.5", 1.5), ("20ms", 0.02), ("6m0s", 360.0), ("1h2m3s", 3723.0), ("soon", None), ("", None), (None, None)],
)
def test_durations_are_read_as_providers_write_them(text, seconds):
    assert seconds_of(text) == seconds
