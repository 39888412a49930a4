"""Documents of all that BSON can hold, for tests and benchmarks: made type by type, as no driver would make them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from pinnacle.base.document import plain

UNREADABLE = object()
MAX_DEPTH = 4
DEEPEST = 150
SURROGATES = range(0xD800, 0xE000)
_Value = tuple[int, bytes]


class HostileDocuments:
    """Makes raw documents with a hostile ``_id`` and field ``body``, the same ones for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._scalars: Sequence[Callable[[], _Value]] = [
            self._double, self._text, self._text, self._binary, self._object_id, self._bool, self._date, self._code,
            self._symbol, self._int, self._timestamp, self._long, self._decimal, self._end, self._pointer,
        ]  # fmt: skip

    def documents(self, count: int) -> Iterator[RawBSONDocument]:
        for number in range(count):
            key = self._key() if number % 3 == 0 else (0x10, struct.pack("<i", number))
            fields = [(b"_id", key)]
            if self._random.random() < 0.97:
                fields.append((b"body", self.value()))
            if self._random.random() < 0.3:
                fields.append((self._name() or b"more", self.value()))
            yield RawBSONDocument(_document(fields))

    def value(self, depth: int = 0) -> _Value:
        """A value of any BSON type."""
        if self._random.random() < 0.02:
            return self._deep()
        others = [self._null, self._undefined, self._regex, self._scoped_code]
        nested = [lambda: self._nested(depth), lambda: self._array(depth)] if depth < MAX_DEPTH else []
        return self._random.choice([*self._scalars, *others, *nested, *nested])()

    def _key(self) -> _Value:
        return self._random.choice([*self._scalars, lambda: self._nested(1)])()

    # -- one method a type ---------------------------------------------------------------------------

    def _double(self) -> _Value:
        special = self._random.choice([float("nan"), float("inf"), -0.0, 5e-324, 1e308, self._random.random()])
        return 0x01, self._random.choice([struct.pack("<d", special), self._bytes(8)])

    def _text(self) -> _Value:
        return 0x02, _prefixed(self._characters() + b"\x00")

    def _nested(self, depth: int) -> _Value:
        names = [self._name() for _ in range(self._random.randrange(4))]
        return 0x03, _document([(name, self.value(depth + 1)) for name in names])

    def _array(self, depth: int) -> _Value:
        size = self._random.randrange(4)
        return 0x04, _document([(str(n).encode(), self.value(depth + 1)) for n in range(size)])

    def _deep(self) -> _Value:
        kind, content = self._text()
        for _ in range(self._random.randrange(DEEPEST)):
            kind, content = 0x03, _document([(b"x", (kind, content))])
        return kind, content

    def _binary(self) -> _Value:
        kind = self._random.choice([*range(10), 128, 255])
        content = self._bytes(self._random.choice([0, 1, 3, 16, 17]))
        if kind == 2:
            content = _prefixed(content)
        return 0x05, struct.pack("<i", len(content)) + bytes([kind]) + content

    def _undefined(self) -> _Value:
        return 0x06, b""

    def _object_id(self) -> _Value:
        return 0x07, self._bytes(12)

    def _bool(self) -> _Value:
        return 0x08, self._random.choice([b"\x00", b"\x01"])

    def _date(self) -> _Value:
        return 0x09, struct.pack("<q", self._random.choice([0, -1, 2**62, -(2**62), self._random.randrange(2**50)]))

    def _null(self) -> _Value:
        return 0x0A, b""

    def _regex(self) -> _Value:
        flags = self._random.choice([b"", b"i", b"imsx", b"z"])
        return 0x0B, self._characters().replace(b"\x00", b"") + b"\x00" + flags + b"\x00"

    def _pointer(self) -> _Value:
        name = self._characters().replace(b"\x00", b"")  # the server's own projections end it at a NUL
        return 0x0C, _prefixed(name + b"\x00") + self._bytes(12)

    def _code(self) -> _Value:
        return 0x0D, self._text()[1]

    def _symbol(self) -> _Value:
        return 0x0E, self._text()[1]

    def _scoped_code(self) -> _Value:
        parts = self._text()[1] + self._nested(MAX_DEPTH)[1]
        return 0x0F, struct.pack("<i", len(parts) + 4) + parts

    def _int(self) -> _Value:
        return 0x10, self._bytes(4)

    def _timestamp(self) -> _Value:
        return 0x11, self._bytes(8)

    def _long(self) -> _Value:
        return 0x12, self._random.choice([self._bytes(8), struct.pack("<q", self._random.randrange(100))])

    def _decimal(self) -> _Value:
        return 0x13, self._bytes(16)

    def _end(self) -> _Value:
        return self._random.choice([0x7F, 0xFF]), b""

    # -- their parts -----------------------------------------------------------------------------------

    def _bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def _name(self) -> bytes:
        plain = self._random.choice([b"a", b"a", b"", b"$set", b"a.b", b"0", b"$ref", b"$id"])
        return plain if self._random.random() < 0.8 else self._characters().replace(b"\x00", b"")

    def _characters(self) -> bytes:
        size = self._random.randrange(12)
        kinds: list[Callable[[], bytes]] = [
            lambda: self._bytes(size),
            lambda: "".join(map(chr, self._random.choices(range(0xD800), k=size))).encode(),
            lambda: "".join(map(chr, self._random.choices(SURROGATES, k=size))).encode("utf-8", "surrogatepass"),
            lambda: bytes(self._random.choices(b"abc 0\x00", k=size)),
        ]
        return self._random.choice(kinds)()


def _document(fields: Sequence[tuple[bytes, _Value]]) -> bytes:
    parts = b"".join(bytes([kind]) + name + b"\x00" + content for name, (kind, content) in fields)
    return struct.pack("<i", len(parts) + 5) + parts + b"\x00"


def _prefixed(content: bytes) -> bytes:
    return struct.pack("<i", len(content)) + content


CODEC: CodecOptions[Any] = CodecOptions(
    unicode_decode_error_handler="surrogateescape",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    uuid_representation=UuidRepresentation.STANDARD,
)
"""How the driver takes as much of them as it can."""
_AS_STORED: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
_AT_ONCE = 500


def insert(collection: Any, documents: Iterable[RawBSONDocument]) -> None:
    """Insert those that the server takes, with a key that is new."""
    left = list(documents)
    for start in range(0, len(left), _AT_ONCE):
        command = {"insert": collection.name, "documents": left[start : start + _AT_ONCE], "ordered": False}
        collection.database.command(command, codec_options=_AS_STORED)


def told(value: Any) -> str:
    """What the model makes of a value; text that every field takes."""
    return ascii(value)[:2_000]


def expected(collection: Any, name: str) -> list[Any]:
    """What the model is to have told of a field, by ``_id``; None for null, `UNREADABLE` where the driver gives up."""
    return [_expected(found, name) for found in _column(collection, name)]


def outputs(collection: Any, name: str) -> list[Any]:
    """What there is in a field, by ``_id``."""
    return [bson.decode(found.raw, CODEC).get(name) for found in _column(collection, name)]


def keys(collection: Any) -> list[set[str]]:
    """How each ``_id`` may be told by an error, in their order: as the driver decodes it, or as it is stored."""
    return [{_decoded_key(found), f"BSON {found.raw[4]:02x} {found.raw[9:-1].hex()}"} for found in _column(collection)]


def _column(collection: Any, name: str | None = None) -> list[RawBSONDocument]:
    fields = {"_id": 1} if name is None else {"_id": 0, name: 1}
    return list(collection.with_options(codec_options=_AS_STORED).find({}, fields).sort("_id", 1))


def _expected(found: RawBSONDocument, name: str) -> Any:
    try:
        value = bson.decode(found.raw, CODEC).get(name)
    except bson.errors.InvalidBSON:
        return UNREADABLE
    return None if value is None else told(plain(value))


def _decoded_key(found: RawBSONDocument) -> str:
    try:
        return repr(bson.decode(found.raw, CODEC)["_id"])
    except bson.errors.InvalidBSON:
        return ""
