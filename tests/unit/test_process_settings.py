"""What is set for the whole process while predictions are at work is as before when the last of them ends."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import pytest

from pinnacle.runtime.process_settings import YOUNG_OBJECTS, BorrowedSetting, brisk, rare_collections


def setting(value: int = 5):
    """A setting that is twice as much meanwhile, and what it is now."""
    now = [value]
    return BorrowedSetting(lambda: now[0], lambda other: now.__setitem__(0, other), lambda usual: 2 * usual), now


def test_the_last_one_puts_it_back_also_after_an_error():
    doubled, now = setting()
    with doubled:
        with suppress(KeyboardInterrupt), doubled:
            raise KeyboardInterrupt
        assert now == [10]
    assert now == [5]
    now[0] = 7
    with doubled:
        assert now == [14]
    assert now == [7]


def test_threads_that_come_and_go_leave_it_as_it_was():
    doubled, now = setting()
    together, seen = Barrier(4), set()

    def borrow(_):
        for _ in range(50):
            with doubled:
                seen.add(now[0])
        together.wait(600)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(borrow, range(4)))
    assert (seen, now) == ({10}, [5])


def test_what_somebody_else_sets_meanwhile_stays():
    doubled, now = setting()
    with doubled:
        now[0] = 3
    assert now == [3]


def test_turns_are_short_and_collections_rare_meanwhile():
    interval_s, threshold = sys.getswitchinterval(), gc.get_threshold()
    with brisk, rare_collections:
        assert sys.getswitchinterval() < interval_s
        assert gc.get_threshold() == (YOUNG_OBJECTS, *threshold[1:])
    assert (sys.getswitchinterval(), gc.get_threshold()) == (interval_s, threshold)


@pytest.mark.parametrize("threshold", [(0, 10, 10), (50_000, 5, 5)])
def test_a_program_that_collects_less_often_goes_on_so(threshold):
    before = gc.get_threshold()
    gc.set_threshold(*threshold)
    try:
        with rare_collections:
            assert gc.get_threshold() == threshold
        assert gc.get_threshold() == threshold
    finally:
        gc.set_threshold(*before)
