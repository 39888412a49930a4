"""Rows set aside with their errors, bounded in size and number of tracebacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pinnacle.backends.mongodb.target.output_registry import OutputRegistry, state_table
from pinnacle.backends.mongodb.wire.wire import Update, Wire
from pinnacle.base import limits
from pinnacle.base.limits import NEWEST_ERRORS
from pinnacle.base.rows import Failure, Key, OutputInfo, RowError

ERRORS = "pinnacle_error"
HAS_TRACEBACK: Mapping[str, Any] = {"traceback": {"$gt": ""}}
"""As the index of the errors that have one says it."""
TAKEN_AT_ONCE = 1000


@dataclass
class Failures:
    """The errors of one output's rows."""

    wire: Wire
    info: OutputInfo
    _any: bool | None = field(default=None, init=False)

    def add(self, failures: Sequence[Failure]) -> None:
        """Record errors, each in place of an earlier one of its row."""
        self._any = True
        self.wire.update(
            ERRORS,
            [Update({"output": self.info.id, "key": each.key}, self._entry(each), upsert=True) for each in failures],
        )
        self._bound_tracebacks()

    def _bound_tracebacks(self) -> None:
        """Take the tracebacks of all but the newest errors away; an index has those that there are."""
        traced = {"output": self.info.id, **HAS_TRACEBACK}
        newest = [("failed_at", -1), ("_id", -1)]
        older = self.wire.collection(ERRORS).find(traced, {"_id": 1}, sort=newest, skip=limits.MAX_TRACEBACKS)
        names = [entry["_id"] for entry in older]
        if names:
            self.wire.update(ERRORS, [Update({"_id": name}, {"$set": {"traceback": ""}}) for name in names])

    def forget(self, keys: Sequence[Any]) -> None:
        """Drop the errors of rows that now have their output."""
        if self._any is None:
            self._any = self.wire.collection(ERRORS).find_one({"output": self.info.id}) is not None
        if self._any:
            self.wire.delete(ERRORS, {"output": self.info.id, "key": {"$in": list(keys)}})

    def _entry(self, failure: Failure) -> dict[str, Any]:
        return {
            "output": self.info.id, "key": failure.key, "model": self.info.model, "version": self.info.version,
            "error": failure.error, "message": failure.message, "traceback": failure.traceback,
            "attempts": failure.attempts, "failed_at": datetime.now(UTC),
        }  # fmt: skip


@dataclass(frozen=True)
class MongoErrors:
    """See `Errors`. The rows of one database that were set aside."""

    wire: Wire
    outputs: OutputRegistry

    def newest(self, output: int | None = None, limit: int = NEWEST_ERRORS) -> list[RowError]:
        names = {info.id: f"{info.table}.{info.name}" for info in self.outputs.all()}
        condition = {} if output is None else {"output": output}
        newest = [("failed_at", -1), ("_id", -1)]
        entries = self.wire.documents(ERRORS, condition, sort=newest, limit=limit, key="key")
        return [_row_error(entry, names) for entry in entries]

    def counts(self) -> dict[int, int]:
        groups = self.wire.collection(ERRORS).aggregate([{"$group": {"_id": "$output", "rows": {"$sum": 1}}}])
        return {group["_id"]: group["rows"] for group in groups}

    def take(self, output: int) -> list[Key]:
        """See `Errors.take`. Drops the errors and the bookkeeping that sets their rows aside."""
        keys: list[Key] = []
        mine = {"output": output}
        while entries := self.wire.documents(ERRORS, mine, {"key": 1}, limit=TAKEN_AT_ONCE, key="key"):
            taken = [entry["key"] for entry in entries]
            self.wire.delete(state_table(output), {"_id": {"$in": taken}, "f": True})
            self.wire.delete(ERRORS, {"_id": {"$in": [entry["_id"] for entry in entries]}})
            keys += taken
        return keys


def _row_error(entry: Mapping[str, Any], names: Mapping[int, str]) -> RowError:
    return RowError(
        output=names.get(entry["output"], str(entry["output"])),
        key=entry["key"],
        model=entry["model"],
        version=entry["version"],
        error=entry["error"],
        message=entry["message"],
        traceback=entry["traceback"],
        attempts=entry["attempts"],
        failed_at=_aware(entry["failed_at"]),
    )


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
