"""What headers and refusals say of a pace, and that it is kept with a real server."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinnacle.llm.pace import Pace, retry_after_s, seconds_of
from pinnacle.testing import FakeOpenAI, Faults
from pinnacle.testing.limits import SlidingWindow, in_words
from tests.llms import openai

NO_HEADERS: dict[str, str] = {}


def drive(pace: Pace, limit: tuple[int, float] | None, seconds: float, *, after: float = 0.0, most_a_s: float = 500):
    """Times of accepted and refused starts of a sender who starts when ``pace`` lets it, at a server with a limit."""
    window = SlidingWindow(*limit) if limit else None
    now, accepted, refused = after, [], []
    while now < after + seconds:
        wait = pace.wait_s(now)
        if wait > 0:
            now += wait
            continue
        pace.started(now)
        if window is None or window.admit(now):
            accepted.append(now)
            pace.accepted(now, NO_HEADERS)
        else:
            refused.append(now)
            pace.refused(now, NO_HEADERS)
        now += 1 / most_a_s
    return accepted, refused


# -- what headers say --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1), ("1.5", 1.5), ("0", 0), ("20ms", 0.02), ("1.2s", 1.2), ("1s", 1), ("6m0s", 360), ("1h0m0s", 3600),
     ("1d", 86400), ("1m30.5s", 90.5), (" 2s ", 2)],
)  # fmt: skip
def test_durations_are_read_in_every_form_that_services_send(text, seconds):
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [None, "", " ", "soon", "1x", "s", "1s2", "-1", "nan", "inf", "1.2.3s", "--"])
def test_what_is_no_duration_is_none(text):
    assert seconds_of(text) is None


@given(st.text(max_size=20))
def test_any_header_is_read_or_passed_over(text):
    seconds = seconds_of(text)
    assert seconds is None or 0 <= seconds < math.inf


@given(st.floats(0, 100_000))
def test_what_is_written_as_openai_does_is_read_again(seconds):
    assert seconds_of(in_words(seconds)) == pytest.approx(seconds, abs=0.002, rel=1e-4)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [({}, None), ({"retry-after": "2"}, 2), ({"retry-after-ms": "150"}, 0.15), ({"retry-after": "1.5s"}, 1.5),
     ({"retry-after": "1", "retry-after-ms": "150"}, 0.15), ({"retry-after": "x", "retry-after-ms": "y"}, None)],
)  # fmt: skip
def test_the_wait_is_read_from_either_header_the_finer_one_first(headers, wait):
    assert retry_after_s(headers) == wait


# -- how it behaves ----------------------------------------------------------------------------------------


def test_who_was_never_refused_waits_for_nothing():
    pace = Pace()
    accepted, refused = drive(pace, None, 1)
    assert (len(accepted), refused) == (pytest.approx(500, abs=2), [])
    assert pace.rate is None


@pytest.mark.parametrize("header", [{"retry-after": "3"}, {"retry-after-ms": "3000"}])
def test_nothing_starts_before_the_time_that_a_refusal_asks_for(header):
    pace = Pace()
    pace.started(0)
    pace.refused(0.0, header)
    assert pace.wait_s(0.0) >= 3
    assert pace.wait_s(2.9) > 0
    assert pace.wait_s(100) <= 0


def test_an_endless_wait_is_not_believed():
    pace = Pace()
    pace.refused(0.0, {"retry-after": "1e9"})
    assert pace.wait_s(600) <= 0


# -- with a server -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [True, False])
def test_all_are_answered_by_a_server_with_a_limit_and_few_are_refused(headers):
    with FakeOpenAI(rate_limit=(20, 0.5), headers=headers, latency_s=0.005) as server:
        assert openai(server, max_batch_size=8).predict(["abc"] * 60) == ["cba"] * 60
        assert 60 <= server.served <= 62  # one that was answered may be asked again, to see whether others are served
        assert server.refused < 40


def test_the_wait_that_a_server_asks_for_is_kept():
    with FakeOpenAI(faults=Faults([None, "429"], retry_after_s=0.4)) as server:
        assert openai(server, max_batch_size=1).predict(["a", "b"]) == ["a", "b"]
        refused, again = (request.at for request in server.requests[1:])
        assert again - refused >= 0.4
