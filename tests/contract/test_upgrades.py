"""What an older version made goes on working: `tests/upgrades/` holds a database of each kind as that left it.

In it a listener has filled `docs.loud`: row 5 was set aside, and three changes came when the worker had stopped.
"""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from pinnacle import ConfigError
from pinnacle.backends.protocol import Capability
from tests.contract.listening import add
from tests.models import CALLS, picky

OLD = Path(__file__).parent.parent / "upgrades"
REVISION = "0005"
OPEN_S = 0.5

pytestmark = [pytest.mark.requires(Capability.SQL), pytest.mark.unmigrated]


@pytest.fixture
def old(backend):
    """A database as the older version left it."""
    with closing(backend.below()) as opened:
        text = (OLD / f"{opened.name}_{REVISION}.sql").read_text()
    if backend.engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(backend.engine.url.database)) as file:
            file.executescript(text)
    else:
        with backend.engine.connect() as connection, connection.connection.cursor() as cursor:
            cursor.execute(text)
            connection.connection.commit()
    backend.tables["docs"] = sa.Table("docs", sa.MetaData(), autoload_with=backend.engine)
    CALLS.clear()
    return backend


def loud(backend):
    return {key: row["loud"] for key, row in backend.read_all("docs").items()}


def test_an_older_database_says_how_it_is_upgraded(old, db):
    with pytest.raises(ConfigError, match="run: pinnacle migrate"):
        db.listeners()
    planned = db.migration_plan()
    assert any("pinnacle_outbox_1" in statement for statement in planned)
    with old.engine.begin() as connection:
        for statement in planned:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    assert (db.migration_plan(), len(db.listeners())) == ([], 1)


def test_a_listener_of_an_older_version_goes_on_where_it_was(old, db):
    db.migrate()
    (status,) = db.listeners()
    assert (status.pending, status.failed, status.paused) == (3, 1, None)
    assert 0 <= status.lag_s < 60
    old.insert("docs", {"id": 6, "body": "new"})
    db.listen()
    db.drain()
    assert loud(old) == {1: "UNO", 3: "THREE", 4: "FOUR", 5: None, 6: "NEW"}
    assert sorted(CALLS) == ["four", "new", "uno"]
    assert [(error.key, error.message) for error in db.errors()] == [(5, "refused: bad")]
    old.update("docs", 3, {"body": "tres"})
    old.delete("docs", 4)
    db.drain()
    assert loud(old) == {1: "UNO", 3: "TRES", 5: None, 6: "NEW"}


def test_the_users_writes_are_captured_before_a_worker_of_the_new_version_runs(old, db):
    db.migrate()
    old.insert("docs", {"id": 6, "body": "new"})
    old.update("docs", 3, {"body": "tres"})
    old.delete("docs", 4)
    assert db.listeners()[0].pending == 6
    db.listen()
    db.drain()
    assert loud(old) == {1: "UNO", 3: "TRES", 5: None, 6: "NEW"}


def test_what_was_added_with_an_older_version_is_the_same_when_it_is_added_again(old, db):
    db.migrate()
    assert add(old, db, picky).version == 0
    db.listen()
    db.drain()
    assert sorted(CALLS) == ["four", "uno"]
    assert db.fresh("docs.loud").fresh == 3


@pytest.mark.requires(Capability.MANY_PROCESSES)
def test_a_key_may_be_widened_after_an_upgrade(old, db):
    db.migrate()
    with old.engine.begin() as connection:  # a column that a trigger names cannot be altered
        connection.exec_driver_sql("DROP FUNCTION pinnacle.pinnacle_capture_1_never CASCADE")
        connection.exec_driver_sql("ALTER TABLE docs ALTER COLUMN id TYPE bigint")
        connection.exec_driver_sql("INSERT INTO docs (id, body) VALUES (3000000000, 'far')")
    assert db.listeners()[0].pending == 4


@pytest.mark.requires(Capability.MANY_PROCESSES)
def test_an_upgrade_waits_for_open_transactions_and_lets_others_write(old, db):
    with ThreadPoolExecutor(1) as pool, old.engine.connect() as earlier:
        earlier.exec_driver_sql("UPDATE docs SET body = 'tres' WHERE id = 3")
        upgrade = pool.submit(db.migrate)
        began = time.monotonic()
        written = 0
        while time.monotonic() - began < OPEN_S:
            with old.engine.begin() as connection:
                connection.exec_driver_sql("SET LOCAL statement_timeout = '5s'")
                connection.exec_driver_sql("UPDATE docs SET body = body || '!' WHERE id = 1")
            written += 1
        assert not upgrade.done()
        earlier.commit()
        upgrade.result(timeout=60)
    assert db.listeners()[0].pending == 4 + written


def test_what_an_older_version_made_is_known_as_made_here(old, db):
    assert any("CREATE VIEW" in statement and "'loud' AS name" in statement for statement in db.migration_plan())
    db.migrate()
    db.remove_all(outputs=True)
    assert old.read("docs", 3) == {"body": "three"}
