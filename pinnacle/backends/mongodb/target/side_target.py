"""Outputs in a side collection: any number of values a document, rewritten as a whole.

Only what differs is written, so that an unchanged item keeps what others have computed
from it. A write is several steps: what is too much is deleted, what is missing or wrong is
written, and once all is as it must be the fingerprint is recorded, which covers the items.
Whoever dies in between leaves a row that has no fingerprint of its items, and is done anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pinnacle.backends.mongodb.target.canonical_rows import with_digest
from pinnacle.backends.mongodb.target.leases import Leases
from pinnacle.backends.mongodb.target.side_collection import SideCollection, digest_of
from pinnacle.backends.mongodb.target.source import MongoSource
from pinnacle.backends.mongodb.target.target import MongoTarget
from pinnacle.backends.mongodb.target.update_statements import Row
from pinnacle.backends.mongodb.target.writer import Writer
from pinnacle.backends.mongodb.wire.keys import key_identity
from pinnacle.backends.mongodb.wire.row_bytes import DONE, fingerprint
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.errors import ConnectionLost, PinnacleError
from pinnacle.base.failpoints import failpoint
from pinnacle.base.rows import Key, OutputInfo


class SideWriter(Writer):
    """Writes the items of one output; used by one thread at a time."""

    def __init__(self, wire: Wire, source: MongoSource, info: OutputInfo) -> None:
        super().__init__(wire, source, info)
        self._side = SideCollection(wire, source.table, info.name)

    def _row(self, position: int, key: Any, value: Any, witness: Any) -> Row:
        items = self._side.items(key, value)
        after = with_digest(witness.inputs, digest_of(items))
        mark = fingerprint(after, self._computed_by, DONE)
        return Row(position, key, items, witness.row, after, mark, witness.recorded, False)

    def _write_chunk(self, chunk: Sequence[Row]) -> set[int]:
        self._require_newest()
        written: Sequence[Row] = []
        try:
            as_read, written = self._compared(chunk)
            self._side.replace([(row.key, row.value) for row in as_read])
            written = [*written, *self._written(as_read)]
        except ConnectionLost:
            raise
        except PinnacleError:
            written = self._written(chunk)  # the statements before the one that the server refused
            raise
        finally:
            failpoint("in-write")
            self._record(written, durable=True)
            self._failures.forget([row.key for row in written])
        return {row.position for row in written}


class SideTarget(MongoTarget):
    """One output in a side collection over the documents of one find()."""

    def __init__(self, wire: Wire, source: MongoSource, info: OutputInfo, leases: Leases, writer: Writer):
        super().__init__(wire, source, info, leases, writer)
        self._side = SideCollection(wire, source.table, info.name)

    def blank(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Nothing holds a document still between the look at it and the deletion: one that matches again by
        then is left to be computed again."""
        if not self._source.filter:
            return []
        unmatched = self._not_among(keys, self._source.filter)
        self._side.delete(unmatched)
        still = self._not_among(unmatched, self._source.filter)
        self._erase(still)
        settled = set(map(key_identity, still))
        return [key for key in unmatched if key_identity(key) not in settled]

    def _not_among(self, keys: Sequence[Key], condition: Mapping[str, Any]) -> list[Key]:
        there = self._present(keys, condition)
        return [key for key in keys if key_identity(key) not in there]

    def _forget(self, keys: Sequence[Key]) -> None:
        self._side.delete(keys)
        super()._forget(keys)

    def _kept_in(self) -> Iterator[tuple[str, str]]:
        """Also the items themselves: a process that died may have left some after the rest was erased."""
        yield from super()._kept_in()
        yield self._side.name, self._side.parent
