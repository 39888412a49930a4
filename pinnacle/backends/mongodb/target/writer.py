"""Writing outputs and their bookkeeping, only where a row is still as it was read.

No transaction: one that is open locks the user's documents, for a minute if our process
dies in it. First the fingerprints are recorded of the rows as they will be: they match no
row before it has its output, and no output stands without one, whoever dies in between.
Then the outputs are written, by updates that each carry their condition, so that the
server compares and writes in one step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pinnacle.backends.mongodb.target.canonical_rows import rows_of, shape_of
from pinnacle.backends.mongodb.target.output_registry import REGISTRY, state_table
from pinnacle.backends.mongodb.target.own_writes import OwnWrites
from pinnacle.backends.mongodb.target.row_errors import Failures
from pinnacle.backends.mongodb.target.source import MongoSource
from pinnacle.backends.mongodb.target.update_statements import Row, grouped_updates, row_updates
from pinnacle.backends.mongodb.wire.encoding import encode_outputs, output_element
from pinnacle.backends.mongodb.wire.errors import DuplicateKey
from pinnacle.backends.mongodb.wire.keys import key_identity
from pinnacle.backends.mongodb.wire.row_bytes import DONE, SET_ASIDE, fingerprint, stamp, with_output
from pinnacle.backends.mongodb.wire.wire import Update, Wire
from pinnacle.base.errors import RowRejected
from pinnacle.base.failpoints import failpoint
from pinnacle.base.refusals import require_newest
from pinnacle.base.rows import Failure, OutputBatch, OutputInfo

MAX_ROWS = 4000
JUST_NOW_S = 0.02
MAX_CHUNK_BYTES = 8 * 1024 * 1024


class Writer:
    """Writes one output; used by one thread at a time."""

    def __init__(self, wire: Wire, source: MongoSource, info: OutputInfo) -> None:
        self._wire, self._source, self._info = wire, source, info
        self._state = state_table(info.id)
        self._rows = rows_of(wire, source.table, shape_of(info), info.side)
        self._failures = Failures(wire, info)
        self._computed_by = stamp(info.version, info.parameters)
        self.own_writes: OwnWrites | None = None
        """Told of writes whose rows are in the work, where the stream is read in this process."""
        self.newest_at = float("-inf")
        """When this version was last seen to be the newest, and rows were read that are leased."""
        self._is_whole = True

    def prepare(self, batch: OutputBatch) -> OutputBatch:
        """The batch with its rows encoded and hashed."""
        values = encode_outputs(self._info.type, batch.outputs)
        aligned = enumerate(zip(batch.keys, values, batch.witnesses, strict=True))
        rows = [self._row(position, key, value, witness) for position, (key, value, witness) in aligned]
        return replace(batch, prepared=rows)

    def write(self, batch: OutputBatch) -> list[int]:
        """Write chunk by chunk; the positions whose rows were not as they had been read."""
        rows = batch.prepared or self.prepare(batch).prepared
        written: set[int] = set()
        for chunk in _chunks(rows):
            written |= self._write_chunk(chunk)
        return [row.position for row in rows if row.position not in written]

    def fail(self, failures: Sequence[Failure]) -> None:
        """Record failures, with their rows' fingerprints, where the rows are as they were read."""
        current = self._current([failure.key for failure in failures])
        kept = [failure for failure in failures if failure.witness.row in current]
        if kept:
            self._failures.add(kept)
            self._wire.update(self._state, [self._set_aside(failure) for failure in kept])

    def _row(self, position: int, key: Any, value: Any, witness: Any) -> Row:
        after = with_output(witness.inputs, output_element(value))
        mark = fingerprint(after, self._computed_by, DONE)
        return Row(position, key, value, witness.row, after, mark, witness.recorded, witness.is_text)

    def _set_aside(self, failure: Failure) -> Update:
        mark = fingerprint(failure.witness.inputs, self._computed_by, SET_ASIDE)
        state = {"_id": failure.key, "h": mark, "v": self._info.version, "f": True}
        return Update({"_id": failure.key}, state, upsert=True)

    def _write_chunk(self, chunk: Sequence[Row]) -> set[int]:
        """Write a chunk; the positions of the rows that have their outputs.

        Before records are put in the place of others the rows are looked at, as what others did meanwhile would be
        computed once more without its record; not where they are leased and were read just now, unless the write before
        this was broken off.
        """
        was_just_read, self._is_whole = self._is_whole and self._is_just_now(), False
        self._require_newest()
        is_recorded = any(row.recorded for row in chunk)
        is_new = not is_recorded and self._inserted(chunk)
        is_sure = is_new or (is_recorded and was_just_read)
        as_read, standing = (chunk, []) if is_sure and self._is_exact(chunk) else self._compared(chunk)
        if standing or not is_new:
            self._record([*standing, *as_read], durable=bool(standing))
        self._failures.forget([row.key for row in (*standing, *as_read)])
        failpoint("in-write")
        written = {row.position for row in (*standing, *self._write_outputs(as_read))}
        self._take_back([row for row in chunk if row.position not in written])
        self._is_whole = True
        return written

    def _is_just_now(self) -> bool:
        return time.monotonic() - self.newest_at < JUST_NOW_S

    def _require_newest(self) -> None:
        if self._is_just_now():
            return
        registered = self._wire.collection(REGISTRY).find_one({"_id": self._info.id}, {"version": 1})
        require_newest(self._info, self._info.version, None if registered is None else int(registered["version"]))

    def _is_exact(self, rows: Sequence[Row]) -> bool:
        """Whether the update's own condition tells all different inputs apart: the server takes 1 for 1.0 and follows
        collations. What changes after `_compared` looked shows in the fingerprint."""
        return self._source.is_text_exact and all(row.is_text for row in rows)

    def _compared(self, chunk: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
        """The rows that are as they were read, by their bytes, and those that have their output: a write of more of
        them that was refused or cut off in its midst got so far."""
        current = self._current([row.key for row in chunk])
        as_read = [row for row in chunk if row.before in current]
        return as_read, [row for row in chunk if row.after in current and row.before not in current]

    def _write_outputs(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Write the outputs; the rows that have theirs."""
        if not rows:
            return rows
        written = None
        if self._wire.has_expressions:
            try:
                written = self._write_together(rows)
            except RowRejected:
                if len(rows) > 1:
                    raise
        return self._write_singly(rows) if written is None else written

    def _write_together(self, rows: Sequence[Row]) -> Sequence[Row] | None:
        """Write the outputs in few statements; None where not all rows met their conditions.

        Rows that others may have written to meanwhile are looked at, and left out where they did, for another look:
        a row that is as it was written keeps its record, or its model would be called again.
        """
        statements = grouped_updates(rows, self._rows.shape)
        if self.own_writes is None:
            updated = self._wire.update(self._source.table, statements)
            return rows if updated.matched == len(rows) else None
        with self.own_writes.of(self._info.id, [row.key for row in rows]) as write:
            updated = self._wire.update(self._source.table, statements)
            write.is_exact = updated.changed == len(rows)
        if updated.matched != len(rows):
            return None
        if not write.disturbed:
            return rows
        current = self._current([row.key for row in rows if key_identity(row.key) in write.disturbed])
        return [row for row in rows if key_identity(row.key) not in write.disturbed or row.after in current]

    def _write_singly(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Write what is not written and still unchanged row by row: what cannot be written raises."""
        current = self._current([row.key for row in rows])
        left = [row for row in rows if row.before in current]
        if left:
            statements = row_updates(left, self._rows.shape, is_compared=self._wire.has_expressions)
            self._wire.update(self._source.table, statements)
        return self._written(rows)

    def _written(self, rows: Sequence[Row]) -> Sequence[Row]:
        current = self._current([row.key for row in rows])
        return [row for row in rows if row.after in current]

    def _inserted(self, rows: Sequence[Row]) -> bool:
        """Record fingerprints the fastest way, all or some; False where others have recorded theirs meanwhile."""
        try:
            self._wire.insert(self._state, [self._done(row) for row in rows], durable=False)
        except DuplicateKey:
            return False
        return True

    def _record(self, rows: Sequence[Row], *, durable: bool) -> None:
        """Record fingerprints in the place of others. Once they are durable, so is what was written before them."""
        if rows:
            updates = [Update({"_id": row.key}, self._done(row), upsert=True) for row in rows]
            self._wire.update(self._state, updates, durable=durable)

    def _done(self, row: Row) -> Mapping[str, Any]:
        return {"_id": row.key, "h": row.mark, "v": self._info.version}

    def _take_back(self, rows: Sequence[Row]) -> None:
        """Erase what was recorded of rows that got no output: they may be gone."""
        if rows:
            keys, marks = [row.key for row in rows], [row.mark for row in rows]
            self._wire.delete(self._state, {"_id": {"$in": keys}, "h": {"$in": marks}})

    def _current(self, keys: Sequence[Any]) -> set[bytes]:
        return set(self._rows.at(keys, {}))


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Parts that one command holds."""
    start = 0
    while start < len(rows):
        end = min(start + MAX_ROWS, len(rows))
        while end - start > 1 and sum(len(row.before) + len(row.after) for row in rows[start:end]) > MAX_CHUNK_BYTES:
            end = start + (end - start) // 2
        yield rows[start:end]
        start = end
