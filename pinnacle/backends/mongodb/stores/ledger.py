"""What model calls cost, the cache of paid results, and the batches that providers work on, in MongoDB."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pinnacle.backends.mongodb.wire.wire import Update, Wire
from pinnacle.base import limits
from pinnacle.base.errors import BackendError
from pinnacle.base.failpoints import failpoint
from pinnacle.base.usage import BatchJob, TrimSchedule, UsageRow, merged, newest_first, portions

USAGE, CACHE, BATCHES = "pinnacle_usage", "pinnacle_cache", "pinnacle_batch"
PART_BYTES = 4 * 1024 * 1024
"""How much of a batch's items one document holds; MongoDB takes no document over 16 MB."""

BOOKED_BATCHES = 1_000
"""So many batches that were booked last are named in a document of usage."""


@dataclass(frozen=True)
class MongoLedger:
    """See `Ledger`. The collections usage, cache and batch of one database."""

    wire: Wire
    migrate: Callable[[], None]
    _trims: TrimSchedule = field(default_factory=TrimSchedule, init=False)

    # -- usage -------------------------------------------------------------------------------------

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        """By the driver's own updates, which it never makes twice; `Wire.update` may, and would count twice."""
        if rows:
            self.migrate()
        collection = self.wire.collection(USAGE)
        for row in merged(rows):
            change = {"$setOnInsert": _named(row), "$inc": _counters(row)}
            collection.update_one({"_id": json.dumps(row.key)}, change, upsert=True)

    def usage(self, model: str | None = None) -> list[UsageRow]:
        wanted = {} if model is None else {"model": model}
        entries = self.wire.collection(USAGE).find(wanted, {"batches": 0})
        return newest_first(map(_usage_row, entries))

    # -- the cache of paid results -----------------------------------------------------------------

    def cached(self, digests: Sequence[bytes]) -> dict[bytes, str]:
        wanted = {"_id": {"$in": list(digests)}, "expires_at": {"$gt": time.time()}}
        entries = self.wire.collection(CACHE).find(wanted, {"value": 1})
        return {bytes(entry["_id"]): entry["value"] for entry in entries}

    def cache(self, entries: Mapping[bytes, str], ttl_s: float) -> None:
        if entries:
            self.migrate()
        for portion in portions(entries):
            times = {"cached_at": time.time(), "expires_at": time.time() + ttl_s}
            puts = [
                Update({"_id": digest}, {"$set": {**times, "value": value}}, upsert=True) for digest, value in portion
            ]
            self.wire.update(CACHE, puts)
            if allowed := self._trims.due(len(portion)):
                self._trim(allowed)

    def clear_cache(self) -> None:
        self.wire.delete(CACHE, {})

    def _trim(self, allowed: int) -> None:
        """Delete up to ``allowed`` entries that have expired, and as many that are one too many."""
        collection = self.wire.collection(CACHE, durable=False)
        expired = {"expires_at": {"$lte": time.time()}}
        self._delete(collection.find(expired, {"_id": 1}, limit=allowed), expired)
        excess = collection.about() - limits.MAX_CACHE_ENTRIES
        if excess > 0:
            oldest = collection.find({}, {"_id": 1}, sort=[("cached_at", 1)], limit=min(allowed, excess))
            self._delete(oldest, {})

    def _delete(self, found: Iterable[Mapping[str, Any]], still: Mapping[str, Any]) -> None:
        """Delete the entries that were found, where the condition on them still holds."""
        self.wire.delete(CACHE, {"_id": {"$in": [entry["_id"] for entry in found]}, **still}, durable=False)

    # -- batches -----------------------------------------------------------------------------------

    def save_batch(self, job: BatchJob) -> None:
        """The parts first: the batch is there once the document that counts them is."""
        self.migrate()
        items = json.dumps(job.items).encode()
        parts = [items[start : start + PART_BYTES] for start in range(0, len(items), PART_BYTES)]
        for number, part in enumerate(parts):
            entry = {"batch": job.id, "output": job.output, "items": part}
            self._put(_part_id(job.id, number), entry)
        entry = {
            "output": job.output, "model": job.model, "version": job.version, "parameters": job.parameters,
            "created_at": job.created_at, "parts": len(parts),
        }  # fmt: skip
        self._put(job.id, entry)

    def batches(self, output: int) -> list[BatchJob]:
        heads = self.wire.collection(BATCHES).find({"output": output, "parts": {"$exists": True}})
        jobs = list(self._jobs(list(heads)))
        return sorted(jobs, key=lambda job: (job.created_at, job.id))

    def delete_batch(self, batch: str) -> bool:
        found = self.wire.delete(BATCHES, {"_id": batch}) > 0
        self.wire.delete(BATCHES, {"batch": batch})
        return found

    def book_batch(self, batch: str, rows: Sequence[UsageRow]) -> bool:
        """The batch goes when all is counted; what counts it also names it, and does not count one that it names."""
        if self._find(batch) is None:
            return False
        collection = self.wire.collection(USAGE)
        for row in merged(rows):
            identifier = json.dumps(row.key)
            nothing = {name: type(value)() for name, value in _counters(row).items()}
            collection.update_one({"_id": identifier}, {"$setOnInsert": {**_named(row), **nothing}}, upsert=True)
            named = {"batches": {"$each": [batch], "$slice": -BOOKED_BATCHES}}
            collection.update_one(
                {"_id": identifier, "batches": {"$ne": batch}}, {"$inc": _counters(row), "$push": named}
            )
        failpoint("in-book")
        return self.delete_batch(batch)

    def forget_output(self, output: int) -> None:
        """Forget the batches of an output."""
        self.wire.delete(BATCHES, {"output": output})

    def _put(self, identifier: str, entry: Mapping[str, Any]) -> None:
        self.wire.update(BATCHES, [Update({"_id": identifier}, entry, upsert=True)])

    def _jobs(self, heads: Sequence[Mapping[str, Any]]) -> Iterator[BatchJob]:
        for head in heads:
            parts = [self._find(_part_id(head["_id"], number)) for number in range(head["parts"])]
            there = [bytes(part["items"]) for part in parts if part is not None]
            if len(there) == len(parts):
                yield _job(head, b"".join(there))
            elif self._find(head["_id"]) is not None:  # else another process has deleted it just now
                raise BackendError(
                    f"batch {head['_id']!r} has lost {len(parts) - len(there)} of its {len(parts)} documents in "
                    f"{BATCHES}; delete it, and its rows are computed again"
                )

    def _find(self, identifier: str) -> Mapping[str, Any] | None:
        return self.wire.collection(BATCHES).find_one({"_id": identifier})


def _part_id(batch: str, number: int) -> str:
    return json.dumps([batch, number])


def _named(row: UsageRow) -> dict[str, str]:
    return {"day": row.day, "model": row.model, "output": row.output}


def _counters(row: UsageRow) -> dict[str, Any]:
    return {**row.counters, "cost": float(row.cost)}  # a sum that begins with an integer would stay one


def _usage_row(entry: Mapping[str, Any]) -> UsageRow:
    counts = {name: type(zero)(entry[name]) for name, zero in UsageRow(day="", model="", output="").counters.items()}
    return UsageRow(day=entry["day"], model=entry["model"], output=entry["output"], **counts)


def _job(head: Mapping[str, Any], items: bytes) -> BatchJob:
    return BatchJob(
        id=head["_id"],
        output=head["output"],
        model=head["model"],
        version=head["version"],
        parameters=head["parameters"],
        created_at=head["created_at"],
        items=tuple((key, digest) for key, digest in json.loads(items)),
    )
