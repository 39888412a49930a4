"""A program of the user's that answers every write of an output by changing its input."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from pinnacle.backends.protocol import Capability
from pinnacle.runtime import recurrence
from tests.contract.documents import wait_until
from tests.contract.listening import keep, values
from tests.models import CALLS

pytestmark = pytest.mark.requires(Capability.TRANSACTIONS)  # elsewhere changes are found by a sweep, seconds later


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Rows in a loop are held back for less long, and a busy machine's answers count as soon."""
    monkeypatch.setattr(recurrence, "HOLD_S", 0.05)
    monkeypatch.setattr(recurrence, "SOON_S", 60.0)


@contextmanager
def answering(backend, key):
    """A program that appends to the body of a document each time that its output has been written."""
    stop = threading.Event()

    def answer():
        while not stop.wait(0.01):
            row = backend.read("docs", key)
            if row.get("loud") == row["body"].upper():
                backend.update("docs", key, {"body": row["body"] + "+"})

    program = threading.Thread(target=answer)
    program.start()
    try:
        yield
    finally:
        stop.set()
        program.join()


def test_a_row_that_another_program_changes_with_each_write_is_set_aside(backend, db):
    listener = keep(backend, db, "a", "b")
    with answering(backend, 1):
        wait_until(lambda: db.errors())
        db.drain()
        backend.update("docs", 2, {"body": "c"})
        wait_until(lambda: values(backend)[2] == "C")
        db.drain()
    (error,) = db.errors()
    assert error.key == 1
    assert "another program answers every write" in error.message
    calls = len([body for body in CALLS if body.startswith("a")])
    assert calls <= 5 * recurrence.MOST_RETURNS  # one seen before its write is noted starts a new count
    found = db.fresh(listener)
    assert (found.fresh, found.failed) == (1, 1)
