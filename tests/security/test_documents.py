"""What stands in a collection of pinnacle's own may be no record at all: the others are listed, loaded and signed."""

from __future__ import annotations

from contextlib import closing

import pytest

from pinnacle import PinnacleError
from pinnacle.backends.protocol import Capability
from pinnacle.cli.status import show_status, told
from tests.contract.documents import create_docs, wait_until
from tests.contract.listening import add, values
from tests.models import shout, word_count

OPERATOR = {"$gt": ""}
CHANGES = [
    {"kind": OPERATOR}, {"kind": ["model"]}, {"kind": None}, {"identifier": OPERATOR}, {"identifier": ["shout"]},
    {"identifier": None}, {"version": OPERATOR}, {"version": float("nan")}, {"type": OPERATOR}, {"body": OPERATOR},
    {"body": b"\xff"}, {"digest": [OPERATOR]}, {"mac": OPERATOR}, {"created_at": "now"}, {"artifacts": OPERATOR},
    {"artifacts": [OPERATOR]},
]  # fmt: skip


@pytest.mark.anywhere
@pytest.mark.requires(Capability.DOCUMENTS)
@pytest.mark.parametrize("secret", ["", "the-secret-of-the-operator"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_document_of_another_shape_hides_no_other(backend, monkeypatch, capsys, change, secret):
    monkeypatch.setenv("PINNACLE_SECRET", secret)
    with closing(backend.open()) as db:
        db.add(shout)
        db.add(word_count)
    stored = backend.database["pinnacle_component"]
    stored.update_one({"identifier": "shout"}, {"$set": change})
    stored.insert_one({"_id": "no record"})
    with closing(backend.open()) as db:
        show_status(db)
        assert "word_count" in capsys.readouterr().out
        assert ["model", "word_count"] in told(db)["components"]
        assert "word_count" in [info.id for info in db.models()]
        assert db.load("model", "word_count").predict("one two") == 2
        is_signed = {*change} <= {"created_at", "artifacts"}
        if secret and not is_signed:
            with pytest.raises(PinnacleError, match="shout"):
                db.load("model", "shout")
        if secret:
            names = [doubt.name for doubt in db.doubts() if doubt.shown()]
            assert len(names) == (1 if is_signed else 2)
            assert not any("word_count" in name for name in names)


@pytest.mark.anywhere
@pytest.mark.requires(Capability.DOCUMENTS)
@pytest.mark.parametrize(
    ("collection", "change"),
    [
        *(
            ("pinnacle_output", change)
            for change in (
                {"path": None}, {"path": OPERATOR}, {"type": None}, {"type": {"type": "os:system"}}, {"fields": ["x"]},
                {"fields": OPERATOR}, {"model": 7}, {"version": "x"}, {"collection": OPERATOR},
            )
        ),
        *(
            ("pinnacle_listener", change)
            for change in (
                {"shape": 7}, {"shape": {"reads": OPERATOR}}, {"version": OPERATOR}, {"paused": OPERATOR},
                {"since": "x"}, {"revision": "x"}, {"identifier": OPERATOR},
                {"swept_at": "x"}, {"processed": "x"}, {"error": OPERATOR, "error_at": "x"},
            )
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_broken_document_of_a_registry_stops_no_other(backend, db, capsys, collection, change):
    create_docs(backend, "one two")
    add(backend, db)
    add(backend, db, word_count, output="size")
    outputs = backend.database["pinnacle_output"]
    backend.database[collection].update_one({"_id": outputs.find_one({"path": "loud"})["_id"]}, {"$set": change})
    with closing(backend.open()) as elsewhere:
        elsewhere.listen()
        wait_until(lambda: values(backend, "size") == {1: 2})
        show_status(elsewhere)
        assert "docs.size" in capsys.readouterr().out
        assert "docs.size" in [listener["identifier"] for listener in told(elsewhere)["listeners"]]
