"""A server that restarts, or is no primary for a while, under predictions and listeners: on servers of these tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from pinnacle import Listener, Settings, model, pinnacle
from pinnacle.base.errors import ConnectionLost
from tests.contract.documents import wait_until
from tests.databases import DocumentDatabase, SqlDatabase, new_postgres
from tests.models import CALLS, note, shout
from tests.servers import mongodb_outage, postgres_outage, start_mongod, start_postgres

ROWS = 120
OUTAGE_S = 1.0
AT_CALL: dict[int, object] = {}
"""What is done at the n-th call of `slow`."""


@model(batch_size=10)
def slow(body: str) -> str:
    act = AT_CALL.pop(len(CALLS), None)
    if act is not None:
        act()
    time.sleep(0.005)
    return str(note(body)).upper()


@pytest.fixture(scope="module", params=["postgres", "mongodb"])
def server(request) -> Iterator[tuple[str, str]]:
    """The kind and URL of a server that these tests may stop."""
    if request.param == "postgres":
        with start_postgres(durable=False) as url:
            yield "postgres", url
    else:
        with start_mongod(replica_set=True, durable=False) as url:
            yield "mongodb", url


@pytest.fixture
def place(server) -> Iterator[SqlDatabase | DocumentDatabase]:
    kind, url = server
    CALLS.clear()
    AT_CALL.clear()
    with ExitStack() as stack:
        if kind == "postgres":
            database = SqlDatabase("postgres", stack.enter_context(new_postgres(url)))
        else:
            base, _, options = url.partition("?")
            database = DocumentDatabase.connect("mongodb", f"{base}outages?{options}&serverSelectionTimeoutMS=300")
        stack.callback(database.close)
        database.create("docs", {"body": str})
        database.insert("docs", *({"body": f"row {n}"} for n in range(ROWS)))
        yield database


def forget_connections(place):
    """The test's own, which did not live through the outage."""
    if isinstance(place, SqlDatabase):
        place.engine.dispose()


@contextmanager
def outage(server, seconds=OUTAGE_S):
    kind, url = server
    with (postgres_outage if kind == "postgres" else mongodb_outage)(url, seconds):
        yield


def outage_beside(server, seconds=OUTAGE_S):
    """One that goes on while who began it does."""
    began = threading.Event()

    def have_one():
        with outage(server, seconds):
            began.set()

    thread = threading.Thread(target=have_one)
    thread.start()
    assert began.wait(60.0)
    return thread


def predict(place, db, **options):
    return slow.predict(X="body", db=db, select=place.query("docs"), output="loud", **options)


def rows(place):
    forget_connections(place)
    return place.read_all("docs")


def is_all_written(place):
    return all(row.get("loud") == row["body"].upper() for row in rows(place).values())


def error_of(verb):
    try:
        verb()
    except Exception as error:
        return type(error)
    return None


def test_predict_goes_on_over_outages_and_computes_nothing_twice(place, server):
    threads = []
    AT_CALL.update(dict.fromkeys((25, 77), lambda: threads.append(outage_beside(server))))
    with place.open() as db:
        threads.append(outage_beside(server))
        result = predict(place, db)
    for thread in threads:
        thread.join()
    assert (len(threads), result.written, result.failed) == (3, ROWS, 0)
    assert is_all_written(place)
    assert sorted(CALLS) == sorted(f"row {n}" for n in range(ROWS))


def test_an_outage_longer_than_is_waited_for_ends_predict_and_the_next_goes_on(place, server):
    with pinnacle(place.address, settings=Settings(outage_patience_s=0.2, lease_ttl_s=2.0)) as db:
        predict(place, db, limit=10)
        threads = []
        AT_CALL[30] = lambda: threads.append(outage_beside(server, 4.0))
        with pytest.raises(ConnectionLost):
            predict(place, db)
        threads[0].join()
        written = sum(row.get("loud") is not None for row in rows(place).values())
        assert 10 <= written < ROWS
        CALLS.clear()
        assert (predict(place, db).written, len(CALLS)) == (ROWS - written, ROWS - written)
    assert is_all_written(place)


def test_each_verb_says_that_the_connection_was_lost_and_a_listener_goes_on_afterwards(place, server):
    with pinnacle(place.address, settings=Settings(outage_patience_s=0.2)) as db:
        listener = db.add(Listener(model=shout, key="body", select=place.query("docs"), output="loud"))
        worker = db.listen()
        db.drain()
        verbs = {
            "drain": db.drain, "fresh": lambda: db.fresh(listener), "listeners": db.listeners, "errors": db.errors,
            "outputs": db.outputs, "show": db.show, "usage": db.usage, "sweep": lambda: db.sweep(listener),
            "pause": lambda: db.pause(listener), "retry_errors": db.retry_errors,
            "predict": lambda: predict(place, db), "load": lambda: db.load("model", "shout"),
        }  # fmt: skip
        with outage(server, 8.0):
            raised = {name: error_of(verb) for name, verb in verbs.items()}
        assert raised == dict.fromkeys(verbs, ConnectionLost)
        assert worker.is_alive
        forget_connections(place)
        place.insert("docs", {"id": 10_000, "body": "new"})
        wait_until(lambda: place.read("docs", 10_000).get("loud") == "NEW")
        db.drain()
        assert db.fresh(listener).fresh == ROWS + 1
