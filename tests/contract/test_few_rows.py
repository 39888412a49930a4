"""The short way of few rows: taken in one transaction, written and finished in another."""

from __future__ import annotations

from contextlib import closing

import pytest
import sqlalchemy as sa

from pinnacle.backends.open import open_backend
from pinnacle.backends.protocol import Capability
from pinnacle.base.listeners import NOTHING, Taken, Watch
from pinnacle.base.rows import Fields, OutputBatch, OutputSpec
from pinnacle.base.settings import Settings
from pinnacle.base.types import Text

SPEC = OutputSpec(name="loud", type=Text(), model="shout", version=0, fields=Fields.of("body"))
TTL_S = 60.0

pytestmark = pytest.mark.requires(Capability.SQL)


class Listened:
    """A table of two rows with an output and the capture of its changes."""

    def __init__(self, backend, below):
        backend.create("docs", {"body": str})
        self.below, self.query = below, backend.query("docs")
        below.migrate()
        self.target = below.bind(below.resolve(self.query, SPEC.fields), SPEC)
        below.listeners.register(self.target.info.id, "docs.loud", 0)
        self.feed = below.feed(self.target, (), Watch())
        self.feed.install()
        backend.insert("docs", {"body": "a"}, {"body": "b"})

    def take(self, owner="owner", version=0):
        return self.feed.take(owner, 10, TTL_S, version)

    def change(self, body, new):
        with self.below.engine.begin() as connection:
            connection.execute(sa.text("UPDATE docs SET body = :new WHERE body = :body"), {"body": body, "new": new})

    def louds(self):
        with self.below.engine.begin() as connection:
            return connection.execute(sa.text("SELECT loud FROM docs ORDER BY loud")).scalars().all()

    def done(self):
        return self.below.listeners.all()[0].processed

    def backlog(self):
        return self.below.listeners.backlog(self.target.info.id)


@pytest.fixture
def listened(backend):
    with closing(backend.below()) as below:
        yield Listened(backend, below)


def batch_of(page):
    return OutputBatch(keys=page.keys, outputs=[text.upper() for text in page.inputs], witnesses=page.witnesses)


def test_rows_are_taken_with_their_inputs_and_settled_at_once(listened):
    taken = listened.take()
    assert (taken.folded, sorted(taken.page.inputs), len(taken.claim.keys)) == (2, ["a", "b"], 2)
    assert listened.backlog().in_flight == 2
    assert listened.feed.settle(taken.claim, batch_of(taken.page))
    assert listened.louds() == ["A", "B"]
    assert (listened.done(), listened.backlog().pending, listened.backlog().in_flight) == (2, 0, 0)
    assert listened.target.read(None, 10).fresh == 2
    assert listened.take().claim == NOTHING


def test_nothing_is_settled_where_a_row_was_changed_since_it_was_taken(listened):
    taken = listened.take()
    listened.change("b", "c")
    assert not listened.feed.settle(taken.claim, batch_of(taken.page))
    assert listened.louds() == [None, None]
    assert (listened.done(), listened.backlog().in_flight) == (0, 2)


def test_a_change_between_the_look_and_the_end_stays_in_the_work(listened):
    taken = listened.take()
    listened.change("b", "c")
    listened.change("c", "b")  # as it was, so that it is written; but somebody may have seen it otherwise
    listened.feed.fold()
    assert listened.feed.settle(taken.claim, batch_of(taken.page))
    assert listened.backlog().work == 1
    assert len(listened.take("another").claim.keys) == 1


def test_rows_in_other_hands_are_left_to_a_claim(listened):
    assert len(listened.take().claim.keys) == 2
    assert listened.take("another").claim is None
    assert listened.feed.claim("another", 10, TTL_S).keys == []


def test_many_rows_are_left_to_a_claim(listened):
    taken = listened.feed.take("owner", 1, TTL_S, 0)
    assert (taken.folded, taken.claim, taken.page) == (2, None, None)
    assert len(listened.feed.claim("owner", 1, TTL_S).keys) == 1


def test_a_position_that_another_worker_has_moved_is_gone_on_from(listened):
    assert len(listened.take().claim.keys) == 2
    listened.change("a", "c")
    with closing(open_backend(listened.below.engine.url.render_as_string(False), Settings())) as another:
        target = another.bind(another.resolve(listened.query, SPEC.fields), SPEC)
        assert another.feed(target, (), Watch()).take("another", 10, TTL_S, 0).folded == 1
    listened.change("c", "d")
    assert listened.take().folded == 1
    assert listened.backlog().changes == 0


@pytest.mark.requires(Capability.MANY_PROCESSES)
def test_what_somebody_has_locked_for_long_is_left_to_a_claim(listened):
    with listened.below.engine.connect() as holder:
        holder.execute(sa.text("SELECT FROM pinnacle.pinnacle_listener FOR UPDATE"))
        assert listened.take() == Taken(claim=None)
    assert len(listened.take().claim.keys) == 2


def test_a_paused_listener_and_one_of_another_version_take_nothing(listened):
    assert not listened.take(version=1).is_current
    listened.below.listeners.pause(listened.target.info.id, "for a test")
    assert not listened.take().is_current
    assert listened.backlog().changes == 2
