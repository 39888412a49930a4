"""Values that pinnacle did not write are not overwritten unless that is meant, and a plan tells of them beforehand."""

from __future__ import annotations

import pytest

from pinnacle import ConfigError, Listener, model
from tests.models import shout

pytestmark = pytest.mark.same_standalone

HUMAN = "by hand"


@pytest.fixture
def docs(backend):
    """Three rows, two of them with a title of the user's."""
    backend.create("docs", {"body": str, "title": str})
    rows = [{"body": "a", "title": HUMAN}, {"body": "b", "title": None}, {"body": "c", "title": ""}]
    backend.insert("docs", *rows)
    return backend.query("docs")


def titles(backend):
    return [row.get("title") for row in backend.read_all("docs").values()]


REFUSED = r"docs\.title holds 2 values that pinnacle did not write.*adopt=True"


@pytest.mark.parametrize("mode", ["live", "listen", "overwrite"])
def test_predict_refuses_them_and_changes_nothing(backend, db, docs, calls, mode):
    options = {} if mode == "live" else {mode: True}
    with pytest.raises(ConfigError, match=REFUSED):
        shout.predict(X="body", db=db, select=docs, output="title", **options)
    assert titles(backend) == [HUMAN, None, ""]
    assert (calls, db.outputs(), db.listeners()) == ([], [], [])


def test_a_listener_refuses_them_and_changes_nothing(backend, db, docs):
    with pytest.raises(ConfigError, match=REFUSED):
        db.add(Listener(model=shout, key="body", select=docs, output="title"))
    assert (titles(backend), db.listeners(), db.show("listener")) == ([HUMAN, None, ""], [], [])


def test_with_adopt_they_are_given_up_and_the_next_run_need_not_say_so(backend, db, docs, calls):
    assert shout.predict(X="body", db=db, select=docs, output="title", adopt=True).written == 3
    assert titles(backend) == ["A", "B", "C"]
    backend.insert("docs", {"body": "d"})
    assert shout.predict(X="body", db=db, select=docs, output="title").written == 1
    assert len(calls) == 4


def test_a_listener_with_adopt_overwrites_them(backend, db, docs):
    listener = db.add(Listener(model=shout, key="body", select=docs, output="title", adopt=True))
    db.listen()
    db.drain()
    assert titles(backend) == ["A", "B", "C"]
    assert db.add(Listener(model=shout, key="body", select=docs, output="title")).version == listener.version


def test_a_field_that_was_emptied_is_free(backend, db, docs):
    for key in (1, 3):
        backend.update("docs", key, {"title": None})
    assert shout.predict(X="body", db=db, select=docs, output="title").written == 3


def test_values_put_there_before_pinnacle_wrote_its_first_are_the_users(backend, db):
    backend.create("docs", {"body": str})
    assert shout.predict(X="body", db=db, select=backend.query("docs"), output="title").written == 0
    backend.insert("docs", {"body": "a"})
    backend.update("docs", 1, {"title": HUMAN})
    with pytest.raises(ConfigError, match=r"docs\.title holds 1 value that pinnacle did not write"):
        shout.predict(X="body", db=db, select=backend.query("docs"), output="title")
    assert titles(backend) == [HUMAN]


def test_a_value_put_into_a_column_that_pinnacle_fills_is_healed(backend, db, calls):
    """Whether it is the user's or an output of ours that came back with its row cannot be told by the row."""
    backend.create("docs", {"body": str})
    backend.insert("docs", {"body": "a"}, {"body": "b"})
    docs = backend.query("docs")
    assert shout.predict(X="body", db=db, select=docs, output="title").written == 2
    backend.delete("docs", 2)
    for key, body, title in ((2, "changed", "B"), (3, "c", HUMAN)):
        backend.insert("docs", {"id": key, "body": body})
        backend.update("docs", key, {"title": title})
    assert shout.predict(X="body", db=db, select=docs, output="title").written == 2
    assert titles(backend) == ["A", "CHANGED", "C"]


def test_a_plan_and_a_dry_run_count_them(backend, db, docs, calls):
    planned = db.plan(shout, "body", docs, output="title")
    assert (planned.foreign, planned.rows, planned.computed, planned.recomputed) == (2, 3, 3, 0)
    assert "values there that pinnacle did not write: 2" in str(planned)
    tried = shout.predict(X="body", db=db, select=docs, output="title", dry_run=True)
    assert (tried.foreign, tried.computed) == (2, 3)
    assert "2 values there are not pinnacle's" in str(tried)
    assert (calls, titles(backend)) == ([], [HUMAN, None, ""])


def made(bonus: int, limit: int):
    @model(identifier="counted")
    def counted(body: str, most: int = limit) -> int:
        return min(len(body) + bonus, most)

    return counted


def test_a_plan_says_how_many_rows_a_changed_model_would_compute_again_and_why(backend, db):
    backend.create("docs", {"body": str})
    backend.insert("docs", {"body": "a"}, {"body": "b"})
    docs = backend.query("docs")
    made(1, 9).predict(X="body", db=db, select=docs, output="n")
    same = db.plan(made(1, 9), "body", docs, output="n")
    assert (same.rows, same.computed, same.changes) == (2, 0, ())
    backend.insert("docs", {"body": "c"})
    changed = db.plan(made(2, 8), "body", docs, output="n")
    assert (changed.rows, changed.computed, changed.recomputed) == (3, 3, 2)
    assert len(changed.changes) == 2
    assert any("bonus" in name for name in changed.changes)
    assert any("defaults" in name for name in changed.changes)
    assert made(2, 8).predict(X="body", db=db, select=docs, output="n", dry_run=True).computed == 3
    assert db.show("model", "counted")["versions"][-1]["version"] == 0
    assert made(2, 8).predict(X="body", db=db, select=docs, output="n").written == 3
