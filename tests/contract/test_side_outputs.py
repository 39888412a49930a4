"""Outputs in a side table: one or many values a row, chained, and gone with their row."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pinnacle import ConfigError, Conflict, Listener, Side, model
from pinnacle.backends.protocol import Capability
from tests.models import CALLS, note, shout, words


@model
def length(body: str) -> int:
    return len(note(body))


@pytest.fixture
def posts(backend):
    """Three posts of two words each, keys 1 to 3."""
    backend.create("posts", {"body": str, "lang": str})
    backend.insert("posts", *({"body": f"hello w{n}", "lang": "en"} for n in (1, 2, 3)))
    CALLS.clear()
    return backend.query("posts")


def items(backend, *columns: str):
    """The side rows as (key, position, value, ...), in order."""
    return backend.rows("chunks", "posts_id", "position", "value", *columns)


def test_a_list_fills_one_row_an_item(backend, db, posts):
    result = words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert (result.written, result.calls) == (3, 3)
    assert items(backend) == [(n, p, v) for n in (1, 2, 3) for p, v in enumerate(("hello", f"w{n}"))]
    again = words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert (again.fresh, again.calls) == (3, 0)


def test_another_output_is_one_item(backend, db, posts):
    length.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert items(backend) == [(n, 0, 8) for n in (1, 2, 3)]


@pytest.mark.requires(Capability.SQL)
def test_the_items_may_be_selected_through_db_output(backend, db, posts):
    words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    value = db.output(backend.entity("posts"), "body", "words")
    assert sorted(db.execute(sa.select(value)).scalars()) == ["hello", "hello", "hello", "w1", "w2", "w3"]


@pytest.mark.requires(Capability.DOCUMENTS)
def test_a_document_gives_its_items_as_a_list(backend, db, posts):
    backend.insert("posts", {"body": " "})
    words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    backend.insert("posts", {"body": "not computed"})
    found = {row["_id"]: row for row in db.execute(posts)}
    assert [found[key].outputs("body", words) for key in (1, 4)] == [["hello", "w1"], []]
    with pytest.raises(KeyError, match="words"):
        found[5].outputs("body", words)


def test_a_shorter_list_takes_its_rows_away_and_leaves_equal_items_alone(backend, db, posts):
    db.add(Listener(model=words, key="body", select=posts, output=Side("chunks")))
    db.add(Listener(model=shout, key="value", select=backend.query("chunks"), output="loud"))
    db.listen()
    db.drain()
    CALLS.clear()
    backend.update("posts", 2, {"body": "hello"})
    backend.update("posts", 3, {"body": "hello new w3"})
    db.drain()
    assert items(backend, "loud")[2:] == [
        (2, 0, "hello", "HELLO"), (3, 0, "hello", "HELLO"), (3, 1, "new", "NEW"), (3, 2, "w3", "W3"),
    ]  # fmt: skip
    assert sorted(CALLS) == ["hello", "hello new w3", "new", "w3"]


def test_items_go_with_their_row_and_with_its_input(backend, db, posts):
    listener = db.add(Listener(model=words, key="body", select=posts, output=Side("chunks")))
    db.listen()
    db.drain()
    backend.delete("posts", 1)
    backend.update("posts", 2, {"body": None})
    db.drain()
    assert items(backend) == [(3, 0, "hello"), (3, 1, "w3")]
    assert (db.fresh(listener).fresh, db.fresh(listener).missing) == (2, 0)


def test_items_that_others_change_or_take_away_are_healed(backend, db, posts):
    db.add(Listener(model=words, key="body", select=posts, output=Side("chunks")))
    db.listen()
    db.drain()
    whole = items(backend)
    backend.update_where("chunks", {"posts_id": 1, "position": 1}, {"value": "wrong"})
    backend.delete_where("chunks", {"posts_id": 2})
    backend.add("chunks", {"posts_id": 3, "position": 2, "value": "more"})
    db.drain()
    assert items(backend) == whole


def test_items_that_others_give_to_another_row_come_back(backend, db, posts):
    db.add(Listener(model=words, key="body", select=posts, output=Side("chunks")))
    db.listen()
    db.drain()
    whole = items(backend)
    backend.update_where("chunks", {"posts_id": 1, "position": 1}, {"posts_id": 2, "position": 7})
    backend.add("chunks", {"posts_id": 99, "position": 0, "value": "of no row"})
    db.drain()
    assert items(backend) == whole


def test_items_that_others_change_are_healed_by_the_next_predict(backend, db, posts):
    words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    whole = items(backend)
    backend.update_where("chunks", {"posts_id": 1, "position": 1}, {"value": "wrong"})
    backend.delete_where("chunks", {"posts_id": 2, "position": 0})
    result = words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert (result.computed, result.fresh) == (2, 1)
    assert items(backend) == whole


def test_a_listener_with_clear_takes_the_items_away_where_the_select_no_longer_matches(backend, db, posts):
    db.add(
        Listener(
            model=words, key="body", select=backend.query("posts", lang="en"), output=Side("chunks"), unmatched="clear"
        )
    )
    db.listen()
    db.drain()
    backend.update("posts", 2, {"lang": "de"})
    db.drain()
    assert {row[0] for row in items(backend)} == {1, 3}


def test_an_item_that_does_not_fit_is_its_rows_error(backend, db, posts):
    @model(output_type=int)
    def odd(body: str):
        return "no number" if body.endswith("2") else 7

    result = odd.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert (result.written, result.failed) == (2, 1)
    assert items(backend) == [(1, 0, 7), (3, 0, 7)]


def test_a_side_table_in_the_way_is_refused_before_any_call(backend, db, posts):
    backend.create("chunks", {"body": str})
    with pytest.raises(Conflict, match="chunks"):
        words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert CALLS == []


def test_a_circle_through_a_side_table_is_refused(backend, db, posts):
    db.add(Listener(model=words, key="body", select=posts, output=Side("chunks")))
    with pytest.raises(Conflict, match="circle"):
        db.add(Listener(model=words, key="value", select=backend.query("chunks"), output=Side("chunks")))


def test_a_side_needs_the_name_of_a_table():
    with pytest.raises(ConfigError, match="name of a table"):
        Side("")


@pytest.mark.unmigrated
def test_the_plan_names_the_side_table_and_changes_nothing(backend, db, posts):
    statements = str(db.plan(words, X="body", select=posts, output=Side("chunks")))
    assert "chunks" in statements
    assert "posts_id" in statements
    assert not backend.has("chunks")


def test_a_column_and_a_side_table_cannot_have_one_name(backend, db, posts):
    words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    with pytest.raises(Conflict, match="chunks"):
        length.predict(X="body", db=db, select=posts, output=Side("chunks"))


def test_removing_the_model_drops_its_side_table(backend, db, posts):
    words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    db.remove("model", "words", outputs="drop")
    assert not backend.has("chunks")
    assert len(backend.read_all("posts")) == 3
