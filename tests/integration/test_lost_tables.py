"""Tables of pinnacle's that are dropped by hand, as a migration tool does that removes what it does not know.

Whatever is lost: the user's writes go on, every verb works or says what is missing and what to do, nothing waits for
ever, and all of it can be taken away.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress

import psycopg
import pytest
import sqlalchemy as sa

from pinnacle import BackendError, ConfigError, Listener, NotDrained, NotFound, pinnacle
from pinnacle.backends.sql.mending import FIXED
from pinnacle.base.errors import TableLost
from tests.contract.documents import wait_until
from tests.models import CALLS, picky, shout

DOCS = sa.table("docs", sa.column("id"), sa.column("body"))
OF_OUTPUTS = ["pinnacle_state_1", "pinnacle_outbox_1", "pinnacle_work_1", "pinnacle_state_2"]
OURS = [*FIXED, *OF_OUTPUTS]
EVERY_WRITE = (
    "INSERT INTO docs (id, body) VALUES (7, 'g')",
    "UPDATE docs SET body = 'z' WHERE id = 1",
    "DELETE FROM docs WHERE id = 7",
)  # fmt: skip


def listener(**options):
    return Listener(model=shout, key="body", select=sa.select(DOCS), output="loud", **options)


def predict(db, **options):
    return picky.predict(X="body", db=db, select=sa.select(DOCS), output="second", **options)


VERBS = {
    "show": lambda db: db.show(),
    "load": lambda db: db.load("model", "picky"),
    "listeners": lambda db: db.listeners(),
    "outputs": lambda db: db.outputs(),
    "errors": lambda db: db.errors(),
    "retry_errors": lambda db: db.retry_errors(),
    "add": lambda db: db.add(shout),
    "add a listener": lambda db: db.add(listener(adopt=True)),
    "predict": lambda db: predict(db, adopt=True),
    "plan": lambda db: db.plan(picky, X="body", select=sa.select(DOCS), output="second"),
    "fresh": lambda db: db.fresh("docs.loud"),
    "sweep": lambda db: db.sweep("docs.loud"),
    "pause": lambda db: db.pause("docs.loud"),
    "resume": lambda db: db.resume("docs.loud"),
    "workers": lambda db: db.workers(),
    "usage": lambda db: db.usage(),
    "clear_cache": lambda db: db.clear_cache(),
    "migration_plan": lambda db: db.migration_plan(),
    "migrate": lambda db: db.migrate(),
    "remove a listener": lambda db: db.remove("listener", "docs.loud"),
    "remove a model": lambda db: db.remove("model", "picky", outputs="keep"),
    "remove_all": lambda db: db.remove_all(),
}


def run(verb, db):
    """A verb works, at the second time at the latest, or says in pinnacle's words that something is not there."""
    with suppress(NotFound):
        try:
            VERBS[verb](db)
        except TableLost:
            VERBS[verb](db)


def run_sql(file, *statements):
    with closing(sqlite3.connect(file, timeout=10)) as connection, connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def names(file):
    """All that is of pinnacle's in a file."""
    return {
        name for (name,) in run_sql(file, "SELECT name FROM sqlite_master WHERE name LIKE 'pinnacle!_%' ESCAPE '!'")
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A file with two outputs, one of a listener; in the other a row was set aside."""
    file = tmp_path_factory.mktemp("filled") / "user.db"
    run_sql(
        file, "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)", "INSERT INTO docs (body) VALUES ('a'), ('bad')"
    )
    with pinnacle(f"sqlite:///{file}") as db:
        db.add(listener())
        assert predict(db).failed == 1
        db.listen()
        db.drain()
    run_sql(file, "PRAGMA journal_mode = DELETE")
    return file


@pytest.fixture
def path(filled, tmp_path):
    shutil.copy(filled, tmp_path / "user.db")
    return tmp_path / "user.db"


@pytest.mark.parametrize("gone", OURS)
def test_every_verb_of_an_open_handle_goes_on_without_a_table(path, gone):
    with pinnacle(f"sqlite:///{path}") as db:
        for verb in VERBS:
            run_sql(path, f"DROP TABLE IF EXISTS {gone}")
            run(verb, db)
    opened_again = pinnacle(f"sqlite:///{path}")
    run_sql(path, *EVERY_WRITE)
    opened_again.close()


@pytest.mark.parametrize("gone", OURS)
def test_opening_lets_the_user_write_and_every_verb_work_without_a_table(path, gone):
    run_sql(path, f"DROP TABLE {gone}")
    with pinnacle(f"sqlite:///{path}") as db:
        run_sql(path, *EVERY_WRITE)
        for verb in VERBS:
            if "remove" not in verb:
                run(verb, db)
        assert names(path) >= FIXED.keys()
        assert {info.name for info in db.outputs()} == {"loud", "second"}
    run_sql(path, f"DROP TABLE {gone}")
    with pinnacle(f"sqlite:///{path}") as db:
        db.remove_all()
        assert db.removal_plan() == []
    run_sql(path, *EVERY_WRITE)
    assert names(path) == set()


@pytest.mark.usefixtures("impatient_workers")
@pytest.mark.parametrize(
    "gone", ["pinnacle_migration", "pinnacle_component", "pinnacle_output", "pinnacle_lease", "pinnacle_listener"]
)
def test_a_worker_goes_on_or_says_what_to_add_again(path, gone, caplog):
    def states():
        try:
            return [status.paused for status in db.listeners()]
        except TableLost:
            return ["not looked at yet"]

    with pinnacle(f"sqlite:///{path}") as db:
        db.listen()
        db.drain()
        run_sql(path, f"DROP TABLE {gone}")
        is_kept = gone in ("pinnacle_migration", "pinnacle_lease")
        wait_until(lambda: is_kept or states() == [] or "add the model and the listener again" in str(states()))
        wait_until(lambda: gone in names(path) or gone == "pinnacle_migration")
        run_sql(path, "INSERT INTO docs (id, body) VALUES (3, 'c')")
        if not is_kept:
            assert "add them again" in caplog.text or "add listeners again" in caplog.text
            db.add(listener(adopt=gone == "pinnacle_output"))
        db.drain()
        assert run_sql(path, "SELECT loud FROM docs ORDER BY id") == [("A",), ("BAD",), ("C",)]
        assert db.fresh("docs.loud").fresh == 3
        assert db.listeners()[0].paused is None


def test_models_of_lost_definitions_are_computed_anew(path):
    run_sql(path, "UPDATE pinnacle_output SET version = 7", "UPDATE pinnacle_state_2 SET version = 7")
    run_sql(path, "DROP TABLE pinnacle_component")
    with pinnacle(f"sqlite:///{path}") as db:
        CALLS.clear()
        result = predict(db)
        assert (result.written, result.failed, set(CALLS)) == (1, 1, {"a", "bad"})
        db.remove("listener", "docs.loud")
        assert db.listeners() == []


def test_rows_that_were_set_aside_are_tried_again_where_their_errors_are_lost(path):
    run_sql(path, "DROP TABLE pinnacle_error")
    with pinnacle(f"sqlite:///{path}") as db:
        assert db.errors() == []
        assert predict(db).failed == 1
        assert [error.key for error in db.errors()] == [2]


def test_a_lost_outbox_is_shown_and_counts_as_work(path):
    run_sql(path, "DROP TABLE pinnacle_outbox_1")
    with pinnacle(f"sqlite:///{path}") as db:
        (status,) = db.listeners()
        assert (status.pending, status.is_sweeping) == (0, True)
        assert "pinnacle_outbox_1" in str(status.last_error)
        with pytest.raises(NotDrained):
            db.drain(0.0)


def test_outputs_made_after_a_loss_get_numbers_that_were_never_given(path):
    run_sql(path, "DROP TABLE pinnacle_output")
    with pinnacle(f"sqlite:///{path}") as db:
        predict(db, adopt=True)
        assert [info.id for info in db.outputs()] == [3]
        assert not names(path) & set(OF_OUTPUTS)


def test_tables_of_an_unknown_version_are_refused_and_can_be_removed(path):
    run_sql(path, "DROP TABLE pinnacle_migration", "ALTER TABLE pinnacle_lease RENAME COLUMN owner TO run")
    with pinnacle(f"sqlite:///{path}") as db:
        with pytest.raises(ConfigError, match=r"pinnacle_migration was dropped by hand, and pinnacle_lease.*--all"):
            db.outputs()
        db.remove_all()
    assert names(path) == set()


def test_lost_tables_of_a_file_that_is_read_only_are_told_of(path, tmp_path):
    run_sql(path, "DROP TABLE pinnacle_usage")
    with pinnacle(f"sqlite:///file:{path}?mode=ro&uri=true") as db, pytest.raises(BackendError, match="pinnacle_usage"):
        db.outputs()


# -- PostgreSQL --------------------------------------------------------------------------------------------


def run_postgres(url, *statements):
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize(
    "gone",
    ["pinnacle_migration", "pinnacle_component", "pinnacle_output", "pinnacle_listener", "pinnacle_error",
     "pinnacle_outbox_1", "pinnacle_state_1", "all"],
)  # fmt: skip
def test_postgres_goes_on_without_a_table_and_all_can_be_removed(postgres_url, gone):
    run_postgres(postgres_url, "CREATE TABLE docs (id integer PRIMARY KEY, body text)")
    run_postgres(postgres_url, "INSERT INTO docs VALUES (1, 'a'), (2, 'bad')")
    lost = OURS if gone == "all" else [gone]
    drops = [f"DROP TABLE pinnacle.{name}" for name in lost]
    with pinnacle(postgres_url) as db:
        db.add(listener())
        predict(db)
        run_postgres(postgres_url, *drops)
        run_postgres(postgres_url, *EVERY_WRITE)
        for verb in VERBS:
            if "remove" not in verb:
                run(verb, db)
        run_postgres(postgres_url, *EVERY_WRITE)
        db.listen()
        db.drain()
        assert run_postgres(postgres_url, "SELECT loud FROM docs ORDER BY id") == [("Z",), ("BAD",)]
        db.stop()
        run_postgres(postgres_url, *[drop.replace("TABLE", "TABLE IF EXISTS") for drop in drops])
    with pinnacle(postgres_url) as db:
        db.remove_all(outputs=gone != "pinnacle_output")
        assert db.removal_plan() == []
    run_postgres(postgres_url, *EVERY_WRITE)
    assert run_postgres(postgres_url, "SELECT nspname FROM pg_namespace WHERE nspname = 'pinnacle'") == []
    assert run_postgres(postgres_url, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []


def test_a_schema_that_somebody_else_uses_too_is_left(postgres_url):
    run_postgres(postgres_url, "CREATE TABLE docs (id integer PRIMARY KEY, body text)")
    with pinnacle(postgres_url) as db:
        db.add(listener())
        run_postgres(postgres_url, "CREATE TABLE pinnacle.theirs (n integer)")
        db.remove_all()
        assert db.removal_plan() == []
    names = run_postgres(postgres_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'pinnacle'")
    assert names == [("theirs",)]
