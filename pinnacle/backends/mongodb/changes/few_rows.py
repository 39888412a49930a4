"""The short way of few rows that the change stream told of just now, from memory: claimed and read by two commands."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bson.raw_bson import RawBSONDocument

from pinnacle.backends.mongodb.changes.listener_registry import LISTENERS
from pinnacle.backends.mongodb.target.leases import LEASES
from pinnacle.backends.mongodb.target.output_registry import REGISTRY, state_table
from pinnacle.backends.mongodb.target.target import MongoTarget
from pinnacle.backends.mongodb.wire.keys import key_identity
from pinnacle.backends.mongodb.wire.row_bytes import batch, element_at, hashes_in
from pinnacle.base.errors import BackendError, ConnectionLost
from pinnacle.base.failpoints import failpoint
from pinnacle.base.listeners import Claim
from pinnacle.base.rows import Key, Page
from pinnacle.base.told import logger

log = logger(__name__)

Stage = Mapping[str, Any]


class FewRows:
    """Claims rows that need not be in the work yet, and reads them.

    The lease comes first, and after it the look whether it may stand: whoever has the output's lock meanwhile
    finds the lease, or has left one that is found. The rows themselves are read last: what another has done of them
    in between is seen to be fresh.
    """

    def __init__(self, target: MongoTarget) -> None:
        self._target, self._number = target, target.info.id
        # A condition may hold what only a find takes, and an index on texts of another order is not found from here.
        self._reads_along = not target.source.filter and target.info.side is None and target.source.is_text_exact

    def take(
        self, owner: str, rows: Sequence[tuple[Key, int]], ttl_s: float, version: int
    ) -> tuple[Claim, Page] | None:
        """A claim on these rows, given with their places, and the rows as they are. None where others hold rows, or
        the listener is paused or of another ``version``: that is for who has the lock."""
        began = time.monotonic()
        lease = self._target.leases.lease_ahead(owner, [key for key, _ in rows], ttl_s)
        found = self._look(lease, rows)
        if found is None or not self._may_stand(found, version):
            self._target.leases.release_work(lease)
            return None
        failpoint("in-claim")
        self._target.note_newest(began)
        keys, places = zip(*rows, strict=True)
        claim = Claim(lease=lease, keys=keys, places=places, revisions=places)
        if self._reads_along:
            raw = bytes(found.raw)
            _, hashes = element_at(raw, b"hashes") or (0, b"")
            return claim, self._target.page_of(batch(raw, b"rows"), hashes_in(hashes))
        return claim, self._target.read_few(keys)

    def _look(self, lease: str, rows: Sequence[tuple[Key, int]]) -> RawBSONDocument | None:
        for reads_along in (True, False) if self._reads_along else (False,):
            self._reads_along = reads_along
            try:
                found = self._target.wire.piped(REGISTRY, list(self._stages(lease, rows)))
                return RawBSONDocument(found[0]) if found else None
            except ConnectionLost:
                raise
            except BackendError as error:  # a sharded collection, or rows that are too large together
                log.debug("rows of %s are read by themselves: %s", self._target.info.table, error)
        return None

    def _may_stand(self, found: Mapping[str, Any], version: int) -> bool:
        is_locked = found["locked_until"] is not None or found["version"] != self._target.info.version
        is_current = [(entry["version"], entry["paused"]) for entry in found["listener"]] == [(version, None)]
        return is_current and not is_locked and not found["others"]

    def _stages(self, lease: str, rows: Sequence[tuple[Key, int]]) -> Iterator[Stage]:
        target, mine = self._target, {"$match": {"_id": self._number}}
        keys = [key_identity(key) for key, _ in rows]
        others = {"$match": {"output": self._number, "lease": {"$ne": lease}, "keys": {"$in": keys}}}
        yield mine
        yield {"$project": {"version": 1, "locked_until": 1}}
        yield _also("others", LEASES, others, {"$limit": 1}, {"$project": {"_id": 1}})
        yield _also("listener", LISTENERS, mine, {"$project": {"version": 1, "paused": 1}})
        if self._reads_along:
            these = {"$match": {"_id": {"$in": [key for key, _ in rows]}}}
            yield _also("rows", target.source.table, these, {"$project": target.shape.expressions()})
            yield _also("hashes", state_table(self._number), these, {"$project": {"_id": 0, "h": 1}})


def _also(name: str, table: str, *stages: Stage) -> Stage:
    return {"$lookup": {"from": table, "pipeline": list(stages), "as": name}}
