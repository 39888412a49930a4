"""What predict takes for its arguments, and how it stops when its caller does."""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy as sa

from pinnacle import ConfigError, UnsupportedQuery, model
from pinnacle.backends.protocol import Capability
from tests.models import note

pytestmark = pytest.mark.same_standalone


@model
def first_letter(body: str) -> str:
    return body[:1]


@model
def slow_length(body: str) -> int:
    time.sleep(0.005)
    return len(note(body))


def create(backend, rows):
    backend.create("docs", {"body": str, "n": int})
    backend.insert("docs", *({"body": f"text {i}", "n": i} for i in range(rows)))


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "arguments",
    [{"X": ("body", "n")}, {"X": "body", "temperature": 0.5}, {"X": {"input": "body", "style": "n"}}],
    ids=["too many fields", "an unknown keyword", "an unknown argument"],
)
def test_arguments_the_function_does_not_take_are_refused_before_anything_is_written(backend, db, arguments):
    create(backend, 3)
    before = backend.read_all("docs")
    with pytest.raises(ConfigError, match="first_letter"):
        first_letter.predict(db=db, select=backend.query("docs"), **arguments)
    assert backend.read_all("docs") == before
    assert db.show() == []


def test_a_cancelled_apredict_stops_and_keeps_what_it_computed(backend, db, calls):
    create(backend, 400)

    async def impatient():
        predicting = asyncio.create_task(slow_length.apredict(X="body", db=db, select=backend.query("docs")))
        while len(calls) < 40:
            await asyncio.sleep(0.01)
        predicting.cancel()
        await predicting

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(impatient())
    result = slow_length.predict(X="body", db=db, select=backend.query("docs"))
    assert 0 < result.fresh < 400
    assert result.fresh + result.written == 400


@pytest.mark.requires(Capability.SQL)
def test_a_limited_query_on_its_own_output_does_the_next_rows_each_time(backend, db):
    create(backend, 350)
    table = backend.entity("docs")
    first_letter.predict(X="body", db=db, select=backend.query("docs").where(table.c.n < 0))
    column = db.output(table, "body", "first_letter")
    undone = backend.query("docs").where(column.is_(None)).order_by(table.c.n.desc()).limit(150)
    written = [first_letter.predict(X="body", db=db, select=undone).written for _ in range(4)]
    assert written == [150, 150, 50, 0]
    assert {row["body__first_letter"] for row in backend.read_all("docs").values()} == {"t"}


@pytest.mark.requires(Capability.SQL)
def test_an_alias_selects_the_rows_its_condition_names(backend, db):
    create(backend, 5)
    alias = backend.entity("docs").alias()
    first_letter.predict(X="body", db=db, select=alias.select().where(alias.c.n == 2))
    done = [row["n"] for row in backend.read_all("docs").values() if row["body__first_letter"] is not None]
    assert done == [2]


@model
def scaled(n: int, factor: int = 1) -> int:
    return n * factor


def test_other_keywords_for_the_model_make_its_outputs_stale(backend, db):
    create(backend, 4)
    predict = {"X": "n", "db": db, "select": backend.query("docs"), "output": "product"}
    scaled.predict(**predict)
    doubled = scaled.predict(**predict, factor=2)
    again = scaled.predict(**predict, factor=2)
    assert (doubled.written, again.written, again.fresh) == (4, 0, 4)
    assert [row["product"] for row in backend.read_all("docs").values()] == [0, 2, 4, 6]
    assert scaled.predict(**predict).written == 4


@pytest.mark.requires(Capability.SQL)
def test_a_query_that_cannot_run_is_refused_before_anything_is_written(backend, db):
    create(backend, 3)
    table = backend.entity("docs")
    before = backend.read_all("docs")
    unbound = backend.query("docs").where(table.c.n == sa.bindparam("never_given"))
    with pytest.raises(UnsupportedQuery, match="never_given"):
        first_letter.predict(X="body", db=db, select=unbound)
    assert backend.read_all("docs") == before


@pytest.mark.anywhere
@pytest.mark.parametrize("timeout_s", [float("nan"), -1])
def test_drain_refuses_a_time_that_cannot_be_meant(db, timeout_s):
    with pytest.raises(ConfigError, match="number of seconds from 0"):
        db.drain(timeout_s)
