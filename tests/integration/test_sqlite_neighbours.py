"""What other programs do to a SQLite file: drop pinnacle's tables by hand, or put another file in its place."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from pinnacle import ConfigError, Listener, NotDrained, Settings, Side, model, pinnacle
from pinnacle.base.errors import DatabaseReplaced
from pinnacle.cli import main
from tests.contract.documents import wait_until
from tests.models import CALLS, note, shout, words

pytestmark = pytest.mark.usefixtures("impatient_workers")

DOCS = sa.table("docs", sa.column("id"), sa.column("body"))


@pytest.fixture
def path(tmp_path):
    """A user's file with two rows."""
    file = tmp_path / "user.db"
    run_sql(
        file, "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)", "INSERT INTO docs (body) VALUES ('a'), ('b')"
    )
    return file


def run_sql(file, *statements):
    """Statements by the plain driver, as another program would; the last one's rows."""
    with closing(sqlite3.connect(file, timeout=10)) as connection, connection:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def opened(file):
    return pinnacle(f"sqlite:///{file}", settings=Settings(lease_ttl_s=1.0))


def loud(**options):
    return Listener(**{"model": shout, "key": "body", "select": sa.select(DOCS), "output": "loud", **options})


def tables_of_pinnacle(file, like="pinnacle!_%"):
    query = f"SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '{like}' ESCAPE '!'"
    return [name for (name,) in run_sql(file, query)]


def drop_by_hand(file, names):
    run_sql(file, "BEGIN IMMEDIATE", *(f'DROP TABLE "{name}"' for name in names))


def triggers(file):
    return {name for (name,) in run_sql(file, "SELECT name FROM sqlite_master WHERE type = 'trigger'")}


def outputs(file):
    return [output for (output,) in run_sql(file, "SELECT loud FROM docs ORDER BY id")]


def insert(file):
    run_sql(file, "INSERT INTO docs (body) VALUES ('c')")


def write_all_ways(file):
    insert(file)
    run_sql(file, "UPDATE docs SET body = 'd' WHERE id = 1", "DELETE FROM docs WHERE id = 2")


# -- tables dropped by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"on_change": "clear"}, {"model": words, "output": Side("parts")}])
def test_opening_a_file_whose_tables_were_dropped_lets_the_user_write_again(path, options):
    with opened(path) as db:
        db.add(loud(**options))
    drop_by_hand(path, tables_of_pinnacle(path))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        insert(path)
    opened(path).close()
    write_all_ways(path)
    assert triggers(path) == set()


def test_removing_all_of_pinnacle_clears_triggers_whose_tables_were_dropped(path):
    with opened(path) as db:
        db.add(loud())
    drop_by_hand(path, [*tables_of_pinnacle(path, "pinnacle!_outbox%"), "pinnacle_listener"])
    done = CliRunner().invoke(main, ["remove", f"sqlite:///{path}", "--all", "--yes"])
    assert done.exit_code == 0, done.output
    write_all_ways(path)
    assert (triggers(path), tables_of_pinnacle(path)) == (set(), [])


def test_what_the_user_triggers_do_wrong_themselves_takes_none_of_ours_away(path):
    with opened(path) as db:
        db.add(loud())
    before = triggers(path)
    run_sql(path, "CREATE TRIGGER theirs AFTER INSERT ON docs BEGIN INSERT INTO gone VALUES (1); END")
    opened(path).close()
    assert triggers(path) == before | {"theirs"}


def test_only_the_listener_whose_tables_are_gone_loses_its_triggers(path):
    with opened(path) as db:
        db.add(loud())
        db.add(loud(model=words, output="split"))
    drop_by_hand(path, ["pinnacle_outbox_1"])
    opened(path).close()
    assert {name.split("_")[1] for name in triggers(path)} == {"2"}


@pytest.mark.parametrize("lost", ["pinnacle_outbox_1", "pinnacle_work_1", "pinnacle_state_1"])
def test_a_worker_makes_a_table_again_that_was_dropped_under_it(path, lost):
    with opened(path) as db:
        db.add(loud())
        db.listen()
        db.drain()
        drop_by_hand(path, [lost])
        wait_until(lambda: lost in tables_of_pinnacle(path) and "pinnacle_1_insert" in triggers(path))
        insert(path)
        wait_until(lambda: outputs(path) == ["A", "B", "C"])
        db.drain()
        assert db.fresh("docs.loud").fresh == 3


def test_a_worker_lets_the_user_write_when_all_tables_were_dropped_and_works_for_who_adds_again(path, caplog):
    with opened(path) as db:
        db.add(loud())
        worker = db.listen()
        db.drain()
        drop_by_hand(path, tables_of_pinnacle(path))
        wait_until(lambda: not triggers(path))
        write_all_ways(path)
        wait_until(lambda: worker.listeners == [])
        assert worker.is_alive
        assert "add models and listeners again" in caplog.text
        with opened(path) as another:
            another.add(loud(adopt=True))
        wait_until(lambda: outputs(path) == ["D", "C"])


def test_models_are_added_again_where_some_tables_were_dropped(path):
    with opened(path) as db:
        db.add(shout)
    drop_by_hand(path, ["pinnacle_component", "pinnacle_artifact"])
    with opened(path) as db:
        assert db.show() == []
        assert db.add(shout).version == 0
        assert "pinnacle_artifact" in tables_of_pinnacle(path)


def test_a_lost_state_table_is_made_again_by_a_predict_that_may_overwrite(path):
    with opened(path) as db:
        shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud")
        drop_by_hand(path, ["pinnacle_state_1"])
        with pytest.raises(ConfigError, match="adopt=True"):
            shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud")
        done = shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud", adopt=True)
        assert (done.written, outputs(path)) == (2, ["A", "B"])


def test_a_side_table_that_was_dropped_pauses_its_listener_and_no_write_of_the_user(path):
    with opened(path) as db:
        db.add(loud(model=words, output=Side("parts"), on_change="clear"))
        db.listen()
        db.drain()
        drop_by_hand(path, ["parts"])
        wait_until(lambda: db.listeners()[0].paused)
        assert "'parts'" in str(db.listeners()[0].paused)
        wait_until(lambda: not triggers(path))
        write_all_ways(path)
        db.resume("docs.parts")
        db.drain()
        assert sorted(run_sql(path, "SELECT docs_id, value FROM parts")) == [(1, "d"), (3, "c")]


# -- the file replaced -----------------------------------------------------------------------------------


def replace_by_a_backup(path):
    shutil.copyfile(path, f"{path}.backup")
    os.replace(f"{path}.backup", path)


def test_a_worker_whose_file_was_replaced_ends_and_says_which(path):
    with opened(path) as db:
        db.add(loud())
        worker = db.listen()
        db.drain()
        replace_by_a_backup(path)
        wait_until(lambda: not worker.is_alive)
        with pytest.raises(DatabaseReplaced, match=r"user\.db was moved, removed or replaced.*pinnacle\(\)") as caught:
            db.drain()
        assert caught.value.path == str(path)
    with opened(path) as db:
        db.listen()
        insert(path)
        db.drain()
        assert outputs(path) == ["A", "B", "C"]


def test_the_command_line_worker_ends_with_an_error_where_its_file_was_replaced(path):
    def replace_under_the_worker():
        wait_until(lambda: run_sql(path, "SELECT 1 FROM pinnacle_lease WHERE id = 'worker'"))
        replace_by_a_backup(path)

    with opened(path) as db:
        db.add(loud())
    replaced = threading.Thread(target=replace_under_the_worker)
    replaced.start()
    done = CliRunner().invoke(main, ["worker", f"sqlite:///{path}"])
    replaced.join()
    assert done.exit_code == 1
    assert "user.db was moved, removed or replaced" in done.output


def test_nothing_is_written_to_a_file_that_was_moved_away(path):
    with opened(path) as db:
        shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud")
        insert(path)
        os.rename(path, f"{path}.old")
        with pytest.raises(DatabaseReplaced):
            shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud")
        os.rename(f"{path}.old", path)
        assert shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud").written == 1


def test_a_restore_through_sqlite_itself_is_followed(path, tmp_path):
    with opened(path) as db:
        db.add(loud())
        db.listen()
        db.drain()
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
            source.backup(backup)
        run_sql(path, "UPDATE docs SET body = 'later'")
        wait_until(lambda: outputs(path) == ["LATER", "LATER"])
        with closing(sqlite3.connect(tmp_path / "backup.db")) as backup, closing(sqlite3.connect(path)) as restored:
            backup.backup(restored)
        insert(path)
        wait_until(lambda: outputs(path) == ["A", "B", "C"])


@pytest.fixture
def another(tmp_path):
    """The file of another database: the same program's, with rows of its own."""
    file = tmp_path / "another.db"
    run_sql(
        file, "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)", "INSERT INTO docs (body) VALUES ('x'), ('b')"
    )
    with opened(file) as db:
        db.add(loud())
    run_sql(file, "PRAGMA journal_mode = DELETE")
    return file


def copy_into(path, another):
    """By another process: in this one, closing the file would take SQLite's locks away from the connections here."""
    subprocess.run(["cp", another, path], check=True)


def restore_into(path, another):
    with closing(sqlite3.connect(another)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)


@pytest.mark.parametrize("overwrite", [copy_into, restore_into])
def test_another_database_that_is_written_into_an_open_file_is_told_of_and_left_alone(path, another, overwrite):
    run_sql(path, "PRAGMA journal_mode = DELETE")
    with opened(path) as db:
        db.add(loud())
        worker = db.listen()
        db.drain()
        before = run_sql(another, "SELECT * FROM pinnacle_listener")
        overwrite(path, another)
        wait_until(lambda: not worker.is_alive)
        for verb in (db.drain, lambda: shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud")):
            with pytest.raises(DatabaseReplaced, match=r"another database was copied or restored into .*user\.db"):
                verb()
        assert outputs(path) == [None, None]
        assert run_sql(path, "SELECT * FROM pinnacle_listener") == before
    with opened(path) as db:
        db.listen()
        db.drain()
    assert outputs(path) == ["X", "B"]


def test_a_range_that_was_read_before_another_database_came_is_not_written_to_it(path, another):
    @model(identifier="shout")
    def slow(body: str) -> str:
        if body == "b":
            restore_into(path, another)
        return body.upper()

    with opened(path) as db, pytest.raises(DatabaseReplaced):
        slow.predict(X="body", db=db, select=sa.select(DOCS), output="loud")
    assert outputs(path) == [None, None]


def test_drain_claims_no_success_where_another_file_without_listeners_came(path, tmp_path):
    run_sql(path, "PRAGMA journal_mode = DELETE")
    run_sql(tmp_path / "bare.db", "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT, loud TEXT)")
    with opened(path) as db:
        db.add(loud())
        db.listen()
        db.drain()
        copy_into(path, tmp_path / "bare.db")
        insert(path)
        with pytest.raises(NotDrained, match=r"'docs\.loud' was added here and is gone"):
            wait_until(lambda: db.drain())
    assert outputs(path) == [None]


def test_drain_tells_that_the_worker_of_this_process_has_died(path, monkeypatch):
    with opened(path) as db:
        db.add(loud())
        db.listen()
        db.drain()
        monkeypatch.setattr("pinnacle.runtime.worker.Worker._look", lambda self: 1 / 0)
        wait_until(lambda: not db._listeners._local.is_alive)
        with pytest.raises(NotDrained, match="ZeroDivisionError"):
            db.drain()
        monkeypatch.undo()
        db.listen()
        insert(path)
        db.drain()
        assert outputs(path) == ["A", "B", "C"]


# -- triggers of the user's ------------------------------------------------------------------------------


@model
def numbered(body: str, rev: int) -> str:
    return f"{note(body)} r{rev}"


def add_trigger(path, does, when="1"):
    run_sql(path, "ALTER TABLE docs ADD COLUMN rev INTEGER DEFAULT 1")
    run_sql(path, f"CREATE TRIGGER theirs AFTER UPDATE ON docs WHEN {when} BEGIN {does}; END")


BUMPS = "UPDATE docs SET rev = rev + 1 WHERE id = new.id"
RAISES_TO_5 = "UPDATE docs SET rev = 5 WHERE id = new.id"


def truly_fresh(path):
    return sum(found == want for want, found in run_sql(path, "SELECT body || ' r' || rev, o FROM docs"))


@pytest.mark.parametrize(("does", "fresh", "calls"), [(BUMPS, 0, 4), (RAISES_TO_5, 2, 4)])
def test_a_row_whose_input_a_trigger_changes_as_its_output_is_written_is_not_called_fresh(path, does, fresh, calls):
    add_trigger(path, does)
    CALLS.clear()
    with opened(path) as db:
        table = sa.Table("docs", sa.MetaData(), autoload_with=db.engine)
        listener = db.add(Listener(model=numbered, key=("body", "rev"), select=sa.select(table), output="o"))
        db.listen()
        db.drain()
        found = db.fresh(listener)
        assert (found.fresh, found.failed, truly_fresh(path)) == (fresh, 2 - fresh, fresh)
        assert len(CALLS) == calls
        assert all("trigger of docs changes" in error.message for error in db.errors())
        run_sql(path, "UPDATE docs SET body = 'new' WHERE id = 1")
        db.drain()
        assert db.fresh(listener).fresh == truly_fresh(path) == fresh


def test_predict_sets_a_row_aside_whose_input_a_trigger_changes_with_each_write(path):
    add_trigger(path, BUMPS, "new.id = 1 AND new.o IS NOT old.o")
    with opened(path) as db:
        table = sa.Table("docs", sa.MetaData(), autoload_with=db.engine)
        run_sql(path, "ALTER TABLE docs ADD COLUMN o TEXT")
        result = numbered.predict(X=("body", "rev"), db=db, select=sa.select(table), output="o")
        assert (result.written, result.failed, [error.key for error in db.errors()]) == (1, 1, [1])
        assert numbered.predict(X=("body", "rev"), db=db, select=sa.select(table), output="o").calls == 0


@pytest.mark.parametrize(
    "trigger",
    ["BEFORE UPDATE OF loud ON docs WHEN old.id = 1 BEGIN SELECT RAISE(IGNORE); END",
     "AFTER UPDATE OF loud ON docs WHEN old.id = 1 AND new.loud IS NOT NULL "
     "BEGIN UPDATE docs SET loud = NULL WHERE id = 1; END"],
)  # fmt: skip
def test_a_row_whose_output_a_trigger_keeps_out_is_set_aside_and_paid_for_once(path, trigger):
    run_sql(path, "ALTER TABLE docs ADD COLUMN loud TEXT", f"CREATE TRIGGER theirs {trigger}")
    CALLS.clear()
    with opened(path) as db:
        listener = db.add(loud())
        db.listen()
        db.drain()
        db.sweep(listener)
        db.drain()
        assert [(error.key, "keeps 'loud' from being written" in error.message) for error in db.errors()] == [(1, True)]
        assert (db.fresh(listener).fresh, db.fresh(listener).failed) == (1, 1)
        assert shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud").calls == 0
    assert (len(CALLS), outputs(path)) == (2, [None, "B"])


def test_an_output_that_a_trigger_of_the_users_rewrites_is_recorded_as_it_is_stored(path):
    run_sql(path, "ALTER TABLE docs ADD COLUMN loud TEXT")
    tags = "UPDATE docs SET loud = new.loud || '!' WHERE id = new.id"
    run_sql(path, f"CREATE TRIGGER theirs AFTER UPDATE OF loud ON docs WHEN new.loud NOT LIKE '%!' BEGIN {tags}; END")
    with opened(path) as db:
        assert shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud").written == 2
        again = shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud")
        assert (again.fresh, again.calls, outputs(path)) == (2, 0, ["A!", "B!"])


# -- an Engine of the user's -----------------------------------------------------------------------------

SETTINGS = ("busy_timeout", "temp_store", "synchronous", "journal_mode", "foreign_keys", "recursive_triggers")


@pytest.mark.parametrize("pool", [sa.QueuePool, sa.NullPool, sa.StaticPool, sa.SingletonThreadPool])
def test_no_setting_of_ours_reaches_the_connections_of_an_engine_that_was_handed_in(path, pool):
    def settings_of(engine):
        with engine.connect() as connection:
            return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in SETTINGS]

    def new_engine():
        made = sa.create_engine(f"sqlite:///{path}", poolclass=pool)

        @sa.event.listens_for(made, "connect")
        def set_up(connection, record):
            connection.execute("PRAGMA busy_timeout = 1234")
            connection.execute("PRAGMA foreign_keys = ON")

        return made

    run_sql(path, "PRAGMA journal_mode = WAL")
    untouched, engine = new_engine(), new_engine()
    expected = settings_of(untouched)
    assert (expected[0], expected[4]) == (1234, 1)
    with pinnacle(engine) as db:
        db.add(loud())
        db.listen()
        db.drain()
        assert settings_of(engine) == expected
        engine.dispose()
        assert settings_of(engine) == expected
    assert settings_of(engine) == expected
    assert outputs(path) == ["A", "B"]
    for each in (engine, untouched):
        each.dispose()
