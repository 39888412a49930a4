"""What users get wrong at first is told in words that say what to do, or simply works."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from pinnacle import ConfigError, Listener, ModelError, NotFound, model, pinnacle
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs
from tests.contract.listening import values
from tests.models import shout


@model(max_attempts=1)
def picky(body: str) -> str:
    if body == "bad":
        raise ValueError("not that one")
    return body.upper()


def test_an_unknown_kind_offers_near_ones(db):
    with pytest.raises(NotFound, match="there is no kind 'modle'; did you mean 'model'"):
        db.load("modle", "shout")


def test_a_listener_takes_a_stored_model_by_name_and_X_for_key(backend, db):
    create_docs(backend, "a")
    db.add(shout)
    listener = db.add(Listener(model="shout", X="body", select=backend.query("docs"), output="loud"))
    db.listen()
    db.drain()
    assert (values(backend), listener.model.identifier, listener.key) == ({1: "A"}, "shout", "body")
    with pytest.raises(NotFound, match="there is no model 'shuot'; did you mean 'shout'"):
        db.add(Listener(model="shuot", X="body", select=backend.query("docs"), output="n"))
    with pytest.raises(ConfigError, match="X= and key= are two names"):
        Listener(model=shout, X="body", key="body", select=backend.query("docs"))


def test_on_error_raise_tells_of_rows_that_were_set_aside_earlier(backend, db):
    create_docs(backend, "a", "bad")
    docs = backend.query("docs")
    assert picky.predict(X="body", db=db, select=docs, output="loud").failed == 1
    backend.insert("docs", {"id": 3, "body": "c"})
    with pytest.raises(ModelError, match=r"1 row was set aside on docs\.loud earlier, as for key 2: ValueError"):
        picky.predict(X="body", db=db, select=docs, output="loud", on_error="raise")
    assert values(backend) == {1: "A", 2: None, 3: "C"}


@pytest.mark.parametrize("progress", [True, False])
def test_progress_ends_with_a_line_on_what_failed(backend, db, capsys, progress):
    create_docs(backend, "a", "bad")
    picky.predict(X="body", db=db, select=backend.query("docs"), output="loud", progress=progress)
    line = "docs.loud: 1 row failed (key 2: ValueError: not that one); see db.errors(), or: pinnacle errors URL"
    assert (line in capsys.readouterr().err) == progress


@pytest.mark.requires(Capability.SQL)
def test_an_output_of_an_alias_is_a_column_of_the_alias(backend, db):
    create_docs(backend, "a", "b")
    shout.predict(X="body", db=db, select=backend.query("docs"))
    table = backend.entity("docs")

    class Doc:
        pass

    orm.registry().map_imperatively(Doc, table)
    for alias in (table.alias("d"), orm.aliased(Doc)):
        column = db.output(alias, "body", "shout")
        assert db.execute(sa.select(column).order_by(column)).scalars().all() == ["A", "B"]


@pytest.mark.requires(Capability.SQL)
def test_an_async_engine_gives_its_url(backend):
    create_docs(backend, "a")
    # The real one needs greenlet and an async driver; what is taken of it is its URL.
    made = type("AsyncEngine", (), {"__module__": "sqlalchemy.ext.asyncio.engine", "sync_engine": backend.engine})
    with pinnacle(made()) as db:
        assert shout.predict(X="body", db=db, select=backend.query("docs")).written == 1


def test_two_slashes_of_sqlite_are_told_from_three():
    with pytest.raises(ConfigError, match=r"three slashes, as in sqlite:///docs\.db"):
        pinnacle("sqlite://docs.db")


def test_a_path_is_a_sqlite_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for target in ("docs.db", tmp_path / "other"):
        with pinnacle(target) as db:
            assert db.show() == []
    assert (tmp_path / "docs.db").exists()
    assert (tmp_path / "other").exists()
    with pytest.raises(ConfigError, match="not a database URL"):
        pinnacle("docs")
