"""Rows that come back changed: those in a loop are found, and those that somebody edits are not."""

from __future__ import annotations

import pytest

from pinnacle.base.rows import Page
from pinnacle.runtime import recurrence
from pinnacle.runtime.recurrence import FREE_RETURNS, HOLD_S, MOST_RETURNS, SOON_S, Recurrence


@pytest.fixture
def clock(monkeypatch):
    """The time that rows are seen at; moved on by the test."""
    now = [1000.0]
    monkeypatch.setattr(recurrence.time, "monotonic", lambda: now[0])
    return now


def page(*identities):
    """Rows 0, 1, ... with inputs of these identities."""
    keys = range(len(identities))
    return Page(
        keys=list(keys), inputs=identities, identities=identities, witnesses=identities, read=len(keys), fresh=0,
        set_aside=0, last=None,
    )  # fmt: skip


def rounds(found, clock, edits=lambda n: 0.1, most=100):
    """Have row 0 change again and again, ``edits(n)`` seconds after its n-th write, and wait as long as it is held
    back; how often it was computed, and whether it was set aside."""
    for n in range(most):
        again = {0}
        while again:
            again.clear()
            sifted = found.sift(page(n), again)
            clock[0] += 0.02 if again else 0.0
        if sifted.unreadable:
            return n, str(sifted.unreadable[0].error)
        found.note_written([0])
        clock[0] += edits(n)
    return most, None


def test_a_row_that_only_changes_after_its_writes_is_set_aside(clock):
    computed, error = rounds(Recurrence(), clock)
    assert computed == MOST_RETURNS
    assert "another program answers every write" in error
    held_s = sum(HOLD_S * 2.0**i for i in range(MOST_RETURNS - FREE_RETURNS))
    assert clock[0] - 1000.0 == pytest.approx(held_s, abs=2.0)


def test_a_row_that_changes_later_is_not(clock):
    assert rounds(Recurrence(), clock, edits=lambda n: SOON_S + 0.5) == (100, None)


def test_a_row_that_changes_while_it_waits_is_not(clock):
    found, waited = Recurrence(), 0
    for n in range(500):  # somebody edits it every 0.3 seconds
        again = set()
        found.sift(page(n), again)
        waited += bool(again)
        if not again:
            found.note_written([0])
        clock[0] += 0.3
    assert 0 < waited < 250


def test_a_row_that_comes_back_unchanged_is_computed_each_time(clock):
    found = Recurrence()
    for _ in range(50):
        again = set()
        assert list(found.sift(page("same"), again).keys) == [0]
        found.note_written([0])
        clock[0] += 0.1
        assert not again


def test_others_of_the_page_go_on(clock):
    found = Recurrence()
    for n in range(FREE_RETURNS + 1):
        again = set()
        sifted = found.sift(page(n, "calm"), again)
        found.note_written([0, 1])
    assert (list(sifted.keys), list(sifted.inputs), again) == ([1], ["calm"], {0})
