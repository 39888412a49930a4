"""Whoever looks sees which workers live: the machine, the process, since when."""

from __future__ import annotations

import os
import socket
import time

from tests.contract.documents import create_docs, wait_until
from tests.contract.listening import add


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
