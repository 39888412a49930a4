"""The contents of artifacts, in chunks, in MongoDB."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pinnacle.backends.mongodb.wire.clock import ServerClock
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base import limits
from pinnacle.base.chunks import pieces, read_ahead
from pinnacle.base.errors import BackendError, NotFound, PinnacleError
from pinnacle.base.processes import is_gone, this_process
from pinnacle.base.refusals import no_artifact, upload_given_up

ARTIFACTS, CHUNKS, UPLOADS = "pinnacle_artifact", "pinnacle_artifact_chunk", "pinnacle_upload"
RENEW_EVERY = 32
"""Chunks between two signs of life of an upload."""
NOBODY = ""
"""The owner of an upload that was given up: whoever comes along clears it."""


@dataclass(frozen=True)
class MongoArtifacts:
    """The collections artifact, artifact_chunk and upload of one database.

    An artifact's chunks are put under a key of that upload alone, and are the artifact's once a document names that
    key: two who store the same content do not meet. The upload is over when a record uses the artifact: what a crash
    left before that belongs to nobody and is cleared by the next upload. Older versions put chunks under the hash
    itself. ``is_used`` tells whether a record uses an artifact.
    """

    wire: Wire
    clock: ServerClock
    is_used: Callable[[str], bool]

    def has(self, sha256: str) -> bool:
        return self._artifacts.find_one({"_id": sha256}, {"_id": 1}) is not None

    def put(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """See `CatalogStore.put_artifact`. Reads ahead of what it writes: a few chunks are in memory at a time."""
        if self.has(sha256):
            return
        self.clear_given_up()
        key = f"{sha256}:{uuid.uuid4().hex}"
        self._uploads.insert({"_id": key, **self._mine(limits.UPLOAD_TTL_S)})
        is_kept = False
        try:
            with closing(read_ahead(pieces(chunks, limits.CHUNK_BYTES))) as ahead:
                is_kept = self._finish(sha256, key, self._write_all(key, ahead))
        finally:
            if not is_kept:
                with suppress(PinnacleError):  # the next upload clears it
                    self._clear(key)

    def get(self, sha256: str) -> Iterator[bytes]:
        """See `CatalogStore.get_artifact`. Reads ahead of what is taken."""
        entry = self._artifacts.find_one({"_id": sha256})
        if entry is None:
            raise no_artifact(sha256)
        yield from read_ahead(self._read_all(entry))

    def keep(self, artifacts: Sequence[str]) -> str | None:
        """Stop removals of artifacts that a record uses, which is stored already, and end their uploads; one that is
        gone, or None.

        See `drop`: one of the two sees what the other did.
        """
        wanted = sorted(set(artifacts))
        if not wanted:
            return None
        those = {"_id": {"$in": wanted}}
        matched = self._artifacts.update_many(those, {"$unset": {"doomed": ""}})
        keys = {entry["_id"]: _key(entry) for entry in self._artifacts.find(those, {"key": 1})}
        if matched < len(wanted) and len(keys) < len(wanted):
            return next(sha256 for sha256 in wanted if sha256 not in keys)
        self._uploads.delete_many({"_id": {"$in": list(keys.values())}})
        return None

    def drop(self, sha256: str) -> None:
        """Remove an artifact that nothing uses, nor anything that is stored meanwhile.

        It is marked, and its users are looked for once more: a record stored before the mark is found, and one
        stored later takes the mark away, or finds the artifact gone.
        """
        mark = uuid.uuid4().hex
        entry = self._artifacts.update_and_get({"_id": sha256}, {"$set": {"doomed": mark}})
        if entry is None:
            return
        if self.is_used(sha256):
            self._artifacts.update_one({"_id": sha256, "doomed": mark}, {"$unset": {"doomed": ""}})
            return
        key = _key(entry)
        self._uploads.replace_one({"_id": key}, {"_id": key, **self._mine(limits.UPLOAD_TTL_S)}, upsert=True)
        self._artifacts.delete_one({"_id": sha256, "doomed": mark})
        self._clear(key)

    def clear_given_up(self) -> None:
        """Erase what uploads left whose process is gone or silent, and what removals left that were cut short."""
        for entry in list(self._uploads.find()):
            is_given_up = entry["owner"] == NOBODY
            if not is_given_up and (self.clock.has_passed(entry["expires"]) or is_gone(entry["owner"])):
                is_given_up = self._uploads.update_one(entry, {"$set": {"owner": NOBODY}})
            if is_given_up:
                self._clear_upload(entry["_id"])

    # -- writing -----------------------------------------------------------------------------------

    def _write_all(self, key: str, chunks: Iterator[bytes]) -> int:
        """Write chunks; how many. The document that comes last is what makes all of them last."""
        collection, count = self.wire.collection(CHUNKS, durable=False), 0
        for chunk in chunks:
            if count % RENEW_EVERY == RENEW_EVERY - 1:
                self._renew(key, limits.UPLOAD_TTL_S)
            collection.insert({"_id": f"{key}:{count}", "sha256": key, "number": count, "data": chunk})
            count += 1
        return count

    def _renew(self, key: str, ttl_s: float) -> None:
        """Go on with an upload, which nobody clears from now on for a while."""
        mine = {"_id": key, "owner": this_process()}
        if not self._uploads.update_one(mine, {"$set": self._mine(ttl_s)}):
            raise upload_given_up()

    def _finish(self, sha256: str, key: str, count: int) -> bool:
        """Make the upload the artifact, unless another was faster."""
        self._renew(key, limits.UNUSED_TTL_S)
        if self._chunks.count({"sha256": key}) != count:
            raise BackendError("MongoDB lost chunks of an artifact while it changed its primary; run it again")
        return self._artifacts.insert_new({"_id": sha256, "chunks": count, "key": key})

    def _mine(self, ttl_s: float) -> dict[str, datetime | str]:
        return {"owner": this_process(), "expires": self.clock.now() + timedelta(seconds=ttl_s)}

    def _clear_upload(self, key: str) -> None:
        """Erase an upload that nobody goes on with, and the artifact that it has become where no record uses that."""
        sha256 = key.partition(":")[0]
        entry = self._artifacts.find_one({"_id": sha256})
        if entry is not None and _key(entry) == key:
            self.drop(sha256)
        self._clear(key)

    def _clear(self, key: str) -> None:
        """Erase the chunks of a key, unless they are an artifact's after all."""
        entry = self._artifacts.find_one({"_id": key.partition(":")[0]})
        if entry is None or _key(entry) != key:
            self.wire.delete(CHUNKS, {"sha256": key})
        self._uploads.delete_one({"_id": key})

    # -- reading -----------------------------------------------------------------------------------

    def _read_all(self, entry: Mapping[str, Any]) -> Iterator[bytes]:
        for number in range(entry["chunks"]):
            chunk = self._chunks.find_one({"_id": f"{_key(entry)}:{number}"}, {"data": 1})
            if chunk is None:
                raise NotFound(
                    f"chunk {number} of artifact {entry['_id']} is gone: it was removed while it was read, or "
                    "damaged; add its component again"
                )
            yield bytes(chunk["data"])

    @property
    def _artifacts(self) -> StoredCollection:
        return self.wire.collection(ARTIFACTS)

    @property
    def _chunks(self) -> StoredCollection:
        return self.wire.collection(CHUNKS)

    @property
    def _uploads(self) -> StoredCollection:
        """What is lost of it with a server costs room, no artifact."""
        return self.wire.collection(UPLOADS, durable=False)


def _key(entry: Mapping[str, Any]) -> str:
    """What an artifact's chunks are under."""
    return str(entry.get("key", entry["_id"]))
