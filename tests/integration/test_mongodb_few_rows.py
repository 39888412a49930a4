"""The short way of few rows that the change stream of a real MongoDB told of just now."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pymongo
import pytest

from pinnacle.backends.mongodb import Collection
from pinnacle.backends.mongodb.target.own_writes import OwnWrite, OwnWrites
from pinnacle.backends.open import open_backend
from pinnacle.base.listeners import NOTHING, Watch
from pinnacle.base.rows import Fields, OutputBatch, OutputSpec
from pinnacle.base.settings import Settings
from pinnacle.base.types import Text

SPEC = OutputSpec(name="loud", type=Text(), model="shout", version=0, fields=Fields.of("body"))
TTL_S, PATIENCE_S = 60.0, 60.0


class Listened:
    """A collection with an output and a listener's feed, in the process that reads the changes."""

    def __init__(self, url: str, docs: Any, below: Any, select: Any) -> None:
        below.migrate()
        self.docs, self.below = docs, below
        self.target = below.bind(below.resolve(select, SPEC.fields), SPEC)
        self.number = self.target.info.id
        below.listeners.register(self.number, "docs.loud", 0)
        self.feed = below.feed(self.target, (), Watch())
        self.feed.install()
        self.wake = below.wake()
        self.work = docs.database[f"pinnacle_work_{self.number}"]
        assert self.take().claim == NOTHING  # from now on what is at hand is looked at alone, for a second

    def insert(self, *rows: dict[str, Any]) -> None:
        """Rows that the stream has told of."""
        self.docs.insert_many(rows)
        self.wait_for(len(rows))

    def wait_for(self, rows: int) -> None:
        while len(self.feed._reader._at_hand.get(self.number, ())) < rows:
            assert self.wake.wait(PATIENCE_S, threading.Event())

    def take(self, owner: str = "owner") -> Any:
        return self.feed.take(owner, 10, TTL_S, 0)

    def take_at_hand(self) -> Any:
        """By the short way, also on a machine that took its time."""
        self.feed._looked_at = float("inf")
        return self.take()


class Interrupted(OwnWrites):
    """Meets the event of each row while it is written, and ends to read before the write has ended."""

    def __init__(self, docs: Any) -> None:
        super().__init__()
        self.begin_era(is_reading=True)
        self._docs = docs

    @contextmanager
    def of(self, output: int, keys: Sequence[Any]) -> Iterator[OwnWrite]:
        with super().of(output, keys) as write:
            yield write
            self._docs.update_one({"_id": 2}, {"$set": {"loud": "another's"}})
            assert all(self.meet(output, key) for key in keys)
            self.begin_era(is_reading=False)


@pytest.fixture(params=[{}, {"lang": {"$ne": "de"}}], ids=["all", "some"])
def listened(request, mongodb_url) -> Iterator[Listened]:
    with pymongo.MongoClient[Any](mongodb_url) as client, closing(open_backend(mongodb_url, Settings())) as below:
        docs = client.get_default_database().docs
        found = Listened(mongodb_url, docs, below, Collection("docs").find(request.param))
        yield found
        found.wake.close()


def batch_of(page: Any) -> OutputBatch:
    return OutputBatch(keys=page.keys, outputs=[text.upper() for text in page.inputs], witnesses=page.witnesses)


def test_rows_at_hand_are_claimed_and_read_at_once(listened):
    listened.insert({"_id": 1, "body": "a"}, {"_id": 2, "body": "b"})
    taken = listened.take_at_hand()
    assert (taken.folded, sorted(taken.page.inputs), sorted(taken.claim.keys)) == (2, ["a", "b"], [1, 2])
    assert listened.below.listeners.backlog(listened.number).in_flight == 2
    page = taken.page
    batch = OutputBatch(keys=page.keys, outputs=[text.upper() for text in page.inputs], witnesses=page.witnesses)
    assert not listened.target.write(batch)
    assert listened.target.reread([1, 2]).fresh == 2
    listened.feed.finish(taken.claim, [0, 1], [])
    assert listened.work.count_documents({}) == 0


def test_only_what_others_overwrote_is_left_when_the_reader_of_changes_ends_in_a_write(listened):
    listened.insert({"_id": 1, "body": "a"}, {"_id": 2, "body": "b"})
    page = listened.take_at_hand().page
    listened.target.tell_of_writes(Interrupted(listened.docs))
    batch = OutputBatch(keys=page.keys, outputs=[text.upper() for text in page.inputs], witnesses=page.witnesses)
    assert [page.keys[position] for position in listened.target.write(batch)] == [2]
    left = listened.target.reread([1, 2])
    assert (left.fresh, left.keys) == (1, [2])


def test_rows_in_other_hands_are_not_claimed(listened):
    listened.insert({"_id": 1, "body": "a"}, {"_id": 2, "body": "b"})
    listened.feed._reader.put_in(listened.number)
    assert len(listened.feed.claim("another", 1, TTL_S).keys) == 1
    listened.docs.update_many({}, {"$set": {"body": "c"}})
    listened.wait_for(2)
    taken = listened.take_at_hand()
    assert (len(taken.claim.keys), taken.page) == (1, None)  # by the long way, what the other has left
    assert listened.below.listeners.backlog(listened.number).in_flight == 2


def test_rows_that_were_done_meanwhile_are_not_computed_again(listened):
    listened.insert({"_id": 1, "body": "a"}, {"_id": 2, "body": "b"})
    first = listened.target.reread([1])
    listened.target.write(batch_of(first))
    taken = listened.take_at_hand()
    assert (sorted(taken.claim.keys), taken.page.keys, taken.page.fresh) == ([1, 2], [2], 1)
    listened.target.write(batch_of(taken.page))
    assert listened.target.reread([1, 2]).fresh == 2


def test_a_row_with_an_output_that_changed_since_it_was_taken_is_not_written(listened):
    listened.insert({"_id": 1, "body": "a"})
    first = listened.take_at_hand()
    listened.target.write(batch_of(first.page))
    listened.feed.finish(first.claim, [0], [])
    listened.docs.update_one({"_id": 1}, {"$set": {"body": "b"}})
    listened.wait_for(1)
    taken = listened.take_at_hand()
    listened.docs.update_one({"_id": 1}, {"$set": {"body": "c"}})
    assert listened.target.write(batch_of(taken.page)) == [0]
    assert listened.docs.find_one({"_id": 1})["loud"] == "A"
    assert listened.target.reread([1]).keys == [1]


def test_a_row_that_changes_again_while_it_is_worked_on_is_taken_again(listened):
    listened.insert({"_id": 1, "body": "a"})
    first = listened.take_at_hand()
    listened.docs.update_one({"_id": 1}, {"$set": {"body": "b"}})
    listened.wait_for(1)
    listened.feed._reader.put_in(listened.number)
    assert listened.target.write(batch_of(first.page)) == [0]
    listened.feed.finish(first.claim, [0], [])
    assert listened.below.listeners.has_work(listened.number)
    assert list(listened.feed.claim("owner", 10, TTL_S).keys) == [1]


def test_rows_that_are_done_are_never_put_into_the_work(listened):
    listened.insert({"_id": 1, "body": "a"})
    assert listened.below.listeners.has_work(listened.number)
    taken = listened.take_at_hand()
    listened.target.write(batch_of(taken.page))
    listened.feed.finish(taken.claim, [0], [])
    listened.wake.close()
    assert listened.work.count_documents({}) == 0
    assert listened.docs.database.pinnacle_listener.find_one({"_id": listened.number})["processed"] == 1


@pytest.mark.parametrize("change", [{"version": 1}, {"paused": "for a test"}])
def test_a_listener_that_is_paused_or_of_another_version_takes_nothing(listened, change):
    listened.insert({"_id": 1, "body": "a"})
    listened.docs.database.pinnacle_listener.update_one({"_id": listened.number}, {"$set": change})
    assert not listened.take_at_hand().is_current
    assert listened.below.listeners.backlog(listened.number).in_flight == 0


def test_rows_that_are_not_done_are_in_the_work_before_the_position_is_saved(listened):
    listened.insert({"_id": 1, "body": "a"}, {"_id": 2, "body": "b"}, {"_id": 3, "body": "c"})
    taken = listened.take_at_hand()
    listened.feed.finish(taken.claim, [taken.claim.keys.index(2)], [])
    listened.wake.close()
    assert sorted(document["_id"] for document in listened.work.find()) == [1, 3]
