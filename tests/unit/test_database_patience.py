"""How long a prediction waits for its database."""

from __future__ import annotations

import threading
import time

import pytest

from pinnacle.base.errors import BackendError, ConnectionLost
from pinnacle.runtime.database_patience import DatabasePatience


class Database:
    """Loses its connection so often before it answers."""

    def __init__(self, outages: int) -> None:
        self.outages, self.asked = outages, 0

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.outages:
            raise ConnectionLost("no server")
        return "answer"


def test_an_operation_is_run_again_until_the_server_answers():
    database = Database(outages=2)
    assert DatabasePatience(10.0).run(database.ask) == "answer"
    assert database.asked == 3


def test_the_last_error_is_raised_when_the_server_stays_away():
    database, began = Database(outages=1_000), time.monotonic()
    with pytest.raises(ConnectionLost):
        DatabasePatience(0.3).run(database.ask)
    assert 0.3 <= time.monotonic() - began < 10.0
    assert database.asked >= 2


def test_what_the_server_refuses_is_not_asked_again():
    asked = []

    def ask():
        asked.append(1)
        raise BackendError("refused")

    with pytest.raises(BackendError):
        DatabasePatience(10.0).run(ask)
    assert asked == [1]


def test_nothing_waits_once_the_prediction_has_ended_by_an_error():
    patience, database, raised = DatabasePatience(600.0), Database(outages=1_000), []

    def wait():
        try:
            patience.run(database.ask)
        except ConnectionLost as error:
            raised.append(error)

    def interrupted():
        with patience:
            thread.start()
            raise KeyboardInterrupt

    thread = threading.Thread(target=wait)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    thread.join(30.0)
    assert len(raised) == 1
