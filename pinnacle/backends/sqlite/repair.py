"""Takes triggers of ours away that fail the user's writes, because the tables they write to were dropped by hand.

No trigger of SQLite can look first: the names in its body are resolved whenever a statement is
prepared; and no table can refuse to be dropped. So it is the statements that are tried: what
EXPLAIN cannot prepare with a listener's triggers, and can without them, is ours to mend.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import sqlalchemy as sa

from pinnacle.backends.sqlite.changes import TRIGGERS
from pinnacle.backends.sqlite.session import SqliteSession
from pinnacle.base.errors import UnsupportedTable
from pinnacle.base.told import logger

log = logger(__name__)

OURS = re.compile(f"pinnacle_([0-9]+)_(?:{'|'.join(TRIGGERS)})")


def take_broken_triggers_away(session: SqliteSession) -> None:
    """Drop all triggers of each listener that makes its table refuse writes.

    A worker makes them again, with a sweep, where the listener is still registered.
    """
    with session.reading() as connection:  # a lock of the file only where there is something to mend
        if all(_is_writable(session, connection, table) for table in _tables(connection)):
            return
    try:
        with session.writing() as connection:
            broken = {number: table for table in _tables(connection) for number in _broken(session, connection, table)}
            _drop(session, connection, [name for _, name, number in own_triggers(connection) if number in broken])
    except UnsupportedTable as error:  # read-only: nobody's writes come this way
        log.warning("triggers whose tables are gone could not be taken away: %s", error)
        return
    for number, table in broken.items():
        log.error(
            "table %r could not be written: a table that the triggers of listener number %d write to was dropped by "
            "hand. The triggers were taken away; if the listener is gone too, add it again",
            table, number, extra={"table": table, "output": number},
        )  # fmt: skip


def own_triggers(connection: sa.Connection) -> list[tuple[str, str, int]]:
    """Table, name and listener's number of each trigger of ours."""
    rows = connection.exec_driver_sql("SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'").all()
    found = ((table, name, OURS.fullmatch(name)) for table, name in rows)
    return [(table, name, int(match[1])) for table, name, match in found if match]


def _tables(connection: sa.Connection) -> list[str]:
    return sorted({table for table, _, _ in own_triggers(connection)})


def _broken(session: SqliteSession, connection: sa.Connection, table: str) -> list[int]:
    """The listeners each of which alone makes the table refuse a write that it takes without all of them."""
    ours = [(name, number) for on, name, number in own_triggers(connection) if on == table]
    if not _is_writable_without(session, connection, table, [name for name, _ in ours]):
        return []
    return [
        number
        for number in sorted({number for _, number in ours})
        if not _is_writable_without(session, connection, table, [name for name, other in ours if other != number])
    ]


def _is_writable_without(
    session: SqliteSession, connection: sa.Connection, table: str, triggers: Iterable[str]
) -> bool:
    connection.exec_driver_sql("SAVEPOINT pinnacle_repair")
    try:
        _drop(session, connection, triggers)
        return _is_writable(session, connection, table)
    finally:
        connection.exec_driver_sql("ROLLBACK TO pinnacle_repair")
        connection.exec_driver_sql("RELEASE pinnacle_repair")


def _is_writable(session: SqliteSession, connection: sa.Connection, table: str) -> bool:
    """Whether SQLite can prepare a write of each kind."""
    quoted = session.quote(table)
    plain = "SELECT name FROM pragma_table_info(?)"  # without generated columns, which cannot be set
    column = session.quote(connection.exec_driver_sql(plain, (table,)).scalar() or "rowid")
    writes = f"INSERT INTO {quoted} DEFAULT VALUES", f"UPDATE {quoted} SET {column} = {column}", f"DELETE FROM {quoted}"
    try:
        for statement in writes:
            connection.exec_driver_sql(f"EXPLAIN {statement}").close()
    except sa.exc.OperationalError:
        return False
    return True


def _drop(session: SqliteSession, connection: sa.Connection, triggers: Iterable[str]) -> None:
    for name in triggers:
        session.run_text(connection, f"DROP TRIGGER IF EXISTS {session.quote(name)}")
