"""Writing outputs and their bookkeeping, only where a row is still as it was read.

No transaction: one that is open locks the user's documents, for a minute if our process
dies in it. Each update carries its condition, so that the server compares and writes in
one step; then the fingerprints of the rows written are recorded. A crash in between
leaves rows without a fingerprint that matches, and they are done anew.
"""

from __future__ import annotations

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
from pinnacle.base.errors import ConnectionLost, PinnacleError, RowRejected
from pinnacle.base.failpoints import failpoint
from pinnacle.base.refusals import require_newest
from pinnacle.base.rows import Failure, OutputBatch, OutputInfo

MAX_ROWS = 4000
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
        registered = self._wire.collection(REGISTRY).find_one({"_id": self._info.id}, {"version": 1})
        require_newest(self._info, self._info.version, None if registered is None else int(registered["version"]))
        written: Sequence[Row] = []
        try:
            as_read, written = self._compared(chunk)
            written = [*written, *self._write_outputs(as_read)]
        except ConnectionLost:
            raise
        except PinnacleError:
            written = self._written(chunk)  # the statements before the one that the server refused
            raise
        finally:
            failpoint("in-write")
            self._record(written)
        return {row.position for row in written}

    def _compared(self, chunk: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
        """The rows that are as they were read, by their bytes, and those that have their output: a write of more of
        them that was refused in its midst got so far.

        The server's own comparison, in the update, takes 1 for 1.0 and follows collations:
        exact for plain text, and what remains of it elsewhere shows in the fingerprint.
        """
        if self._source.is_text_exact and all(row.is_text for row in chunk):
            return chunk, []
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

        Rows that others seem to have written to meanwhile are left out, for another look.
        """
        statements = grouped_updates(rows, self._rows.shape)
        if self.own_writes is None:
            updated = self._wire.update(self._source.table, statements, durable=False)
            return rows if updated.matched == len(rows) else None
        with self.own_writes.of(self._info.id, [row.key for row in rows]) as write:
            updated = self._wire.update(self._source.table, statements, durable=False)
            write.is_exact = updated.changed == len(rows)
        if updated.matched != len(rows):
            return None
        return [row for row in rows if key_identity(row.key) not in write.disturbed] if write.disturbed else rows

    def _write_singly(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Write what is not written and still unchanged row by row: what cannot be written raises."""
        current = self._current([row.key for row in rows])
        left = [row for row in rows if row.before in current]
        if left:
            statements = row_updates(left, self._rows.shape, is_compared=self._wire.has_expressions)
            self._wire.update(self._source.table, statements, durable=False)
        return self._written(rows)

    def _written(self, rows: Sequence[Row]) -> Sequence[Row]:
        current = self._current([row.key for row in rows])
        return [row for row in rows if row.after in current]

    def _record(self, rows: Sequence[Row]) -> None:
        """Record fingerprints; once they are durable, so are the outputs written before them."""
        states = [{"_id": row.key, "h": row.mark, "v": self._info.version} for row in rows]
        if not states:
            return
        if any(row.recorded for row in rows) or not self._inserted(states):
            self._wire.update(self._state, [Update({"_id": state["_id"]}, state, upsert=True) for state in states])
        self._failures.forget([row.key for row in rows])

    def _inserted(self, states: Sequence[Mapping[str, Any]]) -> bool:
        """Insert bookkeeping, the fastest way; False where some was there already."""
        try:
            self._wire.insert(self._state, states)
        except DuplicateKey:
            return False
        return True

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
