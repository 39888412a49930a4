"""The statements that a block of code runs, as its driver is given them, for `tests/contract/test_statements.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

CLAUSES = (
    "WITH|SELECT|FROM|CROSS JOIN|LEFT OUTER JOIN|JOIN|WHERE|ORDER BY|LIMIT|INSERT INTO|VALUES|ON CONFLICT|RETURNING|"
    "UPDATE|SET|DELETE FROM|UNION ALL|EXCEPT ALL|FOR EACH|WHEN|AFTER|BEFORE|EXECUTE FUNCTION|BEGIN|END|EXCEPTION"
)
NOT_BEHIND = "(?<!DELETE)" + "".join(
    f"(?<! {word})" for word in ("CROSS", "OUTER", "DO", "KEY", "FOR", "AFTER", "BEFORE", "OR", "TEMP", "DISTINCT")
)
FRAME = r"\s*(BEGIN|COMMIT|ROLLBACK|PRAGMA|SET|SHOW|;)(\s|$)"
NAMES_VARY = (
    (r"(?<![\w.])\d{10}\.\d+(?!\w)", "<time>"),
    (r"(?i)x'[0-9a-f]+'", "<hash>"),
    (r"\b[0-9a-f]{32}\b", "<id>"),
    (r"'[^' ]+:\d+'", "'<process>'"),
)
"""What is another in every run, in the statements of a driver that shows their values."""


@contextmanager
def recorded(dialect: str) -> Iterator[list[str]]:
    """The statements run inside, by pinnacle or by triggers; those of a transaction's frame and of sessions aside."""
    seen: list[str] = []
    with ExitStack() as stack:
        if dialect == "sqlite":
            stack.enter_context(_traced_by_sqlite(seen))
        else:
            stack.enter_context(_traced_by_psycopg(seen))
        yield seen
    seen[:] = [readable(statement) for statement in seen if not re.match(FRAME, statement)]


@contextmanager
def _traced_by_sqlite(seen: list[str]) -> Iterator[None]:
    def note(text: str) -> None:
        """SQLite tells of a statement again for each trigger that it fires, and by comments of what these do."""
        if not text.startswith("--") and text not in seen[-1:]:
            seen.append(text)

    def checked_out(connection: Any, record: Any, proxy: Any) -> None:
        connection.set_trace_callback(note)

    def checked_in(connection: Any, record: Any) -> None:
        if connection is not None:
            connection.set_trace_callback(None)

    sa.event.listen(sa.pool.Pool, "checkout", checked_out)
    sa.event.listen(sa.pool.Pool, "checkin", checked_in)
    try:
        yield
    finally:
        sa.event.remove(sa.pool.Pool, "checkout", checked_out)
        sa.event.remove(sa.pool.Pool, "checkin", checked_in)


@contextmanager
def _traced_by_psycopg(seen: list[str]) -> Iterator[None]:
    import psycopg

    honest = {name: getattr(psycopg.Cursor, name) for name in ("execute", "executemany")}

    def traced(name: str) -> Any:
        def run(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(str(query))
            return honest[name](cursor, query, *args, **kwargs)

        return run

    with patch.multiple(psycopg.Cursor, **{name: traced(name) for name in honest}):
        yield


def readable(statement: str) -> str:
    """A statement with a clause a line, and without what is another in every run."""
    text = " ".join(statement.split())
    for pattern, name in NAMES_VARY:
        text = re.sub(pattern, name, text)
    first, *others = re.split(rf"{NOT_BEHIND} (?=(?:{CLAUSES})\b)", text)
    lines, depth = [first], first.count("(") - first.count(")")
    for line in others:
        lines.append("  " * (depth + 1) + line)
        depth += line.count("(") - line.count(")")
    return "\n".join(lines)
