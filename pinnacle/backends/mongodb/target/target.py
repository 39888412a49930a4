"""The Target: pages of rows that need work, and the writing of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

from pinnacle.backends.mongodb.target.canonical_rows import rows_of, shape_of
from pinnacle.backends.mongodb.target.leases import Leases
from pinnacle.backends.mongodb.target.output_registry import state_table
from pinnacle.backends.mongodb.target.own_writes import OwnWrites
from pinnacle.backends.mongodb.target.row_errors import ERRORS
from pinnacle.backends.mongodb.target.source import MongoSource
from pinnacle.backends.mongodb.target.writer import Writer
from pinnacle.backends.mongodb.wire.encoding import (
    as_input,
    check_all,
    decode_keyed,
    keys_of,
)
from pinnacle.backends.mongodb.wire.keys import key_bytes, key_identity
from pinnacle.backends.mongodb.wire.raw_encoding import StoredKey
from pinnacle.backends.mongodb.wire.row_bytes import (
    SET_ASIDE,
    fingerprint,
    inputs_of,
    stale_among,
    stamp,
    without_output,
)
from pinnacle.backends.mongodb.wire.shape import Shape
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.failpoints import failpoint
from pinnacle.base.rows import Failure, Key, OutputBatch, OutputInfo, Page

KEYS_AT_ONCE = 10_000


class Witness(NamedTuple):
    """What was read of a row: its canonical bytes, and the same without the output.

    ``recorded``: some row of its page had bookkeeping already. ``is_text``: all inputs are text.
    """

    row: bytes
    inputs: bytes
    recorded: bool
    is_text: bool


class MongoTarget:
    """One output over the documents of one find()."""

    def __init__(self, wire: Wire, source: MongoSource, info: OutputInfo, leases: Leases, writer: Writer):
        self._wire, self._source, self._info = wire, source, info
        self._leases, self._writer = leases, writer
        self._rows = rows_of(wire, source.table, shape_of(info), info.side)
        self._names = tuple(f"i{n}" for n in range(len(info.fields.paths)))

    @property
    def info(self) -> OutputInfo:
        return self._info

    @property
    def source(self) -> MongoSource:
        return self._source

    @property
    def shape(self) -> Shape:
        """What its canonical rows are read from."""
        return self._rows.shape

    @property
    def wire(self) -> Wire:
        return self._wire

    @property
    def leases(self) -> Leases:
        return self._leases

    def tell_of_writes(self, own_writes: OwnWrites) -> None:
        """From now on only rows are written that are in the work; ``own_writes`` is told of them."""
        self._writer.own_writes = own_writes

    def note_newest(self, at: float) -> None:
        """Its version was the newest at this time of the monotonic clock: rows that are leased are written without
        another look for a moment."""
        self._writer.newest_at = at

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        """Check a batch of model values: those to store, and the misfits by position."""
        return check_all(self._info.type, values)

    def count(self) -> int:
        return self._wire.collection(self._source.table).count(self._source.filter)

    def read(self, after: Key | None, limit: int, *, overwrite: bool = False) -> Page:
        generation = self._leases.generation()
        start = self._key_at(after)
        rows = self._rows.after(start, limit, self._source.filter)
        return self._page(rows, overwrite, generation, self._recorded_between)

    def reread(self, keys: Sequence[Key], *, overwrite: bool = False) -> Page:
        generation = self._leases.generation()
        rows = self._rows.at(keys, self._source.filter) if keys else []
        return self._page(rows, overwrite, generation, lambda _: self._recorded(keys))

    def read_few(self, keys: Sequence[Key]) -> Page:
        """`reread` of rows that are claimed."""
        return self._page(self._rows.at(keys, self._source.filter), False, 0, lambda _: self._recorded(keys))

    def page_of(self, rows: list[bytes], recorded: set[bytes]) -> Page:
        """The page of claimed rows that were read already, with the fingerprints that are recorded of them."""
        return self._page(rows, False, 0, lambda _: recorded)

    def claim(self, owner: str, page: Page, done: Sequence[str], ttl_s: float) -> tuple[str, Sequence[int], bool]:
        return self._leases.claim(owner, page.keys, page.generation, done, ttl_s)

    def renew(self, owner: str, ttl_s: float) -> None:
        self._leases.renew(owner, ttl_s)

    def release(self, owner: str) -> None:
        self._leases.release(owner)

    def prepare(self, batch: OutputBatch) -> OutputBatch:
        return self._writer.prepare(batch)

    def write(self, batch: OutputBatch) -> Sequence[int]:
        return self._writer.write(batch)

    def fail(self, failures: Sequence[Failure]) -> None:
        self._writer.fail(failures)

    # -- rows that are not there any more ------------------------------------------------------------

    def absent(self, keys: Sequence[Key]) -> tuple[list[Key], list[Key]]:
        there, chosen = self._present(keys, {}), self._present(keys, self._source.filter)
        gone = [key for key in keys if key_identity(key) not in there]
        return gone, [key for key in keys if key_identity(key) in there and key_identity(key) not in chosen]

    def forget(self, keys: Sequence[Key]) -> None:
        there = self._present(keys, {})
        failpoint("in-forget")
        self._forget([key for key in keys if key_identity(key) not in there])

    def blank(self, keys: Sequence[Key]) -> Sequence[Key]:
        """The server sees to it that a document still does not match. None is left: there are no locks to wait for."""
        if not self._source.filter:
            return []
        unmatched = {"_id": {"$in": list(keys)}, self._info.name: {"$exists": True}, "$nor": [self._source.filter]}
        self._wire.collection(self._source.table).update_many(unmatched, {"$unset": {self._info.name: ""}})
        chosen = self._present(keys, self._source.filter)
        self._erase([key for key in keys if key_identity(key) not in chosen])
        return []

    def orphans(self, after: Key | None, last: Key | None, *, selected: bool) -> list[Key]:
        condition = self._source.filter if selected else {}
        found: dict[Any, Key] = {}
        end = self._key_at(last)
        for table, path in self._kept_in():
            first = self._key_at(after)
            while keys := self._wire.keys(table, first, end, KEYS_AT_ONCE, path):
                there = self._present(keys, condition)
                found |= {key_identity(key): key for key in keys if key_identity(key) not in there}
                first = keys[-1]
        return list(found.values())

    def _kept_in(self) -> Iterator[tuple[str, str]]:
        """The collections that keep something of rows, and where these have the rows' keys."""
        yield state_table(self._info.id), "_id"

    def _present(self, keys: Sequence[Key], condition: Mapping[str, Any]) -> set[Any]:
        return {key_identity(key) for key in self._wire.keys_at(self._source.table, keys, condition)} if keys else set()

    def _forget(self, keys: Sequence[Key]) -> None:
        """Erase what is kept of rows that are gone."""
        self._erase(keys)

    def _erase(self, keys: Sequence[Key]) -> None:
        if keys:
            self._wire.delete(state_table(self._info.id), {"_id": {"$in": list(keys)}})
            self._wire.delete(ERRORS, {"output": self._info.id, "key": {"$in": list(keys)}})

    # -- pages -------------------------------------------------------------------------------------

    def _place_of(self, key: Any) -> Key:
        """A key as the end of a page, which callers may keep as text: what is no text or number, as BSON."""
        is_plain = isinstance(key, (str, int, float)) and not isinstance(key, StoredKey)
        return key if is_plain else key_bytes(key)

    def _key_at(self, place: Key | None) -> Any:
        return decode_keyed([place], self._wire.codec, "")[0][0][""] if isinstance(place, bytes) else place

    def _recorded_between(self, rows: Sequence[bytes]) -> set[bytes]:
        if not self._info.id or not rows:
            return set()
        if self._source.filter:  # may leave out most of the keys in between
            return self._recorded(keys_of(rows, self._wire.codec))
        first, last = keys_of([rows[0], rows[-1]], self._wire.codec)
        return self._wire.hashes(state_table(self._info.id), first, last, len(rows))

    def _recorded(self, keys: Sequence[Key]) -> set[bytes]:
        return self._wire.hashes_at(state_table(self._info.id), keys) if self._info.id and keys else set()

    def _page(
        self, rows: list[bytes], overwrite: bool, generation: int, recorded: Callable[[list[bytes]], set[bytes]]
    ) -> Page:
        """Sort out fresh rows by their fingerprints alone; only rows that may need work are decoded."""
        hashes = recorded(rows)
        computed_by = stamp(self._info.version, self._info.parameters)
        if overwrite or not hashes:
            stale = rows
        else:
            stale = stale_among(rows, computed_by, hashes)
        last = self._place_of(keys_of(rows[-1:], self._wire.codec)[0]) if rows else None
        documents, errors = decode_keyed(stale, self._wire.codec, spare="o")
        witnesses = [
            self._witness(row, document, recorded=bool(hashes)) for row, document in zip(stale, documents, strict=True)
        ]
        if hashes and not overwrite:
            needed = [fingerprint(witness.inputs, computed_by, SET_ASIDE) not in hashes for witness in witnesses]
            documents, witnesses = list(compress(documents, needed)), list(compress(witnesses, needed))
            errors = {place: errors[i] for place, i in enumerate(compress(range(len(stale)), needed)) if i in errors}
        keys = [document.pop("_id") for document in documents]
        inputs = self._inputs(documents, errors)
        page = Page(
            keys=keys,
            inputs=inputs,
            identities=list(self._identities(inputs, witnesses)),
            witnesses=witnesses,
            read=len(rows),
            fresh=len(rows) - len(stale),
            set_aside=len(stale) - len(witnesses),
            last=last,
            generation=generation,
            missing=sum(not hashes or w.inputs is w.row for i, w in enumerate(witnesses) if i not in errors),
        )
        return page.without(errors)

    def _inputs(self, documents: Sequence[Mapping[str, Any]], errors: dict[int, Exception]) -> list[Any]:
        """What the model gets; one that cannot be had is None, and among ``errors`` by its position."""
        try:
            return [self._input(document) for document in documents]
        except Exception:  # of any of them: it is looked for row by row
            return [self._input_or_error(document, i, errors) for i, document in enumerate(documents)]

    def _input(self, document: Mapping[str, Any]) -> Any:
        if len(self._names) == 1:
            return as_input(document.get("i0"))
        return tuple(as_input(document.get(name)) for name in self._names)

    def _input_or_error(self, document: Mapping[str, Any], position: int, errors: dict[int, Exception]) -> Any:
        try:
            return self._input(document)
        except Exception as error:  # whatever is bad in it
            errors.setdefault(position, error)
            return None

    def _witness(self, row: bytes, document: dict[str, Any], *, recorded: bool) -> Witness:
        is_text = all(type(document.get(name)) is str for name in self._names)
        return Witness(row, without_output(row) if "o" in document else row, recorded, is_text)

    @staticmethod
    def _identities(inputs: Sequence[Any], witnesses: Sequence[Witness]) -> Iterator[Any]:
        for value, witness in zip(inputs, witnesses, strict=True):
            yield value if type(value) is str else inputs_of(witness.inputs)
