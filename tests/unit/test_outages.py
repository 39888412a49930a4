"""What counts as a provider that does not answer, and what as a row's own failure."""

from __future__ import annotations

import pytest

from pinnacle.base.outages import is_outage


class Answered(Exception):
    """An HTTP client's error with a status of its own."""

    def __init__(self, status: int) -> None:
        self.status_code = status


class Response:
    status_code = 503


class WithResponse(Exception):
    response = Response()


class TransportError(Exception):
    """Named as httpx names what failed before any answer."""


class ConnectTimeout(TransportError):
    pass


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_an_answer_to_come_back_later_is_an_outage(status):
    assert is_outage(Answered(status))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_an_answer_about_the_request_is_none(status):
    assert not is_outage(Answered(status))


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), WithResponse(), ConnectTimeout()])
def test_no_answer_is_an_outage(error):
    assert is_outage(error)


@pytest.mark.parametrize("error", [ValueError("503"), KeyError("timeout"), OSError(28, "disk full")])
def test_other_errors_are_the_rows_own(error):
    assert not is_outage(error)


def test_what_an_error_was_raised_from_counts():
    def call():
        try:
            raise ConnectionResetError
        except ConnectionResetError as error:
            raise RuntimeError("the call failed") from error

    with pytest.raises(RuntimeError) as caught:
        call()
    assert is_outage(caught.value)


def test_a_status_is_believed_before_the_error_below_it():
    error = Answered(400)
    error.__cause__ = TimeoutError()
    assert not is_outage(error)
