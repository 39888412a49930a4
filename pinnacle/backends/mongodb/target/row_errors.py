"""Rows set aside with their errors, bounded in size and number of tracebacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pinnacle.backends.mongodb.target.output_registry import OutputRegistry, state_table
from pinnacle.backends.mongodb.wire.encoding import as_key
from pinnacle.backends.mongodb.wire.wire import Update, Wire
from pinnacle.base.rows import Failure, Key, OutputInfo, RowError

ERRORS = "pinnacle_error"
MAX_TRACEBACK, MAX_MESSAGE = 8192, 2000
MAX_WITH_TRACEBACK = 1000
TAKEN_AT_ONCE = 1000


@dataclass
class Failures:
    """The errors of one output's rows."""

    wire: Wire
    info: OutputInfo
    _any: bool | None = field(default=None, init=False)

    def add(self, failures: Sequence[Failure]) -> None:
        """Record errors, each in place of an earlier one of its row; the last lines of tracebacks are kept."""
        self._any = True
        collection = self.wire.collection(ERRORS)
        room = MAX_WITH_TRACEBACK - collection.count({"output": self.info.id}, limit=MAX_WITH_TRACEBACK)
        statements = [
            Update(
                {"output": self.info.id, "key": failure.key},
                self._entry(failure, keep_traceback=position < room),
                upsert=True,
            )
            for position, failure in enumerate(failures)
        ]
        self.wire.update(ERRORS, statements)

    def forget(self, keys: Sequence[Any]) -> None:
        """Drop the errors of rows that now have their output."""
        if self._any is None:
            self._any = self.wire.collection(ERRORS).find_one({"output": self.info.id}) is not None
        if self._any:
            self.wire.delete(ERRORS, {"output": self.info.id, "key": {"$in": list(keys)}})

    def _entry(self, failure: Failure, *, keep_traceback: bool) -> dict[str, Any]:
        return {
            "output": self.info.id, "key": failure.key, "model": self.info.model, "version": self.info.version,
            "error": failure.error, "message": _storable(failure.message[:MAX_MESSAGE]),
            "traceback": _storable(failure.traceback[-MAX_TRACEBACK:]) if keep_traceback else "",
            "attempts": failure.attempts, "failed_at": datetime.now(UTC),
        }  # fmt: skip


@dataclass(frozen=True)
class MongoErrors:
    """See `Errors`. The rows of one database that were set aside."""

    wire: Wire
    outputs: OutputRegistry

    def newest(self, output: int | None = None, limit: int = 1000) -> list[RowError]:
        names = {info.id: f"{info.table}.{info.name}" for info in self.outputs.all()}
        condition = {} if output is None else {"output": output}
        newest = [("failed_at", -1), ("_id", -1)]
        entries = self.wire.collection(ERRORS).find(condition, sort=newest, limit=limit)
        return [_row_error(entry, names) for entry in entries]

    def take(self, output: int) -> list[Key]:
        """See `Errors.take`. Drops the errors and the bookkeeping that sets their rows aside."""
        keys: list[Key] = []
        mine = {"output": output}
        while entries := list(self.wire.collection(ERRORS).find(mine, {"key": 1}, limit=TAKEN_AT_ONCE)):
            taken = [entry["key"] for entry in entries]
            self.wire.delete(state_table(output), {"_id": {"$in": taken}, "f": True})
            self.wire.delete(ERRORS, {"_id": {"$in": [entry["_id"] for entry in entries]}})
            keys += map(as_key, taken)
        return keys


def _row_error(entry: Mapping[str, Any], names: Mapping[int, str]) -> RowError:
    return RowError(
        names.get(entry["output"], str(entry["output"])), as_key(entry["key"]), entry["model"], entry["version"],
        entry["error"], entry["message"], entry["traceback"], entry["attempts"], _aware(entry["failed_at"]),
    )  # fmt: skip


def _storable(text: str) -> str:
    """BSON takes no lone surrogates, and a model's error may quote one."""
    return text.encode("utf-8", "backslashreplace").decode()


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
