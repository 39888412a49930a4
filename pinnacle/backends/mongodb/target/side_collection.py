"""The collection that holds a side output: one document an item, under a key that stays when its value changes.

An item is ``{_id: {<parent>: key, position: n}, <parent>: key, position: n, value: ...}``, where
the parent is the document that it was computed from, named as in ``posts_id``. It may have
other fields: outputs that are computed from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from pinnacle.backends.mongodb.wire.encoding import decode_keyed, encode_with_key, keys_of
from pinnacle.backends.mongodb.wire.keys import as_key, is_key, key_identity
from pinnacle.backends.mongodb.wire.row_bytes import name_of
from pinnacle.backends.mongodb.wire.shape import Shape
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Update, Wire
from pinnacle.base.document import escape_name
from pinnacle.base.rows import Key

POSITION, VALUE = "position", "value"
MAX_ITEMS, MAX_BYTES = 4_000, 8 * 1024 * 1024
DIGEST_BYTES = 32


class Item(NamedTuple):
    """An item to be stored, and its canonical row."""

    document: Mapping[str, Any]
    row: bytes


@dataclass(frozen=True)
class SideCollection:
    """The items of one output; ``table`` holds their parents."""

    wire: Wire
    table: str
    name: str

    @property
    def parent(self) -> str:
        """The field of an item that holds its parent's key."""
        return parent_field(self.table)

    def statements(self) -> list[str]:
        """What `create` does."""
        return [f"create collection {self.name}", f"create index on {self.name} ({self.parent}, {POSITION})"]

    def create(self) -> None:
        """Make the collection and its index. Not a unique one: no write of the user's may fail for it."""
        self.wire.create(self.name)
        self._documents.create_index([(self.parent, 1), (POSITION, 1)])

    def drop(self) -> None:
        self._documents.drop()

    # -- reading -----------------------------------------------------------------------------------

    def values(self, key: Key) -> list[Any]:
        """The values of one parent's items, in their order."""
        found = self._documents.find(self._of([key]), {"_id": 0, VALUE: 1}, sort=[(POSITION, 1)])
        return [document.get(VALUE) for document in found]

    def digests(self, keys: Sequence[Key]) -> dict[Any, bytes]:
        """What stands for all items of each parent, by its identity; parents without items are left out."""
        found: dict[Any, Any] = {}
        for identity, row in self._rows(keys):
            found.setdefault(identity, _hash()).update(row)
        return {identity: each.digest() for identity, each in found.items()}

    def parents(self, names: Sequence[Any]) -> Iterator[Key]:
        """The parents of those of the items ``names`` (their ``_id``) that are there."""
        named, its_parent = {"_id": {"$in": list(names)}}, {"_id": 0, self.parent: 1}
        for document in self.wire.documents(self.name, named, its_parent, key=self.parent):
            if self.parent in document and is_key(document[self.parent]):
                yield document[self.parent]

    def _rows(self, keys: Sequence[Key]) -> Iterator[tuple[Any, bytes]]:
        """The items' canonical rows, each parent's in their order, with the parent's identity."""
        shape = Shape((self.parent, POSITION), VALUE)
        rows = list(self.wire.rows_of(self.name, shape, keys))
        items, _ = decode_keyed(rows, self.wire.codec, "i0")
        yield from zip((key_identity(item["i0"]) for item in items), rows, strict=True)

    # -- writing -----------------------------------------------------------------------------------

    def items(self, key: Key, values: Sequence[Any]) -> list[Item]:
        """A parent's items as they will be, none of them written."""
        return [self._item(key, position, value) for position, value in enumerate(values)]

    def _item(self, key: Key, position: int, value: Any) -> Item:
        name = {self.parent: key, POSITION: position}
        row = {"_id": name, "i0": key, "i1": position, "o": value}
        return Item({"_id": name, **name, VALUE: value}, encode_with_key(row, self.wire.codec))

    def replace(self, wanted: Sequence[tuple[Key, Sequence[Item]]]) -> None:
        """Give parents these items and no others. Items that are there as they must be are left alone.

        Durable once a later durable write is.
        """
        items = [item for _, part in wanted for item in part]
        names = {name_of(item.row) for item in items}
        there = {row for _, row in self._rows([key for key, _ in wanted])}
        surplus = keys_of([row for row in there if name_of(row) not in names], self.wire.codec)
        if surplus:
            self.wire.delete(self.name, {"_id": {"$in": surplus}}, durable=False)
        for part in _parts([item for item in items if item.row not in there]):
            documents = [item.document for item in part]
            taken = self.wire.insert_missing(self.name, documents, durable=False)
            if taken:
                self.wire.update(self.name, [_changed(documents[position]) for position in taken], durable=False)

    def delete(self, keys: Sequence[Key]) -> None:
        """Take all items of these parents away."""
        if keys:
            self.wire.delete(self.name, self._of(keys))

    def _of(self, keys: Sequence[Key]) -> Mapping[str, Any]:
        """The condition on items of these parents: a null key is not that of documents which name none."""
        return {self.parent: {"$in": list(keys), "$exists": True}}

    @property
    def _documents(self) -> StoredCollection:
        return self.wire.collection(self.name)


def parent_field(table: str) -> str:
    """The field of an item that holds the key of its parent in ``table``."""
    return f"{escape_name(table)}_id"


def parent_named(name: Any, field: str) -> Key | None:
    """The parent whose item an ``_id`` names; None for an ``_id`` of another form."""
    if not isinstance(name, Mapping) or list(name) != [field, POSITION] or not is_key(name[field]):
        return None
    return as_key(name[field])


def digest_of(items: Sequence[Item]) -> bytes | None:
    """What `SideCollection.digests` gives for a parent with these items; None where it leaves it out."""
    found = _hash()
    for item in items:
        found.update(item.row)
    return found.digest() if items else None


def _hash() -> Any:
    return blake2b(digest_size=DIGEST_BYTES)


def _changed(document: Mapping[str, Any]) -> Update:
    change = {"$set": {name: value for name, value in document.items() if name != "_id"}}
    return Update({"_id": document["_id"]}, change, upsert=True)


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Parts that one command holds."""
    start, size = 0, 0
    for position, item in enumerate(items):
        if position > start and (position - start == MAX_ITEMS or size + len(item.row) > MAX_BYTES):
            yield items[start:position]
            start, size = position, 0
        size += len(item.row)
    if start < len(items):
        yield items[start:]
