"""Limits are the same on every database: what is kept of errors, however many rows fail."""

from __future__ import annotations

import pytest

from pinnacle import model
from pinnacle.base import limits
from tests.contract.documents import create_docs

pytestmark = pytest.mark.same_standalone


def refusing(said: str = "no"):
    """A model that refuses every row, at some length."""

    def fail(body):
        raise ValueError(f"{body}: {said}")

    return model(fail, identifier="refusing", output_type=str, max_attempts=1)


def test_a_message_keeps_its_beginning_and_a_traceback_its_end(backend, db):
    create_docs(backend, "a")
    refusing("x" * 20_000 + " end").predict(X="body", db=db, select=backend.query("docs"))
    (error,) = db.errors()
    assert (len(error.message), error.message[:4]) == (limits.MAX_MESSAGE, "a: x")
    assert (len(error.traceback), error.traceback.strip()[-4:]) == (limits.MAX_TRACEBACK, " end")


def test_what_no_database_takes_is_escaped_in_one_way(backend, db):
    create_docs(backend, "a")
    refusing("nul \x00 and surrogate \ud800").predict(X="body", db=db, select=backend.query("docs"))
    (error,) = db.errors()
    assert error.message == "a: nul \\x00 and surrogate \\ud800"
    assert "nul \\x00 and surrogate \\ud800" in error.traceback


def test_only_the_newest_errors_of_an_output_keep_their_traceback(backend, db, monkeypatch):
    monkeypatch.setattr(limits, "MAX_TRACEBACKS", 3)
    create_docs(backend, "a", "b", table="others")
    create_docs(backend, "1", "2", "3", "4")
    refusing().predict(X="body", db=db, select=backend.query("others"))
    for count in (1, 2, 3, 4):
        refusing().predict(X="body", db=db, select=backend.query("docs"), limit=count)
    found = {(error.output.split(".")[0], error.key): error for error in db.errors()}
    assert {place for place, error in found.items() if error.traceback} == {
        ("others", 1), ("others", 2), ("docs", 2), ("docs", 3), ("docs", 4),
    }  # fmt: skip
    assert found["docs", 1].message == "1: no"
    assert (found["docs", 1].attempts, len(found)) == (1, 6)


def test_a_batch_of_more_failures_keeps_as_many_tracebacks(backend, db, monkeypatch):
    monkeypatch.setattr(limits, "MAX_TRACEBACKS", 3)
    create_docs(backend, *"abcdef")
    refusing().predict(X="body", db=db, select=backend.query("docs"))
    assert sorted(bool(error.traceback) for error in db.errors()) == [False] * 3 + [True] * 3


def test_errors_are_listed_up_to_a_bound_newest_first(backend, db):
    create_docs(backend, "1", "2", "3")
    for count in (1, 2, 3):
        refusing().predict(X="body", db=db, select=backend.query("docs"), limit=count)
    assert [error.key for error in db.errors(limit=2)] == [3, 2]
