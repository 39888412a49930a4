"""No error of the driver's gets out: each verb of the MongoDB backend, asked once there is no server behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo import MongoClient, timeout
from pymongo.database import Database
from pymongo.errors import AutoReconnect, PyMongoError

from pinnacle.backends import protocol
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.mongodb.connect import connect
from pinnacle.base.errors import BackendError, ConnectionLost
from pinnacle.base.listeners import Claim, Watch
from pinnacle.base.rows import Failure, Fields, OutputBatch, OutputInfo, OutputSpec, Page, Record
from pinnacle.base.types import Items, Text
from pinnacle.base.usage import BatchJob, UsageRow
from tests.servers import start_mongod

docs = Collection("docs")
DOCUMENTS = 300
"""More than the first batch of a cursor holds."""
BODY = Record(kind="model", identifier="m", version=0, type="t", body={}, digest="digest")


@dataclass
class World:
    """A backend that was at work when it lost its server."""

    backend: Any
    target: Any
    side: Any
    window: Any
    feed: Any
    wake: Any
    page: Page
    side_page: Page
    claim: Claim
    info: OutputInfo
    stream: Any
    unread: Any
    half_read: Iterator[Any]
    document: Any

    def batch(self) -> OutputBatch:
        return OutputBatch(keys=self.page.keys, outputs=["x"] * len(self.page.keys), witnesses=self.page.witnesses)

    def side_batch(self) -> OutputBatch:
        return OutputBatch(
            keys=self.side_page.keys, outputs=[["x"]] * len(self.side_page.keys), witnesses=self.side_page.witnesses
        )

    def failures(self) -> list[Failure]:
        return [
            Failure(
                key=self.page.keys[0],
                witness=self.page.witnesses[0],
                error="Error",
                message="m",
                traceback="",
                attempts=1,
            )
        ]

    def resolved(self) -> Any:
        return self.backend.resolve(docs.find(), Fields(("q",)))


class Model:
    """What `Document.outputs` asks for the name of."""

    identifier = "many"


def world(database: Database[Any]) -> World:
    """A backend that has an output, a listener with work, an open stream, and results that are not read yet."""
    backend: Any = connect(database)
    database.docs.insert_many([{"_id": n, "q": f"q{n}"} for n in range(DOCUMENTS)])
    source = backend.resolve(docs.find({"q": {"$exists": True}}), Fields(("q",)))
    target = backend.bind(source, OutputSpec(name="", type=Text(), model="m", version=0, fields=Fields(("q",))))
    side = backend.bind(
        source, OutputSpec(name="parts", type=Items(Text(), many=True), model="many", version=0, fields=Fields(("q",)))
    )
    backend.listeners.register(target.info.id, "kept", 0)
    feed, wake = backend.feed(target, ["q"], Watch()), backend.wake()
    feed.install()
    deadline = time.monotonic() + 30.0
    while backend._reader._stream is None:
        assert time.monotonic() < deadline
        wake.wait(0.1, threading.Event())
    feed.enqueue([1, 2, 3])
    wire = backend._wire
    half_read = iter(backend.execute(docs.find()))
    next(half_read)
    return World(
        backend=backend, target=target, side=side,
        window=backend.scan(backend.resolve(docs.find().limit(2), Fields(("q",)))), feed=feed, wake=wake,
        page=target.read(None, 2), side_page=side.read(None, 2), claim=feed.claim("run", 2, 60.0), info=target.info,
        stream=wire.changes(frozenset({"docs"}), wire.operation_time()),
        unread=backend.execute(docs.find()), half_read=half_read, document=backend.execute(docs.find_one({"_id": 1})),
    )  # fmt: skip


Call = Callable[[World], Any]
EXECUTED: dict[str, Call] = {
    "a find": lambda w: w.backend.execute(docs.find()).to_list(),
    "a find in order": lambda w: w.backend.execute(docs.find().sort("q").skip(1).limit(3)).first(),
    "a find_one": lambda w: w.backend.execute(docs.find_one({"_id": 1})),
    "a count": lambda w: w.backend.execute(docs.count_documents()),
    "an aggregate": lambda w: list(w.backend.execute(docs.aggregate([{"$match": {}}]))),
    "an aggregate that writes": lambda w: w.backend.execute(docs.aggregate([{"$out": "copy"}])),
    "an insert_one": lambda w: w.backend.execute(docs.insert_one({"_id": "new"})),
    "an insert_many": lambda w: w.backend.execute(docs.insert_many([{"_id": "new"}, {"_id": "newer"}])),
    "an update_many": lambda w: w.backend.execute(docs.update_many({}, {"$set": {"z": 1}})),
    "a replace_one": lambda w: w.backend.execute(docs.replace_one({"_id": 1}, {"q": "x"})),
    "a delete_many": lambda w: w.backend.execute(docs.delete_many({})),
    "a result that was not read": lambda w: w.unread.to_list(),
    "a result that was read in part": lambda w: list(w.half_read),
    "a document's output in a side collection": lambda w: w.document.outputs("q", Model()),
    "a stored query": lambda w: w.backend.resolve(w.backend.freeze(w.target.source), Fields(("q",))),
    "the next events of a change stream": lambda w: w.stream.next(10),
}
VERBS: dict[str, Call] = {
    "backend.execute": lambda w: w.backend.execute(docs).to_list(),
    "backend.resolve": lambda w: w.resolved(),
    "backend.plan": lambda w: w.backend.plan(
        w.target.source, OutputSpec(name="z", type=Text(), model="m", version=0, fields=Fields(("q",)))
    ),
    "backend.bind": lambda w: w.backend.bind(
        w.target.source, OutputSpec(name="z", type=Text(), model="m", version=0, fields=Fields(("q",)))
    ),
    "backend.migration_plan": lambda w: w.backend.migration_plan(),
    "backend.migrate": lambda w: w.backend.migrate(),
    "backend.removal_plan": lambda w: w.backend.removal_plan(outputs=True),
    "backend.remove_all": lambda w: w.backend.remove_all(outputs=True),
    "outputs.all": lambda w: w.backend.outputs.all(),
    "outputs.of": lambda w: w.backend.outputs.of("m"),
    "outputs.find": lambda w: w.backend.outputs.find(docs, Fields(("q",)), "m"),
    "outputs.forget": lambda w: w.backend.outputs.forget(w.info.id, drop_column=True),
    "errors.newest": lambda w: w.backend.errors.newest(),
    "errors.counts": lambda w: w.backend.errors.counts(),
    "errors.take": lambda w: w.backend.errors.take(w.info.id),
    "listeners.all": lambda w: w.backend.listeners.all(),
    "listeners.register": lambda w: w.backend.listeners.register(w.info.id, "kept", 1),
    "listeners.move": lambda w: w.backend.listeners.move(w.info.id, 0, 1),
    "listeners.remove": lambda w: w.backend.listeners.remove(w.info.id),
    "listeners.pause": lambda w: w.backend.listeners.pause(w.info.id, "because"),
    "listeners.resume": lambda w: w.backend.listeners.resume(w.info.id),
    "listeners.request_sweep": lambda w: w.backend.listeners.request_sweep(w.info.id),
    "listeners.advance_sweep": lambda w: w.backend.listeners.advance_sweep(w.info.id, "seen", None),
    "listeners.record_error": lambda w: w.backend.listeners.record_error(w.info.id, "m"),
    "listeners.clear_error": lambda w: w.backend.listeners.clear_error(w.info.id),
    "listeners.has_work": lambda w: w.backend.listeners.has_work(w.info.id),
    "listeners.backlog": lambda w: w.backend.listeners.backlog(w.info.id),
    "listeners.attend": lambda w: w.backend.listeners.attend("worker", 0.0, 5.0),
    "listeners.workers": lambda w: w.backend.listeners.workers(),
    "outputs.foreign": lambda w: w.backend.outputs.foreign(
        w.target.source, OutputSpec(name="z", type=Text(), model="m", version=0, fields=Fields(("q",)))
    ),
    "feed.install": lambda w: w.feed.install(),
    "feed.verify": lambda w: w.feed.verify(),
    "feed.fold": lambda w: w.feed.fold(),
    "feed.enqueue": lambda w: w.feed.enqueue([1]),
    "feed.claim": lambda w: w.feed.claim("run", 1, 5.0),
    "feed.take": lambda w: w.feed.take("run", 1, 5.0, 0),
    "feed.finish": lambda w: w.feed.finish(w.claim, [0], [1]),
    "target.count": lambda w: w.target.count(),
    "target.read": lambda w: w.target.read(None, 2),
    "target.reread": lambda w: w.target.reread([1]),
    "target.claim": lambda w: w.target.claim("run", w.page, [], 5.0),
    "target.renew": lambda w: w.target.renew("run", 5.0),
    "target.release": lambda w: w.target.release("run"),
    "target.write": lambda w: w.target.write(w.batch()),
    "target.fail": lambda w: w.target.fail(w.failures()),
    "target.absent": lambda w: w.target.absent([1]),
    "target.forget": lambda w: w.target.forget([1]),
    "target.blank": lambda w: w.target.blank([1]),
    "target.orphans": lambda w: w.target.orphans(None, None, selected=True),
    "side.read": lambda w: w.side.read(None, 2),
    "side.write": lambda w: w.side.write(w.side_batch()),
    "side.blank": lambda w: w.side.blank([1]),
    "side.forget": lambda w: w.side.forget([1]),
    "side.orphans": lambda w: w.side.orphans(None, None, selected=False),
    "window.count": lambda w: w.window.count(),
    "window.read": lambda w: w.window.read(None, 2),
    "catalog.save": lambda w: w.backend.catalog.save(BODY),
    "catalog.amend": lambda w: w.backend.catalog.amend(BODY),
    "catalog.get": lambda w: w.backend.catalog.get("model", "m"),
    "catalog.versions": lambda w: w.backend.catalog.versions("model", "m"),
    "catalog.newest": lambda w: w.backend.catalog.newest("model", ["m"]),
    "catalog.identifiers": lambda w: w.backend.catalog.identifiers(),
    "catalog.delete": lambda w: w.backend.catalog.delete("model", "m"),
    "catalog.has_artifact": lambda w: w.backend.catalog.has_artifact("0" * 64),
    "catalog.put_artifact": lambda w: w.backend.catalog.put_artifact("0" * 64, iter([b"x"])),
    "catalog.get_artifact": lambda w: list(w.backend.catalog.get_artifact("0" * 64)),
    "runs.lease": lambda w: w.backend.runs.lease("m", "token", 5.0),
    "runs.renew": lambda w: w.backend.runs.renew("m", "token", 5.0),
    "runs.leased": lambda w: w.backend.runs.leased(),
    "runs.release": lambda w: w.backend.runs.release("m", "token"),
    "runs.log": lambda w: w.backend.runs.log("run", 0, [{"loss": 1.0}]),
    "runs.cut": lambda w: w.backend.runs.cut("run", 0),
    "runs.series": lambda w: w.backend.runs.series("run"),
    "runs.forget": lambda w: w.backend.runs.forget("run"),
    "ledger.add_usage": lambda w: w.backend.ledger.add_usage([UsageRow(day="2026-01-01", model="m", output="")]),
    "ledger.usage": lambda w: w.backend.ledger.usage(),
    "ledger.cached": lambda w: w.backend.ledger.cached([b"0" * 16]),
    "ledger.cache": lambda w: w.backend.ledger.cache({b"0" * 16: "1"}, 5.0),
    "ledger.clear_cache": lambda w: w.backend.ledger.clear_cache(),
    "ledger.save_batch": lambda w: w.backend.ledger.save_batch(
        BatchJob(id="b", output=1, model="m", version=0, parameters="", created_at=0.0, items=(("1", "ab"),))
    ),
    "ledger.batches": lambda w: w.backend.ledger.batches(1),
    "ledger.delete_batch": lambda w: w.backend.ledger.delete_batch("b"),
    "ledger.book_batch": lambda w: w.backend.ledger.book_batch("b", [UsageRow(day="2026-01-01", model="m", output="")]),
}
NEED_NO_SERVER = {
    "backend.owns", "backend.default_name", "backend.freeze", "backend.scan", "backend.feed", "backend.wake",
    "backend.lead", "backend.check", "outputs.column", "outputs.rows", "feed.plan", "feed.settle",
    "target.check_all", "target.prepare",
}  # fmt: skip
GO_ON = {"wake.wait", "wake.close", "backend.close"}
NOUNS = {
    "backend": protocol.Backend, "outputs": protocol.Outputs, "errors": protocol.Errors, "feed": protocol.Feed,
    "listeners": protocol.Listeners, "wake": protocol.Wake, "target": protocol.Target, "catalog": protocol.CatalogStore,
    "runs": protocol.RunStore, "ledger": protocol.Ledger,
}  # fmt: skip


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[str, World]]:
    """One whose client the user has closed, and one whose server has gone away."""
    with start_mongod(replica_set=True) as url, pytest.MonkeyPatch.context() as patched:
        patched.setattr("pymongo.common.MIN_HEARTBEAT_INTERVAL", 0.01)  # between two looks whether a server is back
        left, closed = MongoClient[Any](url), MongoClient[Any](url)
        found = {"gone": world(left.left), "closed": world(closed.closed)}
        closed.close()
        with pytest.raises(AutoReconnect):
            left.admin.command("shutdown", force=True)
        yield found
        with timeout(0.05):
            left.close()


@pytest.mark.parametrize("name", [*VERBS, *EXECUTED])
@pytest.mark.parametrize("loss", ["gone", "closed"])
def test_a_lost_server_is_an_error_of_pinnacles(worlds, loss, name):
    with timeout(0.05) if loss == "gone" else nullcontext(), pytest.raises(BackendError) as caught:
        ({**VERBS, **EXECUTED})[name](worlds[loss])
    assert isinstance(caught.value, ConnectionLost) == (loss == "gone")
    assert isinstance(caught.value.__cause__, PyMongoError)
    assert "MongoDB at " in str(caught.value)


@pytest.mark.parametrize("loss", ["gone", "closed"])
def test_a_worker_waits_for_its_server_and_whoever_closes_gets_no_error(worlds, loss, caplog):
    lost = worlds[loss]
    with timeout(0.05) if loss == "gone" else nullcontext():
        assert lost.wake.wait(0.5, threading.Event())
        assert "cannot read the changes" in caplog.text
        lost.stream.close()
        lost.wake.close()
        lost.backend.close()


def test_no_verb_of_a_backend_is_left_out():
    there = {
        f"{noun}.{name}"
        for noun, kind in NOUNS.items()
        for name, member in vars(kind).items()
        if callable(member) and not name.startswith("_")
    }
    assert there == {name for name in VERBS if name.split(".")[0] in NOUNS} | NEED_NO_SERVER | GO_ON
