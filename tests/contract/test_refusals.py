"""What is refused for one reason is refused in one way of words, on every database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pinnacle import Conflict, Listener, NotFound, OutputTypeConflict, Side, UnsupportedQuery, model
from pinnacle.backends.protocol import Capability
from pinnacle.base.rows import Fields
from tests.contract.documents import create_docs, has, wait_until
from tests.models import shout, words

pytestmark = pytest.mark.same_standalone


def run(backend, db, predicting, **options):
    return predicting.predict(X="body", db=db, select=backend.query("docs"), **{"output": "said", **options})


def answer(function):
    return model(function, identifier="answer", output_type=str)


def test_an_output_of_another_model(backend, db):
    create_docs(backend, "a")
    run(backend, db, shout)
    with pytest.raises(Conflict) as refused:
        run(backend, db, answer(lambda body: body))
    assert str(refused.value) == (
        "docs.said is already the output of model 'shout' on 'body'; choose another place with output=, or remove "
        "that output first"
    )


def test_an_output_of_a_newer_version(backend, db):
    create_docs(backend, "a")
    older = db.add(answer(lambda body: body))
    run(backend, db, older)
    run(backend, db, answer(lambda body: body * 2))
    with pytest.raises(Conflict) as refused:
        run(backend, db, older)
    assert str(refused.value) == (
        "docs.said was computed by version 1 of model 'answer', which version 0 does not overwrite; use the newest "
        "version, or choose another place with output="
    )


def test_a_newer_version_that_began_during_the_call(backend, db):
    create_docs(backend, "a")
    newer = answer(lambda body: body * 2)

    def overtaken(body):
        beside.submit(run, backend, db, newer)
        wait_until(lambda: db.outputs()[0].version == 1)
        return body

    with ThreadPoolExecutor() as beside, pytest.raises(Conflict) as refused:
        run(backend, db, answer(overtaken))
    assert str(refused.value) == (
        "docs.said is now computed by version 1, not 0; what was written before is kept. Load the newest version and "
        "predict again"
    )


def test_side_outputs_of_another_type_and_of_others(backend, db):
    create_docs(backend, "a b")
    place = "collection" if has(backend, Capability.DOCUMENTS) else "table"
    backend.create("taken", {"body": str})
    with pytest.raises(Conflict) as refused:
        run(backend, db, words, output=Side("taken"))
    assert str(refused.value) == (
        f"there is a {place} 'taken' that pinnacle did not make for this output; name another in Side()"
    )
    run(backend, db, words, output=Side("chunks"))
    with pytest.raises(OutputTypeConflict) as other:
        run(backend, db, words, output=Side("chunks", bytes))
    assert str(other.value) == "'chunks' holds items of str and the output is items of bytes; choose another name"


def test_a_second_listener_of_an_output(backend, db, below):
    create_docs(backend, "a")
    db.add(Listener(model=shout, key="body", select=backend.query("docs"), output="said"))
    number = db.outputs()[0].id
    with pytest.raises(Conflict) as refused:
        below.listeners.register(number, "another", 0)
    assert str(refused.value) == (
        "listener 'docs.said' keeps that output fresh already; use its identifier, or remove it first"
    )


def test_an_output_number_that_is_not_there(below):
    below.migrate()
    with pytest.raises(NotFound) as refused:
        below.outputs.forget(77, drop_column=False)
    assert str(refused.value) == "there is no output number 77"


def test_a_source_of_another_database(below):
    class Foreign:
        fields = Fields(("body",))

    with pytest.raises(UnsupportedQuery) as refused:
        below.scan(Foreign())
    assert str(refused.value) == "Foreign is of another database"
