"""Artifacts at rest: shared by records, kept as long as one uses them, never half there, on every backend."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import subprocess
import threading
from contextlib import closing
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from pinnacle import BackendError, Component, NotFound, Settings
from pinnacle.backends.protocol import Capability
from pinnacle.backends.sql import schema
from pinnacle.base import limits
from pinnacle.base.rows import Record
from pinnacle.catalog.catalog import Catalog
from pinnacle.plugin import Artifact, unpack
from tests.contract.documents import has, wait_until
from tests.forks import Fork

pytestmark = pytest.mark.same_standalone

BLOB = bytes(range(256)) * 12_000
SHA256 = hashlib.sha256(BLOB).hexdigest()


@dataclasses.dataclass
class Weights(Component):
    """A component with a file of its own."""

    kind: ClassVar[str] = "run"
    weights: Any = None


@pytest.fixture
def store(below):
    """The catalog store behind a handle."""
    return below.catalog


def record(identifier="a", version=0, *artifacts):
    return Record(
        kind="run",
        identifier=identifier,
        version=version,
        type="t",
        body={"fields": {}},
        digest="digest",
        artifacts=artifacts,
    )


def put(store, content=BLOB, size=1 << 20):
    sha256 = hashlib.sha256(content).hexdigest()
    store.put_artifact(sha256, (content[start : start + size] for start in range(0, len(content), size)))
    return sha256


def read(store, sha256=SHA256):
    return b"".join(store.get_artifact(sha256))


def test_records_share_an_artifact_which_goes_with_the_last_of_them(backend, store):
    put(store)
    assert store.save(record("a", 0, SHA256))
    assert store.save(record("a", 1, SHA256))
    assert store.save(record("b", 0, SHA256))
    store.delete("run", "a", 0)
    store.delete("run", "b")
    assert read(store) == BLOB
    store.delete("run", "a")
    assert not store.has_artifact(SHA256)
    with pytest.raises(NotFound):
        read(store)
    assert chunks(backend) == []


def chunks(backend):
    """What is stored of artifacts' contents."""
    if has(backend, Capability.DOCUMENTS):
        return list(backend.database["pinnacle_artifact_chunk"].find({}, {"number": 1}))
    own = schema.SCHEMA if has(backend, Capability.NATIVE_VECTORS) else None
    with backend.engine.connect() as connection:
        table = sa.table("pinnacle_artifact_chunk", sa.column("position"), schema=own)
        return list(connection.execute(sa.select(table.c.position)))


def test_a_record_whose_artifact_is_gone_is_not_saved_until_it_is_put_again(store):
    other = put(store, b"other")
    with pytest.raises(NotFound, match="add the component again"):
        store.save(record("a", 0, other, SHA256))
    assert (store.identifiers(), store.get("run", "a")) == ([], None)
    put(store)
    assert store.save(record("a", 0, other, SHA256))
    assert sorted(store.get("run", "a").artifacts) == sorted((other, SHA256))


@pytest.mark.parametrize("how", ["added", "put"])
def test_no_record_is_left_without_its_bytes_by_those_who_remove_others(backend, db, how):
    rounds = 30 if has(backend, Capability.TRANSACTIONS) else 15
    start, failures = threading.Barrier(3), []

    def work(name):
        try:
            with backend.open() as handle, closing(backend.below()) as below:
                catalog = Catalog(below.catalog, Settings())
                start.wait(timeout=600)
                for number in range(rounds):
                    weights = Weights(name, weights=Artifact(b"shared" * 10))
                    handle.add(weights) if how == "added" else catalog.put(weights, 0)
                    assert handle.load("run", name).weights.read() == b"shared" * 10, number
                    if number < rounds - 1:
                        handle.remove("run", name)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert failures == []
    assert [db.load("run", name).weights.read() for name in "abc"] == [b"shared" * 10] * 3
    for name in "abc":
        db.remove("run", name)
    assert chunks(backend) == []


# -- into the database and out of it ----------------------------------------------------------------


def cut(content, *sizes):
    """The content in chunks of these sizes, and the rest in one."""
    for size in sizes:
        yield content[:size]
        content = content[size:]
    yield content


@pytest.mark.parametrize("sizes", [(), (7,), (1 << 20,) * 2, (5_000, 2_500_000)], ids=str)
def test_an_artifact_is_read_as_it_was_put_in_chunks_of_a_bounded_size(store, sizes):
    store.put_artifact(SHA256, cut(BLOB, *sizes))
    assert read(store) == BLOB
    assert max(map(len, store.get_artifact(SHA256))) <= 1 << 20


def test_an_artifact_of_many_chunks_is_read_as_it_was_put(backend, store):
    content = random.Random(7).randbytes(2_000_000) * (11 if has(backend, Capability.TRANSACTIONS) else 3)
    sha256 = put(store, content)
    assert read(store, sha256) == content
    assert len(chunks(backend)) == -(-len(content) // (1 << 20))


def test_an_empty_artifact_is_one(store):
    empty = put(store, b"")
    assert store.has_artifact(empty)
    assert read(store, empty) == b""


def test_an_artifact_that_is_there_is_not_read_again(store):
    put(store)
    store.put_artifact(SHA256, (pytest.fail("it was read") for _ in range(1)))
    assert read(store) == BLOB


@pytest.mark.parametrize("after", [0, 1, 6])
def test_what_failed_midway_leaves_nothing_and_can_be_put_again(backend, store, after):
    content = BLOB * 3

    def failing():
        yield from (content[start << 20 : (start + 1) << 20] for start in range(after))
        raise OSError("the disk is gone")

    sha256 = hashlib.sha256(content).hexdigest()
    with pytest.raises(OSError, match="the disk is gone"):
        store.put_artifact(sha256, failing())
    assert not store.has_artifact(sha256)
    assert chunks(backend) == []
    put(store, content)
    assert read(store, sha256) == content


@pytest.mark.unmigrated
def test_threads_that_put_the_same_artifact_at_once_leave_one_of_it(backend, store):
    start, failures = threading.Barrier(3), []

    def work():
        try:
            with closing(backend.below()) as handle:
                start.wait(timeout=600)
                put(handle.catalog, BLOB * 2)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert failures == []
    assert read(store, hashlib.sha256(BLOB * 2).hexdigest()) == BLOB * 2
    assert len(chunks(backend)) == -(-len(BLOB * 2) // (1 << 20))


KILLED = """
import sys
from pinnacle import Settings
from pinnacle.backends.open import open_backend

def chunks():
    for number in range(1_000_000):
        print(number, flush=True)
        yield b"x" * (1 << 20)

open_backend(sys.argv[1], Settings()).catalog.put_artifact("0" * 64, chunks())
"""


@pytest.mark.requires(Capability.TRANSACTIONS)
def test_a_process_killed_midway_leaves_nothing_that_is_seen_and_the_next_upload_clears_it(backend, store):
    with Fork(KILLED, backend.address, stdout=subprocess.PIPE) as process:
        while int(process.stdout.readline()) < 30:
            pass
        process.kill()
    assert not store.has_artifact("0" * 64)
    assert len(chunks(backend)) > 10
    put(store)
    assert len(chunks(backend)) == -(-len(BLOB) // (1 << 20))
    assert read(store) == BLOB


PUT_AND_KILLED = """
import os, signal, sys
from pinnacle import Settings
from pinnacle.backends.open import open_backend
from tests.contract.test_artifacts import put, record

store = open_backend(sys.argv[1], Settings()).catalog
used = put(store, b"used" * 2_000_000)
store.save(record("a", 0, used))
for content in (b"unused" * 2_000_000, b"small"):
    put(store, content)
print("done", flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.requires(Capability.TRANSACTIONS)
def test_what_no_record_came_to_use_is_cleared_once_its_process_is_gone(backend, store):
    process = Fork(PUT_AND_KILLED, backend.address, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "done\n"
    contents = (b"used" * 2_000_000, b"unused" * 2_000_000, b"small")
    used, unused, small = (hashlib.sha256(content).hexdigest() for content in contents)
    put(store)
    assert [store.has_artifact(each) for each in (used, unused, small)] == [True] * 3
    process.communicate("die\n", timeout=600)
    put(store, b"another")
    assert [store.has_artifact(each) for each in (used, unused, small)] == [True, False, False]
    assert len(chunks(backend)) == sum(-(-size // (1 << 20)) for size in (8_000_000, len(BLOB), len(b"another")))
    assert read(store, used) == b"used" * 2_000_000
    assert put(store, b"small") == small
    assert store.save(record("b", 0, small))


def test_an_artifact_that_was_there_may_be_used_though_the_process_that_put_it_is_late(backend, store, monkeypatch):
    monkeypatch.setattr(limits, "UNUSED_TTL_S", 0.0)
    put(store)
    assert store.save(record("a", 0, SHA256))
    put(store, b"other")
    assert read(store) == BLOB
    put(store, BLOB + b"late")
    put(store, b"more")
    late = hashlib.sha256(BLOB + b"late").hexdigest()
    with pytest.raises(NotFound, match="add the component again"):
        store.save(record("b", 0, late))
    assert not store.has_artifact(late)


def test_an_upload_that_was_silent_for_too_long_is_given_up_and_says_so(backend, store, monkeypatch):
    monkeypatch.setattr(limits, "UPLOAD_TTL_S", 0.0)
    content = BLOB * 3

    def slow():
        for number, start in enumerate(range(0, len(content), 1 << 20)):
            if number == 7:
                wait_until(lambda: len(chunks(backend)) >= 3 or not has(backend, Capability.TRANSACTIONS))
                with closing(backend.below()) as other:
                    put(other.catalog, b"another")
            yield content[start : start + (1 << 20)]

    sha256 = hashlib.sha256(content).hexdigest()
    with pytest.raises(BackendError, match="run it again"):
        store.put_artifact(sha256, slow())
    assert not store.has_artifact(sha256)
    assert len(chunks(backend)) == 1


def test_artifacts_that_earlier_versions_stored_are_read_and_removed(backend, db, store):
    parts = list(cut(BLOB, 1 << 20, 70_000))
    db.migrate()
    store_as_before(backend, parts)
    assert read(store) == BLOB
    store.save(record("a", 0, SHA256))
    store.delete("run", "a")
    assert not store.has_artifact(SHA256)
    assert chunks(backend) == []
    put(store)
    assert read(store) == BLOB


def store_as_before(backend, parts):
    """As it was before uploads had keys."""
    if has(backend, Capability.DOCUMENTS):
        backend.database.pinnacle_artifact.insert_one({"_id": SHA256, "chunks": len(parts)})
        for number, part in enumerate(parts):
            entry = {"_id": f"{SHA256}:{number}", "sha256": SHA256, "number": number, "data": part}
            backend.database.pinnacle_artifact_chunk.insert_one(entry)
        return
    own = {schema.SCHEMA: schema.SCHEMA if has(backend, Capability.NATIVE_VECTORS) else None}
    with backend.engine.execution_options(schema_translate_map=own).begin() as connection:
        connection.execute(sa.insert(schema.artifact).values(sha256=SHA256, size=len(BLOB)))
        rows = [{"sha256": SHA256, "position": number, "data": part} for number, part in enumerate(parts)]
        connection.execute(sa.insert(schema.artifact_chunk), rows)


def test_an_artifact_that_is_removed_while_it_is_read_does_not_end_early(store):
    content = BLOB * 8
    sha256 = put(store, content)
    store.save(record("a", 0, sha256))
    reading = store.get_artifact(sha256)
    next(reading)
    store.delete("run", "a")
    with pytest.raises(NotFound, match="add its component again"):
        list(reading)


def test_a_component_comes_back_in_another_handle_with_the_file_it_was_added_with(backend, db, tmp_path):
    (tmp_path / "weights").write_bytes(BLOB)
    db.add(Weights("a", weights={"weights.safetensors": Artifact(tmp_path / "weights")}))
    with backend.open() as other:
        folder = unpack(other.load("run", "a").weights, tmp_path / "cache")
    assert (folder / "weights.safetensors").read_bytes() == BLOB


@pytest.mark.unmigrated
def test_remove_all_takes_uploads_and_artifacts_away(backend, db, store):
    put(store)
    db.remove_all()
    assert not backend.has("pinnacle_upload")
    assert not store.has_artifact(SHA256)
