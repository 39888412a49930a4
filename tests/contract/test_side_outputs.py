"""Outputs in a side table: one or many values a row, chained, and gone with their row."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pinnacle import ConfigError, Conflict, Listener, Side, model
from pinnacle.backends.protocol import Capability
from tests.models import CALLS, note, shout

pytestmark = pytest.mark.requires(Capability.SQL)


@model
def words(body: str) -> list[str]:
    return note(body).split()


@model
def length(body: str) -> int:
    return len(note(body))


@pytest.fixture
def posts(backend):
    """Three posts of two words each, keys 1 to 3."""
    backend.create("posts", {"body": str})
    backend.insert("posts", *({"body": f"hello w{n}"} for n in (1, 2, 3)))
    CALLS.clear()
    return backend.query("posts")


def items(backend, *columns: str):
    """The side rows as (key, position, value, ...), in order."""
    table = side(backend)
    chosen = [table.c[name] for name in ("posts_id", "position", "value", *columns)]
    with backend.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*chosen).order_by(*chosen[:2]))]


def side(backend):
    return sa.Table("chunks", sa.MetaData(), autoload_with=backend.engine)


def execute(backend, statement: str):
    with backend.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_a_list_fills_one_row_an_item(backend, db, posts):
    result = words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert (result.written, result.calls) == (3, 3)
    assert items(backend) == [(n, p, v) for n in (1, 2, 3) for p, v in enumerate(("hello", f"w{n}"))]
    again = words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert (again.fresh, again.calls) == (3, 0)


def test_another_output_is_one_item(backend, db, posts):
    length.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert items(backend) == [(n, 0, 8) for n in (1, 2, 3)]


def test_the_items_may_be_selected_through_db_output(backend, db, posts):
    words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    value = db.output(backend.entity("posts"), "body", "words")
    assert sorted(db.execute(sa.select(value)).scalars()) == ["hello", "hello", "hello", "w1", "w2", "w3"]


def test_a_shorter_list_takes_its_rows_away_and_leaves_equal_items_alone(backend, db, posts):
    db.add(Listener(model=words, key="body", select=posts, output=Side("chunks")))
    db.add(Listener(model=shout, key="value", select=sa.select(side(backend)), output="loud"))
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
    execute(backend, "UPDATE chunks SET value = 'wrong' WHERE posts_id = 1 AND position = 1")
    execute(backend, "DELETE FROM chunks WHERE posts_id = 2")
    execute(backend, "INSERT INTO chunks (posts_id, position, value) VALUES (3, 2, 'more')")
    db.drain()
    assert items(backend) == whole


def test_a_listener_with_clear_takes_the_items_away_where_the_select_no_longer_matches(backend, db, posts):
    matching = posts.where(backend.entity("posts").c.body != "off")
    db.add(Listener(model=words, key="body", select=matching, output=Side("chunks"), unmatched="clear"))
    db.listen()
    db.drain()
    backend.update("posts", 2, {"body": "off"})
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
    execute(backend, "CREATE TABLE chunks (id INTEGER PRIMARY KEY)")
    with pytest.raises(Conflict, match="chunks"):
        words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    assert CALLS == []


def test_a_circle_through_a_side_table_is_refused(backend, db, posts):
    db.add(Listener(model=words, key="body", select=posts, output=Side("chunks")))
    with pytest.raises(Conflict, match="circle"):
        db.add(Listener(model=words, key="value", select=sa.select(side(backend)), output=Side("chunks")))


def test_a_side_needs_the_name_of_a_table():
    with pytest.raises(ConfigError, match="name of a table"):
        Side("")


def test_removing_the_model_drops_its_side_table(backend, db, posts):
    words.predict(X="body", db=db, select=posts, output=Side("chunks"))
    db.remove("model", "words", outputs="drop")
    assert not sa.inspect(backend.engine).has_table("chunks")
    assert len(backend.read_all("posts")) == 3
