"""BSON for what the driver does not encode: text that is not UTF-8, and keys in the form they are stored in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from pinnacle.base.rows import UnreadableKey

_TEXT, _DOCUMENT, _ARRAY = 0x02, 0x03, 0x04


class NotEncoded(UnicodeError):
    """The driver met a value that only this module encodes."""


class StoredKey(UnreadableKey):
    """An ``_id`` with no value in Python that is as good: its BSON type and its bytes, in hexadecimal digits.

    The driver asks what it takes for a DBRef for its document, and is refused: it would encode text.
    """

    _type_marker = 100

    @classmethod
    def of(cls, kind: int, content: bytes) -> StoredKey:
        return cls(f"BSON {kind:02x} {content.hex()}")

    @property
    def element(self) -> tuple[int, bytes]:
        """Its BSON type and its bytes."""
        _, kind, *content = self.split(" ")
        return int(kind, 16), bytes.fromhex("".join(content))

    def as_doc(self) -> NoReturn:
        raise NotEncoded("a key in the form it is stored in")


def encode_raw(document: Mapping[str, Any], codec: CodecOptions[Any]) -> bytes:
    """A document as BSON; lone surrogates in it stand for bytes that are not UTF-8."""
    return _document(document.items(), codec)


def raw_command(document: Mapping[str, Any], codec: CodecOptions[Any]) -> dict[str, Any]:
    """A command whose documents are encoded already."""
    return {name: raw_argument(value, codec) for name, value in document.items()}


def raw_argument(value: Any, codec: CodecOptions[Any]) -> Any:
    """A document, or a list of some, as the driver takes them encoded; all else as it is."""
    if isinstance(value, Mapping):
        options = codec.with_options(document_class=RawBSONDocument)
        return RawBSONDocument(encode_raw(value, codec), options)
    return [raw_argument(item, codec) for item in value] if isinstance(value, list) else value


def element_of(value: Any, codec: CodecOptions[Any]) -> tuple[int, bytes]:
    """A value's BSON type and its bytes."""
    if isinstance(value, StoredKey):
        return value.element
    if isinstance(value, RawBSONDocument):
        return _DOCUMENT, bytes(value.raw)
    if isinstance(value, Mapping):
        return _DOCUMENT, _document(value.items(), codec)
    if isinstance(value, (list, tuple)):
        return _ARRAY, _document(((str(n), item) for n, item in enumerate(value)), codec)
    if type(value) is str:
        text = value.encode("utf-8", "surrogateescape")
        return _TEXT, (len(text) + 1).to_bytes(4, "little") + text + b"\x00"
    alone = bson.encode({"": value}, codec_options=codec)
    return alone[4], alone[6:-1]


def _document(items: Iterable[tuple[str, Any]], codec: CodecOptions[Any]) -> bytes:
    parts = bytearray()
    for name, value in items:
        kind, content = element_of(value, codec)
        parts += bytes([kind]) + name.encode("utf-8", "surrogateescape") + b"\x00" + content
    return (len(parts) + 5).to_bytes(4, "little") + bytes(parts) + b"\x00"
