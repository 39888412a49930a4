"""Listeners over the table docs, as the listener tests make and read them."""

from __future__ import annotations

from typing import Any

from pinnacle import Database, Listener
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs, has
from tests.databases import UserDatabase
from tests.models import CALLS, shout


def add(backend: UserDatabase, db: Database, the_model: Any = shout, **options: Any) -> Listener:
    """A listener over the table docs, by default from ``body`` to ``loud``."""
    options = {"key": "body", "select": backend.query("docs"), "output": "loud", **options}
    return db.add(Listener(model=the_model, **options))


def keep(backend: UserDatabase, db: Database, *bodies: Any, the_model: Any = shout, **options: Any) -> Listener:
    """The same over new rows, filled, with a worker that goes on working; the calls so far are forgotten."""
    create_docs(backend, *bodies)
    listener = add(backend, db, the_model, **options)
    db.listen()
    db.drain()
    CALLS.clear()
    return listener


def values(backend: UserDatabase, name: str = "loud") -> dict[Any, Any]:
    """One field of all rows by key."""
    return {key: row.get(name) for key, row in backend.read_all("docs").items()}


def chosen(backend: UserDatabase, n: int) -> Any:
    """The query for the rows of docs with this number."""
    if has(backend, Capability.DOCUMENTS):
        return Collection("docs").find({"n": n})
    return backend.query("docs").where(backend.entity("docs").c.n == n)
