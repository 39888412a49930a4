"""The registry of listeners: one document each, under the number of the output that it keeps fresh."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinnacle.backends.mongodb.target.output_registry import REGISTRY
from pinnacle.backends.mongodb.target.records import BROKEN, broken, moment_of, number_of, text_of, whole_of
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.errors import Conflict
from pinnacle.base.listeners import ListenerRecord, new_sweep
from pinnacle.base.refusals import require_listener
from pinnacle.base.rows import OutputInfo
from pinnacle.base.types import Items

LISTENERS = "pinnacle_listener"


@dataclass(frozen=True)
class ListenerRegistry:
    """The listeners of one database.

    An entry's ``since`` is the server's time when it was registered: its first sweep begins
    later, and the reader of the change stream not after it. ``revision`` is the greatest
    that a row of its work was given. ``asked_at``: when the latest sweep was asked for.
    """

    wire: Wire

    def register(self, output: int, identifier: str, version: int) -> bool:
        """Record a listener, or its new version; whether there was anything to record."""
        news: dict[str, Any] = {"version": version, "paused": None, "since": self.wire.operation_time(), "shape": {}}
        found = self.entry(output)
        if found is None:
            first = {"revision": time.time_ns() // 1000}  # none that an earlier listener of this output was given
            if self._entries.insert_new({"_id": output, "identifier": identifier, **_FRESH, **first, **news}):
                return True
            if self.entry(output) is None:
                raise Conflict(f"another output has a listener {identifier!r}; give this one another")
            return self.register(output, identifier, version)  # another process was faster
        require_listener(found["identifier"], identifier)
        return self._entries.update_one({"_id": output, "version": {"$ne": version}}, {"$set": news})

    def move(self, output: int, seen: int, version: int) -> bool:
        """Put a version in the place of the one ``seen``, with a sweep due; whether that was still there."""
        news = {"version": version, "sweep": new_sweep(), "asked_at": time.time(), "error": None, "error_at": None}
        return self._entries.update_one({"_id": output, "version": seen}, {"$set": news})

    def records(self, infos: Iterable[OutputInfo]) -> list[ListenerRecord]:
        """All listeners, oldest first; ``infos`` are the outputs."""
        known = {info.id: info for info in infos}
        return [_record(entry, known[entry["_id"]]) for entry in self.entries() if entry["_id"] in known]

    def entries(self) -> list[Mapping[str, Any]]:
        return list(self._entries.find(sort=[("_id", 1)]))

    def entry(self, output: int) -> Mapping[str, Any] | None:
        return self._entries.find_one({"_id": output})

    def set(self, output: int, **values: Any) -> None:
        self._entries.update_one({"_id": output}, {"$set": values})

    def request_sweeps(self, outputs: Sequence[int]) -> None:
        """Ask for sweeps; each takes the place of one that is under way."""
        for output in outputs:
            self.set(output, sweep=new_sweep(), asked_at=time.time())

    def request_sweep_where_none_is_due(self, output: int) -> bool:
        asked = {"sweep": new_sweep(), "asked_at": time.time()}
        return self._entries.update_one({"_id": output, "sweep": None}, {"$set": asked})

    def advance_sweep(self, output: int, seen: str, now: str | None) -> bool:
        """Move a sweep on, or end it (None), unless another was asked for since it was ``seen``."""
        values = {"sweep": now} if now is not None else {"sweep": None, "swept_at": time.time()}
        return self._entries.update_one({"_id": output, "sweep": seen}, {"$set": values})

    def next_revisions(self, output: int, count: int) -> int | None:
        """The first of ``count`` revisions that nobody else is given; None when the listener is gone."""
        change = {"$inc": {"revision": count}, "$set": {"folded_at": time.time()}}
        found = self._counters.update_and_get({"_id": output}, change)
        return None if found is None else int(found["revision"]) - count + 1

    def count_processed(self, output: int, count: int, reserved: int = 0) -> int | None:
        """Count rows that are done; as `next_revisions`, of ``reserved`` ones for changes to come."""
        change = {"$inc": {"processed": count, "revision": reserved}, "$set": {"folded_at": time.time()}}
        found = self._counters.update_and_get({"_id": output}, change)
        return None if found is None else int(found["revision"]) - reserved + 1

    def mark_changed(self, table: str) -> None:
        """Note that documents of a collection were changed by this process."""
        concerned = {"$or": [{"collection": table}, {"path": table, "type.type": Items.name}]}
        outputs = [entry["_id"] for entry in self.wire.collection(REGISTRY).find(concerned, {"_id": 1})]
        self._entries.update_many({"_id": {"$in": outputs}}, {"$set": {"changed_at": time.time()}})

    def remove(self, output: int) -> None:
        self._entries.delete_one({"_id": output})

    @property
    def _entries(self) -> StoredCollection:
        return self.wire.collection(LISTENERS)

    @property
    def _counters(self) -> StoredCollection:
        """Work that is durable was numbered before on the same server: so is its number."""
        return self.wire.collection(LISTENERS, durable=False)


_FRESH: Mapping[str, Any] = {
    "sweep": None, "swept_at": 0.0, "asked_at": 0.0, "changed_at": 0.0, "folded_at": 0.0, "processed": 0,
    "error": None, "error_at": None,
}  # fmt: skip


def _record(entry: Mapping[str, Any], info: OutputInfo) -> ListenerRecord:
    """A listener as its document says; paused, by its reason, where that is broken."""
    reads, paused, version = info.fields.paths, _optional(entry.get("paused")), entry.get("version")
    try:
        text_of(entry["identifier"])
        whole_of(version), moment_of(entry["since"])
        whole_of(entry.get("revision", 0)), whole_of(entry.get("processed", 0))
        reads = tuple(dict.fromkeys([*reads, *map(text_of, entry["shape"].get("reads", ()))]))
    except BROKEN as error:
        paused = str(broken(f"listener {entry.get('identifier')}", error))
    return ListenerRecord(
        output=info.id, identifier=str(entry.get("identifier")), version=version if isinstance(version, int) else -1,
        table=info.table, column=info.name, fields=info.fields, reads=reads, paused=paused,
        sweep=_optional(entry.get("sweep")), swept_at=number_of(entry.get("swept_at")),
        folded_at=number_of(entry.get("folded_at")), processed=int(number_of(entry.get("processed"))),
        error=_optional(entry.get("error")),
        error_at=None if entry.get("error_at") is None else number_of(entry["error_at"]), side=info.side,
    )  # fmt: skip


def _optional(value: Any) -> str | None:
    return None if value is None else str(value)
