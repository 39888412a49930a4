"""Chunks on their way: cut to size, made ahead of who takes them, in order, and never far."""

from __future__ import annotations

import threading
import time

import pytest

from pinnacle.base.chunks import pieces, read_ahead


def test_large_chunks_are_cut_and_small_ones_stay_as_they_are():
    assert list(pieces([b"abcdefg", b"", b"xy", b"zzz"], 3)) == [b"abc", b"def", b"g", b"xy", b"zzz"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_items_come_in_order(count):
    assert list(read_ahead(iter(range(count)), 3)) == list(range(count))


def test_a_single_item_needs_no_thread():
    before = set(threading.enumerate())
    reading = read_ahead(iter([1]))
    assert next(reading) == 1
    assert not set(threading.enumerate()) - before


def test_no_more_is_made_than_what_is_asked_to_be_ahead():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    reading = read_ahead(items(), 3)
    for _ in range(5):
        next(reading)
    deadline = time.monotonic() + 10
    while len(made) < 9 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(made) <= 5 + 3 + 2
    reading.close()


@pytest.mark.parametrize("after", [0, 1, 2, 7])
def test_an_error_comes_after_the_items_that_were_made_before_it(after):
    def items():
        yield from range(after)
        raise OSError("gone")

    reading, taken = read_ahead(items(), 2), []
    with pytest.raises(OSError, match="gone"):
        taken.extend(iter(reading))
    assert taken == list(range(after))


def test_who_stops_early_ends_the_thread_and_closes_what_was_read():
    closed, before = [], set(threading.enumerate())

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    reading = read_ahead(items(), 2)
    assert [next(reading) for _ in range(3)] == [0, 1, 2]
    reading.close()
    assert (closed, set(threading.enumerate()) - before) == ([True], set())
