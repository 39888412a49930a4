"""Writing outputs and their bookkeeping, only where a row is still as it was read.

With transactions (a replica set): re-read, compare bytes, write both, commit; a change
that comes in between aborts the transaction, which is then run again. Without them
(a standalone server, mongomock): bookkeeping first, then the output under a condition, so
that a crash in between leaves a fingerprint that does not match and the row is done anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import bson
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from pinnacle.backends.mongodb.driver import is_duplicate
from pinnacle.backends.mongodb.encoding import encode_outputs, output_element
from pinnacle.backends.mongodb.failures import Failures
from pinnacle.backends.mongodb.outputs import REGISTRY, require_newest, state_table
from pinnacle.backends.mongodb.raw import DONE, SET_ASIDE, fingerprint, with_output
from pinnacle.backends.mongodb.source import MongoSource
from pinnacle.backends.mongodb.statements import Row, ShapeMismatch, grouped_updates, row_updates, unchanged
from pinnacle.backends.mongodb.wire import Session, Shape, Update, Wire
from pinnacle.base.rows import Failure, OutputBatch, OutputInfo

Result = TypeVar("Result")

MIN_ROWS, MAX_ROWS, FIRST_ROWS = 100, 2000, 500
MAX_CHUNK_BYTES = 8 * 1024 * 1024
SMOOTHING = 0.3


class Writer:
    """Writes one output; used by one thread at a time."""

    def __init__(
        self, wire: Wire, source: MongoSource, info: OutputInfo, *, transactions: bool, target_s: float
    ) -> None:
        self._wire, self._source, self._info = wire, source, info
        self._transactions, self._target_s = transactions, target_s
        self._state = state_table(info.id)
        self._shape = Shape(info.fields.paths, info.name)
        self._failures = Failures(wire, info)
        self._row_s = target_s / FIRST_ROWS

    def prepare(self, batch: OutputBatch) -> OutputBatch:
        """The batch with its rows encoded and hashed."""
        values = encode_outputs(self._info.type, batch.outputs)
        aligned = enumerate(zip(batch.keys, values, batch.witnesses, strict=True))
        rows = [self._row(position, key, value, witness) for position, (key, value, witness) in aligned]
        return replace(batch, prepared=rows)

    def write(self, batch: OutputBatch) -> list[int]:
        """Write and commit chunk by chunk; the positions whose rows were not as they had been read."""
        rows = batch.prepared or self.prepare(batch).prepared
        unwritten: list[int] = []
        for chunk in self._chunks(rows):
            kept = self._commit(chunk)
            unwritten += [row.position for row in chunk if row.position not in kept]
        return unwritten

    def fail(self, failures: Sequence[Failure]) -> None:
        """Record failures, with their rows' fingerprints, where the rows are as they were read."""
        by_row = {failure.witness.row: failure for failure in failures}

        def record(session: Session) -> None:
            current = self._current([failure.key for failure in failures], session)
            kept = [failure for row, failure in by_row.items() if row in current]
            states = [
                Update({"_id": failure.key}, {**self._set_aside(failure), "_id": failure.key}, upsert=True)
                for failure in kept
            ]
            if states:
                self._wire.update(self._state, states, session)
                self._failures.add(kept, session)

        self._run(record)

    def _row(self, position: int, key: Any, value: Any, witness: Any) -> Row:
        after = with_output(witness.inputs, output_element(value))
        print_ = fingerprint(after, self._info.version, DONE)
        return Row(position, key, value, witness.row, after, print_, witness.recorded)

    def _set_aside(self, failure: Failure) -> dict[str, Any]:
        print_ = fingerprint(failure.witness.inputs, self._info.version, SET_ASIDE)
        return {"h": print_, "v": self._info.version, "f": True}

    def _chunks(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Parts of even length, each small enough to be written in the time aimed at, and in one command."""
        start = 0
        while start < len(rows):
            left = len(rows) - start
            most = max(MIN_ROWS, min(MAX_ROWS, int(self._target_s / self._row_s)))
            end = start + math.ceil(left / math.ceil(left / most))
            while end - start > 1 and sum(len(row.after) for row in rows[start:end]) > MAX_CHUNK_BYTES:
                end = start + (end - start) // 2
            yield rows[start:end]
            start = end

    def _update(self, statements: Sequence[Update], count: int, session: Session) -> int:
        """Update the user's documents; how long this took sizes the next transactions."""
        began = time.perf_counter()
        matched = self._wire.update(self._source.table, statements, session)
        if count >= MIN_ROWS:
            self._row_s += SMOOTHING * ((time.perf_counter() - began) / count - self._row_s)
        return matched

    def _commit(self, chunk: Sequence[Row]) -> set[int]:
        if not self._transactions:
            return self._write_without_transaction(chunk)
        try:
            return self._run(lambda session: self._write_in_transaction(chunk, session, first=True))
        except OperationFailure as error:
            if not is_duplicate(error):
                raise
        except ShapeMismatch:
            pass  # grouped statements leave out documents of odd shape; one statement a row says what is wrong
        return self._run(lambda session: self._write_in_transaction(chunk, session, first=False))

    def _write_in_transaction(self, chunk: Sequence[Row], session: Session, *, first: bool) -> set[int]:
        """The whole transaction; ``first`` tries the fast statements, which fit most documents."""
        self._require_newest(session)
        current = self._current([row.key for row in chunk], session)
        kept = [row for row in chunk if row.before in current]
        if not kept:
            return set()
        new = [row for row in kept if first and not row.recorded]
        self._record(new, [row for row in kept if not first or row.recorded], session)
        self._failures.forget([row.key for row in kept], session)
        statements = (grouped_updates if first else row_updates)(kept, self._info.name)
        matched = self._update(statements, len(kept), session)  # last: it locks the user's rows until the commit
        if matched != len(kept):
            raise ShapeMismatch(len(kept), matched)
        return {row.position for row in kept}

    def _write_without_transaction(self, chunk: Sequence[Row]) -> set[int]:
        self._require_newest(None)
        keys = [row.key for row in chunk]
        current = self._current(keys, None)
        kept = [row for row in chunk if row.before in current]
        if not kept:
            return set()
        self._record([], kept, None)
        conditions = [{"_id": row.key} if self._wire.in_process else self._unchanged(row) for row in kept]
        changes = row_updates(kept, self._info.name)
        statements = [u._replace(condition=only_if) for u, only_if in zip(changes, conditions, strict=True)]
        if self._update(statements, len(kept), None) != len(kept):
            current = self._current(keys, None)
            kept = [row for row in kept if row.after in current]
        self._failures.forget([row.key for row in kept], None)
        return {row.position for row in kept}

    def _unchanged(self, row: Row) -> Mapping[str, Any]:
        return unchanged(bson.decode(row.before, self._wire.codec), self._shape)

    def _record(self, new: Sequence[Row], known: Sequence[Row], session: Session) -> None:
        version = self._info.version
        if new:
            self._wire.insert(self._state, [{"_id": row.key, "h": row.print_, "v": version} for row in new], session)
        if known:
            states = [Update({"_id": row.key}, {"_id": row.key, "h": row.print_, "v": version}, True) for row in known]
            self._wire.update(self._state, states, session)

    def _current(self, keys: Sequence[Any], session: Session) -> set[bytes]:
        return set(self._wire.rows_at(self._source.table, self._shape, keys, {}, session))

    def _require_newest(self, session: Session) -> None:
        query = {"_id": self._info.id}
        entry = self._wire.find_one(REGISTRY, query, session)
        require_newest(entry, self._info.version)

    def _run(self, body: Callable[[Session], Result]) -> Result:
        """Run ``body`` in a transaction if there are any, again whenever it met another writer."""
        if not self._transactions:
            return body(None)
        with self._wire.database.client.start_session() as session:
            result: Result = session.with_transaction(
                body, read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
            )
            return result
