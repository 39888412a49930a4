"""Listeners that follow their model, as the tests of following make them."""

from __future__ import annotations

from typing import Any

from pinnacle import Database, Listener, Model
from tests.contract.documents import create_docs
from tests.contract.listening import add
from tests.databases import UserDatabase
from tests.models import CALLS, Suffixed


def version(suffix: str, **options: Any) -> Suffixed:
    """A version of one model: its output is its input and the suffix."""
    return Suffixed("m", suffix=suffix, **options)


def versions(db: Database, kind: str, identifier: str) -> list[int]:
    """The versions of a component that are stored."""
    return [version["version"] for version in db.show(kind, identifier)["versions"]]


def follow(
    backend: UserDatabase, db: Database, *bodies: str, the_model: Model | None = None, **options: Any
) -> Listener:
    """A listener that follows, filled, with a worker that goes on working; the calls so far are forgotten."""
    create_docs(backend, *bodies)
    listener = add(backend, db, the_model or version("1"), follow="latest", **options)
    db.listen()
    db.drain()
    CALLS.clear()
    return listener
