"""What is signed of the records in pinnacle's collections of MongoDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.errors import NotAuthenticated
from pinnacle.base.refusals import unsigned_write
from pinnacle.base.seal import Seal, Sealed

COMPONENTS = "pinnacle_component"

SIGNED: Mapping[str, tuple[str, ...]] = {
    COMPONENTS: ("kind", "identifier", "version", "type", "body", "digest"),
}
"""The fields whose values are signed: what a record says, and its place."""

_NAMES: Mapping[str, str] = {COMPONENTS: "{kind} {identifier!r} version {version}"}


@dataclass(frozen=True)
class MongoSeals:
    """The signatures of one database: a field of each record's own document."""

    wire: Wire
    seal: Seal

    def sign(self, collection: str, entry: Mapping[str, Any]) -> str | None:
        """The signature of a document that is about to be written; None where this process signs nothing.

        ConfigError where it signs nothing and others do: they would refuse what it writes.
        """
        if not self.seal.is_on and self.wire.collection(COMPONENTS).find_one({"mac": {"$type": "string"}}, {"_id": 1}):
            raise unsigned_write()
        return self.seal.sign(_sealed(collection, entry))

    def refusal(self, collection: str, entry: Mapping[str, Any]) -> NotAuthenticated | None:
        """Why nothing of a document that was read is to be used; None where it is in order."""
        return self.seal.refusal(_sealed(collection, entry))

    def records(self) -> Iterator[Sealed]:
        """See `Seals`. Those of a kind and a name stand together, oldest first."""
        for name, fields in SIGNED.items():
            entries = self.wire.collection(name).find({}, sort=[(field, 1) for field in fields[:3]])
            yield from (_sealed(name, entry) for entry in entries)

    def put(self, record: Sealed) -> bool:
        """See `Seals`."""
        this = {name: {"$eq": value} for name, value in record.fields.items()}  # a stored value is no operator
        return bool(self.wire.collection(record.table).update_one(this, {"$set": {"mac": self.seal.sign(record)}}))


def _sealed(collection: str, entry: Mapping[str, Any]) -> Sealed:
    fields = {name: entry.get(name) for name in SIGNED[collection]}
    return Sealed(table=collection, name=_NAMES[collection].format(**fields), fields=fields, mac=entry.get("mac"))
