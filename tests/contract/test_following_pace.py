"""What it takes to follow models: how soon a newer version is noticed, and what the looking costs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pinnacle import ComponentError
from pinnacle.backends.protocol import Backend
from tests.contract.documents import create_docs, wait_until
from tests.contract.following import follow, version
from tests.contract.listening import add, values
from tests.models import ABSENT_PARTS, Suffixed

pytestmark = pytest.mark.same_standalone


@pytest.fixture(autouse=True)
def brisk_workers() -> None:
    """How often workers look is what these tests are about: they look as they do outside of tests."""


def test_a_newer_version_is_noticed_at_the_next_look(backend, db, elsewhere, below, monkeypatch):
    """How often it looks, the next test says."""
    follow(backend, db, "a")
    asked = questions(below, monkeypatch)
    elsewhere.add(version("2"))
    before = len(asked)
    wait_until(lambda: values(backend) == {1: "a2"})
    looks = [name for name in asked[before:] if name in ("newest", "get")]
    assert looks[:1] == [] or looks[:1] == ["get"] or looks[:2] == ["newest", "get"]


def what_is_asked_in_three_seconds(below: Backend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions to the catalog that a worker asks with nothing to do."""
    asked = questions(below, monkeypatch)
    time.sleep(3)
    return asked


def questions(below: Backend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions to the catalog from now on, by their names."""
    asked: list[str] = []
    store = type(below.catalog)
    for name in ("newest", "get", "versions", "identifiers"):
        honest = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *args, name=name, honest=honest: (asked.append(name), honest(*args))[1])
    return asked


def test_noticing_costs_one_query_a_second_for_all_listeners(backend, db, below, monkeypatch):
    create_docs(backend, "a")
    for number in range(4):
        add(backend, db, Suffixed(f"m{number}", suffix="1"), output=f"out{number}", follow="latest")
    db.listen()
    db.drain()
    asked = what_is_asked_in_three_seconds(below, monkeypatch)
    assert set(asked) == {"newest"}
    assert 1 <= len(asked) <= 4


def test_a_version_that_cannot_be_loaded_is_not_tried_at_every_look(backend, db, below, monkeypatch):
    follow(backend, db, "a")
    newer = version("2", needs="a part")
    ABSENT_PARTS["a part"] = ComponentError
    db.add(newer)
    wait_until(lambda: db.listeners()[0].last_error is not None)
    assert set(what_is_asked_in_three_seconds(below, monkeypatch)) == {"newest"}


def test_where_none_follows_nothing_is_asked(backend, db, monkeypatch, below):
    create_docs(backend, "a")
    add(backend, db, version("1"))
    worker = db.listen()
    db.drain()
    asked: list[Any] = []
    monkeypatch.setattr(type(below.catalog), "newest", lambda *args: asked.append(args) or {})
    before = time.monotonic()
    wait_until(lambda: worker.followed_at > before)
    assert asked == []
