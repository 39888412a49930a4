"""Whoever looks sees which workers live: the machine, the process, since when."""

from __future__ import annotations

import os
import socket
import time

from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs, wait_until
from tests.contract.listening import add
from tests.databases import CAPABILITIES


def test_a_worker_is_seen_while_it_lives(backend, db, elsewhere):
    assert elsewhere.workers() == []
    create_docs(backend, "a")
    add(backend, db)
    began = time.time()
    db.listen()
    wait_until(elsewhere.workers)
    (worker,) = elsewhere.workers()
    assert (worker.host, worker.pid) == (socket.gethostname(), os.getpid())
    assert began <= worker.since <= time.time()
    db.drain()
    db.stop()
    assert elsewhere.workers() == []


def test_those_that_were_killed_leave_nothing_for_good(backend, below):
    below.migrate()
    for number in range(3):
        below.listeners.attend(f"killed {number}", 0.0, -1.0)
    below.listeners.attend("alive", 0.0, 60.0)
    assert attending(backend) == 1


def attending(backend):
    """How many workers are on record."""
    if Capability.DOCUMENTS in CAPABILITIES[backend.name]:
        return len(backend.rows("pinnacle_worker", "since"))
    table = "pinnacle.pinnacle_lease" if backend.name == "postgres" else "pinnacle_lease"
    with backend.engine.connect() as connection:
        return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
