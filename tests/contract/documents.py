"""The table that most contract tests work on, and what pinnacle computed for it, on any database."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from pinnacle import Database
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from tests.databases import CAPABILITIES, UserDatabase

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()
"""What `outputs` gives for a document without the output; SQL rows have NULL."""


def create_docs(backend: UserDatabase, *bodies: Any, table: str = "docs") -> list[Any]:
    """A table with a row for each of ``bodies``, and a number that no model reads; its keys 1, 2, ..."""
    backend.create(table, {"body": str, "n": int})
    return backend.insert(table, *({"body": body, "n": i} for i, body in enumerate(bodies)))


def outputs(backend: UserDatabase, db: Database, X: Any, model: Any, table: str = "docs") -> dict[Any, Any]:  # noqa: N803
    """The outputs of all rows by key, read as a user does."""
    if has(backend, Capability.DOCUMENTS):
        return {row["_id"]: document_output(row, X, model) for row in db.execute(Collection(table).find())}
    entity = backend.entity(table)
    rows = db.execute(sa.select(entity.c.id, db.output(entity, X, model)).order_by(entity.c.id))
    return dict(map(tuple, rows))


def document_output(row: Any, X: Any, model: Any) -> Any:  # noqa: N803
    try:
        return row.outputs(X, model)
    except KeyError:
        return ABSENT


def blank(backend: UserDatabase) -> Any:
    """How a row reads that has no output, its failure for example."""
    return ABSENT if has(backend, Capability.DOCUMENTS) else None


def has(backend: UserDatabase, capability: Capability) -> bool:
    return capability in CAPABILITIES[backend.name]


def snapshot(backend: UserDatabase) -> Any:
    """All that is in the database, schema and rows, pinnacle's own included."""
    if has(backend, Capability.DOCUMENTS):
        database: Any = backend.database  # type: ignore[attr-defined]
        return {
            name: (list(database[name].find()), database[name].index_information())
            for name in sorted(database.list_collection_names())
        }
    with backend.engine.connect() as connection:  # type: ignore[attr-defined]
        inspector = sa.inspect(connection)
        found = {}
        for schema in inspector.get_schema_names():
            if schema not in ("information_schema", "pg_catalog"):
                for name in inspector.get_table_names(schema=schema):
                    table = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection)
                    columns = [(column.name, str(column.type)) for column in table.c]
                    found[schema, name] = (columns, sorted(map(repr, connection.execute(sa.select(table)))))
        return found


def wait_until(is_so: Callable[[], bool], timeout_s: float = 600.0) -> None:
    """Return when a condition holds; TimeoutError when it never does."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition never held")
        time.sleep(0.005)


def during(action: Callable[[], Any], *, when: str) -> Callable[[str], str]:
    """A model's function that runs ``action`` once, inside its call for the body ``when``."""
    pending = [action]

    def function(body: str) -> str:
        if body == when and pending:
            pending.pop()()
        return body.upper()

    return function
