"""Rows set aside with their errors, bounded in size and number of tracebacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pinnacle.backends.mongodb.target.outputs import state_table
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


def list_errors(wire: Wire, names: dict[int, str], output: int | None, limit: int) -> list[RowError]:
    """Errors, newest first; ``names`` are the outputs' by id."""
    condition = {} if output is None else {"output": output}
    entries = wire.collection(ERRORS).find(condition, sort=[("failed_at", -1), ("_id", -1)], limit=limit)
    return [
        RowError(
            names.get(entry["output"], str(entry["output"])), as_key(entry["key"]), entry["model"], entry["version"],
            entry["error"], entry["message"], entry["traceback"], entry["attempts"], _aware(entry["failed_at"]),
        )
        for entry in entries
    ]  # fmt: skip


def take_errors(wire: Wire, output: int) -> list[Key]:
    """Drop an output's errors and the bookkeeping that sets their rows aside; the rows' keys."""
    keys: list[Key] = []
    mine = {"output": output}
    while entries := list(wire.collection(ERRORS).find(mine, {"key": 1}, limit=TAKEN_AT_ONCE)):
        taken = [entry["key"] for entry in entries]
        wire.delete(state_table(output), {"_id": {"$in": taken}, "f": True})
        wire.delete(ERRORS, {"_id": {"$in": [entry["_id"] for entry in entries]}})
        keys += map(as_key, taken)
    return keys


def _storable(text: str) -> str:
    """BSON takes no lone surrogates, and a model's error may quote one."""
    return text.encode("utf-8", "backslashreplace").decode()


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
