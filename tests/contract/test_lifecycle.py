"""Adding, planning, removing: what is announced is what happens, and the user's data stays the user's."""

from __future__ import annotations

import pytest

from pinnacle import ConfigError, Conflict, NotFound, Vector, model
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs, has, outputs, snapshot
from tests.models import picky, shout, word_count

pytestmark = pytest.mark.unmigrated


def run(backend, db, the_model=shout, **options):
    return the_model.predict(X="body", db=db, select=backend.query("docs"), **options)


def test_opening_a_database_writes_nothing(backend):
    create_docs(backend, "a")
    before = snapshot(backend)
    with backend.open() as db:
        assert (db.show(), db.outputs(), db.errors(), db.retry_errors()) == ([], [], [], [])
    assert snapshot(backend) == before


def test_predict_stores_a_new_model_and_a_second_handle_loads_it(backend, db):
    create_docs(backend, "a b")
    run(backend, db, word_count)
    assert "word_count" in db.show("model")
    with backend.open() as other:
        loaded = other.load("model", "word_count")
        assert loaded.predict("three words here") == 3
        assert run(backend, other, loaded).fresh == 1
        assert other.predict("word_count", X="body", select=backend.query("docs")).fresh == 1


def test_a_model_that_is_not_stored_cannot_be_named(backend, db):
    create_docs(backend, "a")
    db.add(shout)
    with pytest.raises(NotFound, match="shout"):
        db.predict("shuot", X="body", select=backend.query("docs"))


def test_an_output_that_is_not_there_is_refused_naming_those_that_are(backend, db):
    create_docs(backend, "a")
    run(backend, db)
    with pytest.raises(NotFound, match="body"):
        db.output(backend.entity("docs"), "n", "shout")


def test_a_plan_changes_nothing_and_names_what_it_would_create(backend, db):
    create_docs(backend, "a")
    before = snapshot(backend)
    plan = db.plan(shout, X="body", select=backend.query("docs"), output="loud")
    assert "loud" in str(plan)
    assert snapshot(backend) == before


def test_a_plan_is_empty_once_all_is_there(backend, db):
    create_docs(backend, "a")
    run(backend, db)
    assert db.plan(shout, X="body", select=backend.query("docs")).statements == ()
    assert str(db.plan(shout, X="body", select=backend.query("docs"))) == "nothing to do"


@pytest.mark.requires(Capability.SQL)
@pytest.mark.parametrize("kind", [str, dict, Vector(3)], ids=str)
def test_the_statements_of_a_plan_run_by_hand_do_what_predict_does(backend, db, kind):
    create_docs(backend, None)
    planned = model(lambda body: None, identifier="a model: %s", output_type=kind)
    plan = db.plan(planned, X="body", select=backend.query("docs"))
    run_sql(backend, *plan.statements)
    by_hand = schema(backend)
    assert db.plan(planned, X="body", select=backend.query("docs")).statements != plan.statements
    run(backend, db, planned)
    assert schema(backend) == by_hand
    db.remove_all(outputs=True)
    assert [name for _, name in schema(backend)] == ["docs"]
    run_sql(backend, "DROP TABLE docs")
    create_docs(backend, None)
    run(backend, db, planned)
    assert schema(backend) == by_hand


def run_sql(backend, *statements):
    backend.engine.dispose()
    with backend.engine.begin() as connection:
        for statement in statements:
            is_format = backend.engine.dialect.paramstyle != "qmark"
            connection.exec_driver_sql(statement.replace("%", "%%") if is_format else statement)


def schema(backend):
    return {name: columns for name, (columns, _) in snapshot(backend).items()}


def test_a_model_with_outputs_is_not_removed_unless_told_how(backend, db):
    create_docs(backend, "a")
    run(backend, db)
    before = snapshot(backend)
    with pytest.raises(Conflict, match="outputs='keep'"):
        db.remove("model", "shout")
    assert snapshot(backend) == before
    with pytest.raises(ConfigError):
        db.remove("model", "shout", outputs="perhaps")


def test_removing_with_keep_leaves_the_values(backend, db):
    create_docs(backend, "a")
    run(backend, db, output="loud")
    db.remove("model", "shout", outputs="keep")
    assert (db.show("model"), db.outputs(), backend.read("docs", 1)) == ([], [], {"body": "a", "n": 0, "loud": "A"})


def test_removing_with_drop_takes_what_pinnacle_made(backend, db):
    create_docs(backend, "a", "bad")
    run(backend, db, picky)
    db.remove("model", "picky", outputs="drop")
    assert (db.show("model"), db.outputs(), db.errors()) == ([], [], [])
    assert backend.read_all("docs") == {1: {"body": "a", "n": 0}, 2: {"body": "bad", "n": 1}}


def test_removing_with_drop_leaves_a_place_that_was_the_users_own(backend, db):
    backend.create("docs", {"body": str, "mine": str})
    backend.insert("docs", {"body": "a", "mine": "old"})
    run(backend, db, output="mine", adopt=True)
    db.remove("model", "shout", outputs="drop")
    assert backend.read("docs", 1) == {"body": "a", "mine": "A"}


def test_a_removed_model_can_be_added_and_run_again(backend, db):
    create_docs(backend, "a")
    for how in ("drop", "keep"):
        run(backend, db)
        db.remove("model", "shout", outputs=how)
    assert run(backend, db).written == 1
    assert outputs(backend, db, "body", "shout") == {1: "A"}


def test_removing_what_is_not_there_says_so(backend, db):
    db.add(shout)
    with pytest.raises(NotFound, match="did you mean 'shout'"):
        db.remove("model", "shuot")


def test_removing_one_version_keeps_the_others(backend, db):
    db.add(model(lambda body: body, identifier="m", output_type=str))
    db.add(model(lambda body: body * 2, identifier="m", output_type=str))
    db.remove("model", "m", 0)
    assert [version["version"] for version in db.show("model", "m")["versions"]] == [1]


def test_remove_all_with_outputs_leaves_the_database_as_it_was(backend, db):
    create_docs(backend, "a", "bad", None)
    before = user_data(backend)
    run(backend, db, picky)
    run(backend, db, word_count)
    db.remove_all(outputs=True)
    assert user_data(backend) == before
    assert not [name for name in map(str, snapshot(backend)) if "pinnacle" in name]


def test_remove_all_without_outputs_leaves_the_values(backend, db):
    create_docs(backend, "a")
    run(backend, db, output="loud")
    db.remove_all()
    assert backend.read("docs", 1) == {"body": "a", "n": 0, "loud": "A"}
    assert (db.show(), db.outputs(), db.removal_plan()) == ([], [], [])


def test_everything_works_again_after_remove_all(backend, db):
    create_docs(backend, "a", "bad")
    run(backend, db, picky)
    db.remove_all(outputs=True)
    assert run(backend, db, picky).written == 1
    assert outputs(backend, db, "body", "picky")[1] == "A"


def test_remove_all_removes_nothing_where_nothing_is(backend, db):
    create_docs(backend, "a")
    before = snapshot(backend)
    assert db.removal_plan(outputs=True) == []
    db.remove_all(outputs=True)
    assert snapshot(backend) == before


def user_data(backend):
    return {name: content for name, content in snapshot(backend).items() if "pinnacle" not in str(name)}


def test_migrating_twice_is_migrating_once(backend, db):
    create_docs(backend, "a")
    assert db.migration_plan() != []
    db.migrate()
    before = snapshot(backend)
    assert db.migration_plan() == []
    db.migrate()
    with backend.open() as other:
        other.migrate()
    assert snapshot(backend) == before


@pytest.mark.requires(Capability.SQL)
def test_an_output_column_that_the_user_dropped_is_made_and_filled_again(backend, db):
    create_docs(backend, "a", "b")
    run(backend, db)
    run_sql(backend, "ALTER TABLE docs DROP COLUMN body__shout")
    assert run(backend, db).written == 2
    assert outputs(backend, db, "body", "shout") == {1: "A", 2: "B"}


@pytest.mark.requires(Capability.SQL)
@pytest.mark.parametrize("statement", ["ALTER TABLE docs DROP COLUMN body__shout", "DROP TABLE docs"])
@pytest.mark.parametrize("how", ["remove", "remove_all"])
def test_what_the_user_dropped_does_not_hinder_removal(backend, db, statement, how):
    create_docs(backend, "a")
    run(backend, db)
    run_sql(backend, statement)
    if how == "remove":
        db.remove("model", "shout", outputs="drop")
    db.remove_all(outputs=True)
    assert not [name for name in map(str, snapshot(backend)) if "pinnacle" in name]


@pytest.mark.requires(Capability.SQL)
def test_a_table_dropped_and_made_again_is_filled_again(backend, db):
    create_docs(backend, "a", "b")
    run(backend, db)
    run_sql(backend, "DROP TABLE docs")
    create_docs(backend, "c", "b")
    assert run(backend, db).written == 2
    assert outputs(backend, db, "body", "shout") == {1: "C", 2: "B"}


def test_two_handles_in_one_process_see_each_others_work(backend, db):
    create_docs(backend, "a")
    with backend.open() as other:
        run(backend, other)
    assert outputs(backend, db, "body", "shout") == {1: "A"}
    assert run(backend, db).fresh == 1
    assert has(backend, Capability.SQL) or "pinnacle_output" in snapshot(backend)


def test_an_output_dropped_while_it_is_filled_ends_the_run(backend, db):
    create_docs(backend, "a", "b")
    run(backend, db)

    def drops(body: str) -> str:
        with backend.open() as other:
            other.remove("model", "dropped", outputs="drop")
        return body

    dropped = model(drops, identifier="dropped")
    with pytest.raises(NotFound, match="was removed while it was being filled"):
        dropped.predict(X="body", db=db, select=backend.query("docs"))
