"""What users get wrong at first is told in words that say what to do, or simply works."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from textwrap import dedent

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import create_async_engine

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
def test_an_async_engine_gives_its_url_and_goes_on_working(backend):
    create_docs(backend, "a")
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}[backend.engine.dialect.name]
    engine = create_async_engine(backend.engine.url.set(drivername=driver))

    async def read():
        async with engine.connect() as connection:
            found = (await connection.execute(sa.text("SELECT loud FROM docs"))).scalars().all()
        await engine.dispose()
        return found

    with pinnacle(engine) as db:
        assert shout.predict(X="body", db=db, select=backend.query("docs"), output="loud").written == 1
        assert asyncio.run(read()) == ["A"]


@pytest.mark.parametrize(
    ("url", "missing", "extra"),
    [
        ("mongomock://test", "mongomock", "pinnacle-ai[mongomock]"),
        ("mongomock://test", "pymongo", "pinnacle-ai[mongomock]"),
        ("mongodb://127.0.0.1:1/test", "pymongo", "pinnacle-ai[mongodb]"),
    ],
)
def test_a_url_without_its_driver_names_the_extra_to_install(url, missing, extra):
    """In a process of its own, whose imports of the driver fail as where it is not installed."""
    script = f"""
        import sys
        sys.modules[{missing!r}] = None
        from pinnacle import MissingPlugin, pinnacle
        try:
            pinnacle({url!r})
        except MissingPlugin as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, timeout=60)
    assert extra in done.stdout, done.stderr


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
