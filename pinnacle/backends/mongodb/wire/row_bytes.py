"""Raw BSON: rows as the server sends them, taken apart and hashed without decoding.

A *canonical row* is one document ``{_id, i0, i1, ..., o}``: the key, the inputs in their
order, and the stored output; what is missing in the user's document is absent. Its
bytes are the row's witness, and their hash its fingerprint: equal bytes, equal content.
Layouts are those of https://bsonspec.org/spec.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b

FINGERPRINT_BYTES = 16
OUTPUT_NAME = b"o"
DONE, SET_ASIDE = b"done", b"set aside"

_FIXED = {
    0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0,
}  # fmt: skip
_PREFIXED = {0x02: 4, 0x03: 0, 0x04: 0, 0x05: 5, 0x0C: 16, 0x0D: 4, 0x0E: 4, 0x0F: 0}
_REGEX = 0x0B


def first_batch(cursor: bytes) -> tuple[list[bytes], int]:
    """The documents in a find's reply, each as its own bytes, and the id of the cursor left open (0: none)."""
    return batch(cursor, b"firstBatch"), open_cursor(cursor)


def batch(cursor: bytes, name: bytes) -> list[bytes]:
    """The documents in the array of that name in a cursor's reply, each as its own bytes."""
    array = cursor.index(0, _position(cursor, name) + 1) + 1
    end = array + int.from_bytes(cursor[array : array + 4], "little") - 1
    documents: list[bytes] = []
    at = array + 4
    while at < end:
        at = cursor.index(0, at + 1) + 1
        size = int.from_bytes(cursor[at : at + 4], "little")
        documents.append(cursor[at : at + size])
        at += size
    return documents


_HASH = re.compile(rb"\x05h\x00\x10\x00\x00\x00\x00(.{16})\x00", re.DOTALL)


def hashes_in(batch: bytes) -> set[bytes]:
    """The fingerprints in BSON whose documents are ``{h: <16 bytes>}`` and nothing else."""
    return set(_HASH.findall(batch))


def open_cursor(cursor: bytes) -> int:
    """The id of the cursor that a find's reply leaves open; 0 for none."""
    at = _position(cursor, b"id") + 4
    return int.from_bytes(cursor[at : at + 8], "little", signed=True)


def split(batch: bytes) -> Iterator[bytes]:
    """The documents of a concatenation, each as its own bytes."""
    at, end = 0, len(batch)
    while at < end:
        size = int.from_bytes(batch[at : at + 4], "little")
        yield batch[at : at + size]
        at += size


def stamp(version: int, parameters: str) -> bytes:
    """16 bytes for what computes an output: the model version and the run's parameters."""
    chosen = blake2b(parameters.encode(), digest_size=8).digest() if parameters else bytes(8)
    return version.to_bytes(8, "little") + chosen


def fingerprint(row: bytes, computed_by: bytes, outcome: bytes) -> bytes:
    """16 bytes that stand for a canonical row, what computes it (a `stamp`) and how it went."""
    return blake2b(row, digest_size=FINGERPRINT_BYTES, person=outcome, salt=computed_by).digest()


def stale_among(rows: Sequence[bytes], computed_by: bytes, recorded: set[bytes]) -> list[bytes]:
    """The rows whose fingerprint as done is not among those recorded."""
    hashed = partial(blake2b, digest_size=FINGERPRINT_BYTES, person=DONE, salt=computed_by)
    return [row for row in rows if hashed(row).digest() not in recorded]


def without_output(row: bytes) -> bytes:
    """A canonical row's bytes with its last element, the output, cut off if it is there."""
    at = _find(row, OUTPUT_NAME)
    return row if at is None else _document(row[4:at])


def with_output(row: bytes, element: bytes) -> bytes:
    """A row without output with an encoded output element put at its end."""
    return _document(row[4:-1] + element)


def name_of(row: bytes) -> bytes:
    """The element ``_id``: equal where two rows are the same document's."""
    return row[4 : _skip(row, 4)]


def inputs_of(row: bytes) -> bytes:
    """The elements after ``_id``: equal where inputs are equal, whichever row they are in."""
    return row[_skip(row, 4) :]


def element_at(document: bytes, name: bytes) -> tuple[int, bytes] | None:
    """The BSON type and the bytes of the value that a document has under ``name``."""
    at = _find(document, name)
    if at is None:
        return None
    return document[at], document[document.index(0, at + 1) + 1 : _skip(document, at)]


def elements(document: bytes) -> Iterator[bytes]:
    """A document's elements, each as a document of its own."""
    at = 4
    while document[at]:
        after = _skip(document, at)
        yield _document(document[at:after])
        at = after


def name_in(element: bytes) -> bytes:
    """The name in a document of one element."""
    return element[5 : element.index(0, 5)]


def _document(elements: bytes) -> bytes:
    return (len(elements) + 5).to_bytes(4, "little") + elements + b"\x00"


def _position(document: bytes, name: bytes) -> int:
    at = _find(document, name)
    if at is None:
        raise ValueError(f"the server's reply has no {name.decode()}")
    return at


def _find(row: bytes, name: bytes) -> int | None:
    at = 4
    while row[at]:
        if row[at + 1 : row.index(0, at + 1)] == name:
            return at
        at = _skip(row, at)
    return None


def _skip(row: bytes, at: int) -> int:
    """The position after the element that starts at ``at``."""
    kind, value = row[at], row.index(0, at + 1) + 1
    if kind in _FIXED:
        return value + _FIXED[kind]
    if kind == _REGEX:
        return row.index(0, row.index(0, value) + 1) + 1
    return value + int.from_bytes(row[value : value + 4], "little") + _PREFIXED[kind]
