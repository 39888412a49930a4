"""What is kept of model calls: their costs, the results of paid ones, and batches that providers work on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
import threading
import time

import pytest
import sqlalchemy as sa
from alembic import command

from pinnacle import UsageRow
from pinnacle.backends.mongodb import migrations
from pinnacle.backends.protocol import Capability
from pinnacle.backends.sql import migrate, schema
from pinnacle.base import limits
from pinnacle.base.encoding import dump_key
from pinnacle.base.usage import BatchJob
from tests.contract.documents import create_docs, has, snapshot
from tests.forks import Fork
from tests.models import picky, shout

pytestmark = pytest.mark.same_standalone

DAY_S = 86_400.0
MANY = 50


@pytest.fixture
def ledger(below):
    """What runs keep their books with."""
    return below.ledger


def spent(day="2026-11-20", model="gpt", output="docs.summary", **counters):
    return UsageRow(day=day, model=model, output=output, **counters)


def digest(number):
    return number.to_bytes(16, "big")


def job(identifier="batch_1", output=1, created_at=1.5, items=(("1", "aa" * 16),)):
    return BatchJob(
        id=identifier,
        output=output,
        model="gpt",
        version=2,
        parameters='{"temperature":0.5}',
        created_at=created_at,
        items=tuple(items),
    )


def predicted(backend, db, the_model=shout):
    """An output that is there, by its number."""
    the_model.predict(X="body", db=db, select=backend.query("docs"))
    return next(info.id for info in db.outputs() if info.model == the_model.identifier)


# -- usage ------------------------------------------------------------------------------------------


@pytest.mark.unmigrated
def test_nothing_is_used_and_nothing_is_kept_where_nothing_was_put(backend, db, ledger):
    create_docs(backend, "a")
    before = snapshot(backend)
    ledger.add_usage([])
    ledger.cache({}, 60)
    ledger.clear_cache()
    ledger.delete_batch("batch_1")
    assert (db.usage(), ledger.cached([digest(1)]), ledger.batches(1)) == ([], {}, [])
    assert snapshot(backend) == before


def test_usage_is_given_back_as_it_was_added(db, ledger):
    row = spent(calls=9, failed=2, retried=1, input_tokens=2**40, output_tokens=7, cached=3, cost=0.125)
    ledger.add_usage([row])
    assert db.usage() == [row]
    assert {type(value) for value in dataclasses.astuple(db.usage()[0])} == {str, int, float}


def test_usage_adds_up_by_day_model_and_output(db, ledger):
    for counters in ({"calls": 2, "cost": 0.25}, {"calls": 3, "failed": 1, "cost": 0.5}):
        ledger.add_usage([spent(**counters), spent(model="other", **counters), spent(output="", **counters)])
    total = {"calls": 5, "failed": 1, "cost": 0.75}
    assert db.usage() == [spent(output="", **total), spent(**total), spent(model="other", **total)]


def test_rows_of_one_addition_that_count_the_same_are_summed(db, ledger):
    ledger.add_usage([spent(calls=1, input_tokens=10), spent(calls=1, input_tokens=20), spent(calls=1)])
    assert db.usage() == [spent(calls=3, input_tokens=30)]


def test_a_cost_that_begins_as_a_whole_number_goes_on_as_a_fraction(db, ledger):
    for cost in (0, 1, 0.5):
        ledger.add_usage([spent(cost=cost)])
    assert repr(db.usage()[0].cost) == "1.5"


def test_ten_thousand_small_costs_are_their_sum(db, ledger):
    price = 5e-7
    for _ in range(20):
        ledger.add_usage([spent(calls=1, input_tokens=77, cost=77 * price)] * 500)
    (row,) = db.usage()
    assert (row.calls, row.input_tokens) == (10_000, 770_000)
    assert row.cost == pytest.approx(770_000 * price, rel=1e-12)


def test_the_newest_day_comes_first_and_one_model_can_be_asked_for(db, ledger):
    days = ["2026-11-20", "2027-01-01", "2026-12-31"]
    ledger.add_usage([spent(day, model, calls=1) for day in days for model in ("b", "a")])
    assert [(row.day, row.model) for row in db.usage()] == [(d, m) for d in sorted(days, reverse=True) for m in "ab"]
    assert [row.day for row in db.usage("a")] == sorted(days, reverse=True)
    ledger.add_usage([spent(model="shout", calls=4)])
    assert db.usage(shout) == [spent(model="shout", calls=4)]
    assert db.usage("nobody") == []


@pytest.mark.unmigrated
def test_threads_that_add_at_once_lose_nothing(backend, db):
    rows = [spent(model=name, calls=1, cost=0.25) for name in "abc"]
    handles = [backend.below() for _ in range(4)]

    def add(handle, order):
        for _ in range(MANY):
            handle.ledger.add_usage(order)

    threads = [
        threading.Thread(target=add, args=(handle, rows if number % 2 else rows[::-1]))
        for number, handle in enumerate(handles)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for handle in handles:
        handle.close()
    assert db.usage() == [spent(model=name, calls=4 * MANY, cost=MANY) for name in "abc"]


ADD = f"""
import re
import sys
from contextlib import closing
from pinnacle import Settings, UsageRow
from pinnacle.backends.open import open_backend
with closing(open_backend(sys.argv[1], Settings())) as below:
    for _ in range({MANY}):
        rows = [UsageRow(day="2026-11-20", model=model, output="", calls=1, cost=0.5) for model in sys.argv[2]]
        below.ledger.add_usage(rows)
"""


@pytest.mark.unmigrated
@pytest.mark.requires(Capability.TRANSACTIONS)
def test_processes_that_add_at_once_to_a_new_database_lose_nothing(backend, db):
    processes = [Fork(ADD, backend.address, models) for models in ("ab", "ba")]
    assert [process.wait(600) for process in processes] == [0, 0]
    assert db.usage() == [spent(model=name, output="", calls=2 * MANY, cost=MANY) for name in "ab"]


def test_usage_stays_when_its_model_and_output_are_removed(backend, db, ledger):
    create_docs(backend, "a")
    predicted(backend, db)
    ledger.add_usage([spent(model="shout", calls=1)])
    db.remove("model", "shout", outputs="drop")
    assert db.usage("shout") == [spent(model="shout", calls=1)]


# -- the cache of paid results ----------------------------------------------------------------------


def test_a_cached_result_is_found_by_every_handle(backend, ledger):
    texts = {digest(0): '"an answer"', b"\xff" * 16: json.dumps([0.1, None, "Grüße \x00 'quoted' %s :name"])}
    ledger.cache(texts, DAY_S)
    with contextlib.closing(backend.below()) as other:
        assert other.ledger.cached([digest(5), *texts]) == texts
        assert other.ledger.cached([digest(5)]) == {}
        assert other.ledger.cached([]) == {}


def test_a_text_that_no_database_stores_is_the_same_json_afterwards(ledger):
    text = json.dumps("half a pair: \ud83d", ensure_ascii=False)
    ledger.cache({digest(1): text}, DAY_S)
    assert json.loads(ledger.cached([digest(1)])[digest(1)]) == json.loads(text)


def test_a_later_result_takes_the_place_of_an_earlier_one(ledger):
    ledger.cache({digest(1): "1", digest(2): "2"}, DAY_S)
    ledger.cache({digest(1): "10"}, DAY_S)
    assert ledger.cached([digest(1), digest(2)]) == {digest(1): "10", digest(2): "2"}


def test_an_expired_result_is_not_given_back_until_it_is_put_again(ledger):
    ledger.cache({digest(1): "1", digest(2): "2"}, DAY_S)
    ledger.cache({digest(1): "1"}, 0)
    assert ledger.cached([digest(1), digest(2)]) == {digest(2): "2"}
    ledger.cache({digest(1): "again"}, DAY_S)
    assert ledger.cached([digest(1)]) == {digest(1): "again"}


def test_results_expire_as_the_clock_says(ledger, monkeypatch):
    ledger.cache({digest(1): "1"}, 60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert ledger.cached([digest(1)]) == {digest(1): "1"}
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert ledger.cached([digest(1)]) == {}


def test_expired_results_are_erased_by_the_puts_of_others(backend, ledger, monkeypatch):
    monkeypatch.setattr(limits, "TRIM_EVERY", 4)
    ledger.cache({digest(0): '"first"'}, DAY_S)
    ledger.cache({digest(1): '"secret"'}, 0)
    assert "secret" in str(snapshot(backend))
    ledger.cache({digest(number): '"open"' for number in range(2, 8)}, DAY_S)
    assert "secret" not in str(snapshot(backend))


def test_a_new_process_erases_what_has_expired_with_its_first_put(backend, ledger):
    ledger.cache({digest(0): '"first"'}, DAY_S)
    ledger.cache({digest(1): '"secret"'}, 0)
    assert "secret" in str(snapshot(backend))
    with contextlib.closing(backend.below()) as other:
        other.ledger.cache({digest(2): '"open"'}, DAY_S)
    assert "secret" not in str(snapshot(backend))


def test_a_cache_is_bounded_and_its_oldest_entries_go_first(ledger, monkeypatch):
    monkeypatch.setattr(limits, "MAX_CACHE_ENTRIES", 20)
    monkeypatch.setattr(limits, "TRIM_EVERY", 5)
    order = [digest(number * 37 % 101) for number in range(60)]
    for put in order:
        ledger.cache({put: "1"}, DAY_S)
        assert len(ledger.cached(order)) < 20 + 5
    kept = ledger.cached(order)
    assert [put for put in order if put in kept] == order[-len(kept) :]
    assert len(kept) >= 20


def test_a_cache_that_has_grown_too_large_shrinks_with_further_puts(ledger, monkeypatch):
    monkeypatch.setattr(limits, "TRIM_EVERY", 10)
    everything = [digest(number) for number in range(200)]
    ledger.cache(dict.fromkeys(everything[:100], "1"), DAY_S)
    monkeypatch.setattr(limits, "MAX_CACHE_ENTRIES", 20)
    sizes = []
    for start in range(100, 200, 10):
        ledger.cache(dict.fromkeys(everything[start : start + 10], "1"), DAY_S)
        sizes.append(len(ledger.cached(everything)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 20


def test_many_and_large_results_are_put_and_found_at_once(backend, ledger):
    count = 2_500 if has(backend, Capability.TRANSACTIONS) else 30
    texts = {digest(number): json.dumps(number) for number in range(count)}
    texts |= {digest(count + number): json.dumps(f"{number}" * 5_000_000) for number in range(3)}
    ledger.cache(texts, DAY_S)
    assert ledger.cached(list(texts)) == texts


def test_a_cleared_cache_has_nothing_and_takes_new_results(backend, ledger):
    ledger.cache({digest(1): '"secret"'}, DAY_S)
    ledger.clear_cache()
    assert ledger.cached([digest(1)]) == {}
    assert "secret" not in str(snapshot(backend))
    ledger.cache({digest(1): "2"}, DAY_S)
    assert ledger.cached([digest(1)]) == {digest(1): "2"}


def test_handles_that_put_and_trim_at_once_do_not_hinder_each_other(backend, ledger, monkeypatch):
    monkeypatch.setattr(limits, "MAX_CACHE_ENTRIES", 10)
    monkeypatch.setattr(limits, "TRIM_EVERY", 2)
    failures = []

    def put(handle, sign):
        try:
            for number in range(40):
                ten = [digest((sign * number * 7 + step) % 60) for step in range(10)]
                handle.ledger.cache(dict.fromkeys(ten, "1"), DAY_S if number % 3 else 0)
        except Exception as error:
            failures.append(error)

    with contextlib.closing(backend.below()) as one, contextlib.closing(backend.below()) as two:
        threads = [threading.Thread(target=put, args=pair) for pair in ((one, 1), (two, -1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


# -- batches ----------------------------------------------------------------------------------------


def test_a_batch_is_collected_by_another_handle_as_it_was_saved(backend, ledger):
    keys = [1, "x'\"%\x00", ("a", 2), None, "half a pair: \ud83d", b"\x00\xff"]
    saved = job(items=[(dump_key(key), f"{number:032x}") for number, key in enumerate(keys)])
    ledger.save_batch(saved)
    with contextlib.closing(backend.below()) as other:
        assert other.ledger.batches(1) == [saved]


def test_batches_are_listed_by_output_oldest_first(ledger):
    for identifier, output, at in (("b", 1, 3.0), ("c", 2, 2.0), ("a", 1, 1.0), ("d", 1, 1.0)):
        ledger.save_batch(job(identifier, output, at))
    assert [found.id for found in ledger.batches(1)] == ["a", "d", "b"]
    assert [found.id for found in ledger.batches(2)] == ["c"]
    assert ledger.batches(3) == []


def test_saving_a_batch_again_changes_nothing(backend, ledger):
    ledger.save_batch(job())
    before = snapshot(backend)
    ledger.save_batch(job())
    assert snapshot(backend) == before


def test_a_batch_without_items_is_a_batch(ledger):
    ledger.save_batch(job(items=()))
    assert ledger.batches(1) == [job(items=())]


def test_a_deleted_batch_is_gone_and_the_others_stay(backend, ledger):
    for identifier in ("one", "two"):
        ledger.save_batch(job(identifier))
    assert ledger.delete_batch("one")
    assert not ledger.delete_batch("one")
    assert ledger.batches(1) == [job("two")]
    assert "'one'" not in str(snapshot(backend))


def test_a_batch_is_booked_once_whoever_books_it(backend, ledger):
    ledger.save_batch(job("one"))
    ledger.save_batch(job("two"))
    ledger.add_usage([spent(calls=1, cost=0.5)])
    with contextlib.closing(backend.below()) as other:
        assert ledger.book_batch("one", [spent(calls=1, input_tokens=7, cost=0.25)])
        assert not other.ledger.book_batch("one", [spent(calls=1, input_tokens=7, cost=0.25)])
        assert other.ledger.book_batch("two", [spent(calls=1, input_tokens=2), spent(model="other", calls=1)])
        assert not other.ledger.book_batch("none", [spent(calls=1)])
    assert ledger.batches(1) == []
    found = {row.model: (row.calls, row.input_tokens, row.cost) for row in ledger.usage()}
    assert found == {spent().model: (3, 9, 0.75), "other": (1, 0, 0.0)}


def test_booking_that_was_broken_off_books_once(backend, ledger, monkeypatch):
    """The process dies between the two halves: it is done again, and neither lost nor counted twice."""
    ledger.save_batch(job("one"))
    module = sys.modules[type(ledger).__module__]
    with monkeypatch.context() as dying:
        dying.setattr(module, "failpoint", lambda name: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ledger.book_batch("one", [spent(calls=1, input_tokens=7)])
    assert ledger.batches(1) == [job("one")]
    assert ledger.book_batch("one", [spent(calls=1, input_tokens=7)])
    assert [(row.calls, row.input_tokens) for row in ledger.usage()] == [(1, 7)]


def test_fifty_thousand_items_with_long_keys_are_one_batch(backend, ledger):
    items = [(dump_key(f"{number}".rjust(400, "k")), f"{number:032x}") for number in range(50_000)]
    saved = job(items=items)
    ledger.save_batch(saved)
    assert ledger.batches(1) == [saved]
    ledger.delete_batch(saved.id)
    assert ledger.batches(1) == []
    assert "kkk" not in str(snapshot(backend))


def test_removing_an_output_removes_its_batches_and_no_others(backend, db, ledger):
    create_docs(backend, "a")
    removed, kept = predicted(backend, db), predicted(backend, db, picky)
    for identifier, output in (("one", removed), ("two", kept)):
        ledger.save_batch(job(identifier, output))
    db.remove("model", "shout", outputs="keep")
    assert (ledger.batches(removed), ledger.batches(kept)) == ([], [job("two", kept)])


# -- all three --------------------------------------------------------------------------------------


def fill(ledger):
    ledger.add_usage([spent(calls=1)])
    ledger.cache({digest(1): "1"}, DAY_S)
    ledger.save_batch(job())


@pytest.mark.unmigrated
def test_remove_all_takes_everything_and_all_works_again_afterwards(backend, db, ledger):
    create_docs(backend, "a")
    before = snapshot(backend)
    for _ in range(2):
        fill(ledger)
        db.remove_all()
        assert snapshot(backend) == before
        assert (db.usage(), ledger.cached([digest(1)]), ledger.batches(1)) == ([], {}, [])


def make_older(backend, monkeypatch):
    """Bring pinnacle's own tables to where they were before there was a ledger."""
    if has(backend, Capability.DOCUMENTS):
        with monkeypatch.context() as patched, backend.open() as db:
            patched.setattr(migrations, "ALL", migrations.ALL[:2])
            db.migrate()
        return
    own = schema.SCHEMA if has(backend, Capability.NATIVE_VECTORS) else None
    with backend.engine.begin() as connection:
        if own:
            connection.execute(sa.schema.CreateSchema(own))
        command.upgrade(migrate._config(own, connection=connection), "0002")


@pytest.mark.unmigrated
@pytest.mark.parametrize("put", ["usage", "cache", "batch"])
def test_an_older_database_is_brought_along_by_whatever_is_put_first(backend, monkeypatch, put):
    make_older(backend, monkeypatch)
    with contextlib.closing(backend.open()) as db, contextlib.closing(backend.below()) as below:
        planned = " ".join(db.migration_plan())
        assert "pinnacle_cache" in planned
        assert not re.search(r"create \S+ \S*pinnacle_component\b", planned, re.IGNORECASE)
        ledger = below.ledger
        {
            "usage": lambda: ledger.add_usage([spent(calls=1)]),
            "cache": lambda: ledger.cache({digest(1): "1"}, DAY_S),
            "batch": lambda: ledger.save_batch(job()),
        }[put]()
        assert db.migration_plan() == []
        fill(ledger)
        assert (len(db.usage()), len(ledger.cached([digest(1)])), len(ledger.batches(1))) == (1, 1, 1)
