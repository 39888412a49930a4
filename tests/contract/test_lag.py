"""`lag_s` is the age of the oldest change that is not visible in the output yet."""

from __future__ import annotations

import time

from tests.contract.documents import wait_until
from tests.contract.listening import keep

IDLE_S = 1.0


def lag(db) -> float:
    (listener,) = db.listeners()
    return listener.lag_s


def test_lag_is_counted_from_the_change_and_not_from_the_last_work(backend, db, elsewhere):
    keep(backend, db, "a")
    began = time.monotonic()
    db.stop()
    wait_until(lambda: time.monotonic() - began > IDLE_S)
    assert lag(elsewhere) == 0
    changed = time.monotonic()
    backend.update("docs", 1, {"body": "b"})
    first = lag(elsewhere)
    assert first <= time.monotonic() - changed + 0.01
    backend.update("docs", 1, {"body": "c"})
    db.listen()
    db.drain()
    assert lag(elsewhere) == 0
