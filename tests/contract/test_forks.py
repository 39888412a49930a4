"""A web or task server uses models and the database, and then forks its workers."""

from __future__ import annotations

import pytest

from pinnacle.testing import FakeOpenAI
from tests.contract.documents import create_docs, outputs
from tests.contract.listening import keep, values
from tests.forked import in_child
from tests.llms import llm, new_key, openai, reply
from tests.models import whisper

pytestmark = [pytest.mark.same_standalone, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


@pytest.fixture
def server():
    with FakeOpenAI() as running:
        yield running


def test_models_and_the_database_work_in_a_forked_child_and_go_on_in_the_parent(backend, db, server):
    model = llm(fn=reply)

    def run(limit):
        return model.predict(X="body", db=db, select=backend.query("docs"), limit=limit).written

    def child():
        worked = worker.is_alive
        seen = [model.predict("three"), hosted.predict("3+3="), whisper.predict("FOUR"), run(4)]
        seen += [outputs(backend, db, "body", model)[key] for key in (1, 4)]
        if not worked and db.listen() is not worker:
            db.close()
        return [worked, *seen]

    keep(backend, db, *"abcdef")
    hosted = openai(server, api_key=new_key())
    assert (model.predict("one"), hosted.predict("1+1="), whisper.predict("TWO"), run(2)) == ("ONE", "=1+1", "two", 2)
    worker = db.listen()
    db.drain()
    is_copy = backend.name == "mongomock"
    assert in_child(child) == [False, "THREE", "=3+3", "four", 2, "A", "D"]
    assert worker.is_alive
    backend.insert("docs", {"body": "g"})
    db.drain()
    assert values(backend)[7] == "G"
    assert (run(6), model.predict("five"), hosted.predict("2+2=")) == (4 if is_copy else 2, "FIVE", "=2+2")
    assert whisper.predict("SIX") == "six"
    create_docs(backend, "h", table="more")
    assert model.predict(X="body", db=db, select=backend.query("more")).written == 1
