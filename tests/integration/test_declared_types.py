"""SQL: a model gets the values that the user's class declares, whether by predict, a worker, a retry or a dataset."""

from __future__ import annotations

import json
import sys
import types
from decimal import Decimal
from itertools import pairwise

import pytest
import sqlalchemy as sa
from sqlalchemy import orm, select

from pinnacle import ComponentError, Dataset, Listener, model, pinnacle
from pinnacle.backends.sql import readings
from tests import mapped
from tests.contract.documents import wait_until
from tests.mapped import Base, Colour, Doc, OnPostgres, Plain
from tests.models import CALLS, note

BROKEN: list[str] = []


@model(output_type=str)
def seen(*values: object) -> str:
    """What it was called with; fails while something is broken."""
    note(values)
    if BROKEN:
        raise ValueError(BROKEN[0])
    return repr(values)


@pytest.fixture(autouse=True)
def _clean():
    CALLS.clear()
    BROKEN.clear()


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def url(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def db(url):
    with pinnacle(url) as handle:
        yield handle


@pytest.fixture
def docs(db):
    """Two rows."""
    Doc.__table__.create(db.engine)
    with orm.Session(db.engine) as session:
        session.add_all([Doc(id=1, hue=Colour.RED, mood="good", price=1.5), Doc(id=2, hue=Colour.BLUE, mood="bad")])
        session.commit()
    return db


@pytest.fixture
def as_another_process(monkeypatch):
    """What other processes know of types is what they have imported."""
    monkeypatch.setattr(readings, "_live", {})


def worked_off(url):
    """By a worker that loads what it needs."""
    with pinnacle(url) as other:
        other.listen()
        other.drain(timeout_s=600)


def test_every_path_gives_a_model_the_value_of_the_mapped_class(url, db, as_another_process):
    entity = Plain if url.startswith("sqlite") else OnPostgres
    values = {
        name: value for name, (_, value) in {**mapped.COLUMNS, **mapped.ON_POSTGRES}.items() if name in vars(entity)
    }
    with db.engine.begin() as connection:
        Base.metadata.create_all(connection, [entity.__table__])
        connection.execute(sa.insert(entity), [{"id": 1, **values}])
    with orm.Session(db.engine) as session:
        row = session.scalars(select(entity)).one()
        loaded = tuple(getattr(row, name) for name in values)
    X = tuple(values)  # noqa: N806
    seen.predict(X=X, db=db, select=select(entity), output="by_predict")
    db.add(Listener(model=seen, key=X, select=select(entity), output="by_listener"))
    kept = db.load("listener", f"{entity.__table__.name}.by_listener").select["readings"]
    assert not kept.keys() & {"words", "long", "longer", "whole", "share", "price", "flag", "moment", "blob", "meta"}
    readings._live.clear()
    worked_off(url)
    db.add(Dataset("all", select=select(entity)))
    stored = db.load("dataset", "all").select
    seen.predict(X=X, db=db, select=stored, output="by_dataset")
    ways = {"the class": loaded, **dict(zip(("predict", "listener", "dataset"), CALLS, strict=True))}
    told = {way: dict(zip(X, [(type(v), v) for v in call], strict=True)) for way, call in ways.items()}
    for one, other in pairwise(told):
        assert told[one] == told[other], (one, other)


def test_rows_that_failed_are_computed_again_of_the_same_values(url, docs, as_another_process):
    BROKEN.append("not now")
    assert seen.predict(X=("hue", "price"), db=docs, select=select(Doc).where(Doc.price > 0), output="out").failed == 1
    BROKEN.clear()
    CALLS.clear()
    readings._live.clear()
    with pinnacle(url) as other:
        other.retry_errors(seen)
    assert CALLS == [(Colour.RED, 1.5)]
    assert seen.predict(X=("hue", "price"), db=docs, select=select(Doc).where(Doc.price > 0), output="out").fresh == 1


def test_an_output_of_values_that_were_read_otherwise_is_stale(docs):
    table = sa.Table("docs", sa.MetaData(), autoload_with=docs.engine)

    def predict(query, X="colour"):  # noqa: N803
        return seen.predict(X=X, db=docs, select=query, output="out").computed

    assert (predict(select(Doc), "hue"), predict(select(Doc), "hue")) == (2, 0)
    assert (predict(select(table)), predict(select(table))) == (2, 0)
    assert CALLS == [(Colour.RED,), (Colour.BLUE,), ("RED",), ("BLUE",)]


def test_a_listener_computes_again_what_a_predict_read_otherwise(docs):
    db, table = docs, sa.Table("docs", sa.MetaData(), autoload_with=docs.engine)
    db.add(Listener(model=seen, key="hue", select=select(Doc), output="out"))
    db.listen()
    db.drain(timeout_s=600)
    CALLS.clear()
    assert seen.predict(X="colour", db=db, select=select(table.c.id).where(table.c.id == 1), output="out").computed == 1
    db.drain(timeout_s=600)
    assert (CALLS, db.fresh("docs.out").fresh) == ([("RED",), (Colour.RED,)], 2)


def test_a_name_that_an_enum_has_not_is_set_aside_on_every_path(url, docs):
    with docs.engine.begin() as connection:
        connection.execute(sa.text("UPDATE docs SET mood = 'odd' WHERE id = 2"))
    result = seen.predict(X="mood", db=docs, select=select(Doc), output="by_predict")
    docs.add(Listener(model=seen, key="mood", select=select(Doc), output="by_listener"))
    worked_off(url)
    assert (result.written, result.failed, CALLS) == (1, 1, [("good",), ("good",)])
    assert [(error.key, error.error) for error in docs.errors()] == [(2, "LookupError")] * 2
    assert docs.fresh("docs.by_listener").failed == 1


@pytest.fixture
def app():
    """A module of the user's with a mapped class, as a process has it that imported it."""
    module = types.ModuleType("an_app_of_the_users")
    sys.modules[module.__name__] = module

    class Shelf(orm.DeclarativeBase):
        pass

    class Book(Shelf):
        __tablename__ = "docs"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        colour: orm.Mapped[Colour] = orm.mapped_column(sa.Enum(Colour, native_enum=False))

    Book.__module__, Book.__qualname__ = module.__name__, "Book"
    module.Book = Book
    yield module
    sys.modules.pop(module.__name__, None)


def test_a_worker_that_has_not_the_class_says_so_and_leaves_the_work(url, docs, app, as_another_process):
    listener = docs.add(Listener(model=seen, key="colour", select=select(app.Book), output="out"))
    readings._live.clear()
    del sys.modules[app.__name__]
    with pinnacle(url) as other:
        other.listen()
        wait_until(lambda: other.listeners()[0].last_error is not None)
        [status] = other.listeners()
        assert "docs.colour is read as Colour, declared by an_app_of_the_users:Book" in status.last_error
        assert "pinnacle --import an_app_of_the_users ..." in status.last_error
        for act in (lambda: other.fresh(listener.identifier), lambda: other.resume(listener.identifier)):
            with pytest.raises(ComponentError, match="import it first"):
                act()
    assert (CALLS, status.paused) == ([], None)
    sys.modules[app.__name__] = app
    worked_off(url)
    assert sorted(CALLS, key=str) == [(Colour.BLUE,), (Colour.RED,)]
    assert docs.fresh("docs.out").fresh == 2


def test_a_class_that_declares_otherwise_now_is_not_taken_for_what_it_was(url, docs, app, as_another_process):
    docs.add(Listener(model=seen, key="colour", select=select(app.Book), output="out"))
    readings._live.clear()
    app.Book.__table__.c.colour.type = sa.String()
    with pinnacle(url) as other, pytest.raises(ComponentError, match="declared otherwise; add the listener"):
        other.fresh("docs.out")
    docs.add(Listener(model=seen, key="colour", select=select(app.Book), output="out"))
    worked_off(url)
    assert sorted(CALLS) == [("BLUE",), ("RED",)]


def test_nothing_is_imported_because_the_database_says_so(url, docs, as_another_process):
    docs.add(Listener(model=seen, key="hue", select=select(Doc), output="out"))
    readings._live.clear()
    kept = docs.load("listener", "docs.out").select["readings"]["colour"]
    for place in ("antigravity:Doc", "tests.mapped:Colour", "os:path", "", "tests.mapped:Doc.__init__", "x:y:z"):
        forged = readings.Reading.of({**kept, "by": place, "form": ["pickle", "x"]})
        with pytest.raises(ComponentError, match=r"docs\.colour"):
            readings.type_for(forged, "docs", "colour", sa.Text(), docs._backend.session.columns)
    assert "antigravity" not in sys.modules


def decimals(text: str) -> object:
    return json.loads(text, parse_float=Decimal)


def test_json_that_an_engine_reads_its_own_way_is_read_so_or_not_at_all(url):
    engine = sa.create_engine(url, json_deserializer=decimals)
    table = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("meta", sa.JSON))
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{"id": 1, "meta": {"a": 0.1}}])
    with pinnacle(engine) as db:
        db.add(Listener(model=seen, key="meta.a", select=select(table), output="out"))
        with pinnacle(url) as other, pytest.raises(ComponentError, match=r"json_deserializer .*decimals of an Engine"):
            other.fresh("docs.out")
        db.listen()
        db.drain(timeout_s=600)
        assert seen.predict(X="meta.a", db=db, select=select(table), output="out").fresh == 1
    assert [call for (call,) in CALLS] == [Decimal("0.1")]
    engine.dispose()
