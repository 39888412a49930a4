"""Keys of documents: hashable, and equal where the server takes them for equal, whatever an ``_id`` holds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.regex import Regex

from pinnacle.backends.mongodb.wire.raw_encoding import StoredKey, element_of, encode_raw
from pinnacle.backends.mongodb.wire.row_bytes import element_at
from pinnacle.base.rows import Key

_ANY_UUID: CodecOptions[Any] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
_AS_THEY_ARE = frozenset({str, int, Int64, ObjectId, UUID, bool, bytes, datetime})
_NOT_A_NUMBER = b"not a number"
_INTEGERS = 2**63
_EXACTLY = Context(prec=34, Emin=-9999, Emax=9999)
"""All digits of a Decimal128."""

NO_KEYS = ("array", "regex")
"""The BSON types, by their `$type` names, that no ``_id`` can have."""


class DocumentKey(dict[str, Any]):
    """An ``_id`` that is a document, hashable as keys must be."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(key_bytes(self))


class DecimalKey(Decimal128):
    """An ``_id`` that is a Decimal128, hashable as keys must be."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.bid)


def is_key(value: Any) -> bool:
    """Whether a document's ``_id`` can be this value."""
    return not isinstance(value, (list, Regex, re.Pattern))


def as_key(value: Any) -> Key:
    """A decoded ``_id`` as a hashable key."""
    if isinstance(value, float) and value != value:
        return math.nan  # always the same object: a set finds no other that is not a number
    if isinstance(value, dict):
        return DocumentKey(value)
    if isinstance(value, Decimal128):
        return DecimalKey.from_bid(value.bid)
    is_plain = value is not None and type(value).__hash__ is not None  # None elsewhere says that there is no key
    return value if is_plain else StoredKey.of(*element_of(value, _ANY_UUID))


def set_keys(documents: Sequence[dict[str, Any]], rows: Sequence[bytes], codec: CodecOptions[Any], name: str) -> None:
    """Make keys of what decoded documents have under ``name``; ``rows`` are their bytes.

    What would not be the same bytes again stands for itself as it is stored.
    """
    for document, row in zip(documents, rows, strict=True):
        if type(value := document.get(name, "")) not in _AS_THEY_ARE:
            document[name] = _exact(value, row, codec, name)


def _exact(value: Any, row: bytes, codec: CodecOptions[Any], name: str) -> Key:
    if isinstance(value, (float, Decimal128)):
        return as_key(value)
    if (stored := element_at(row, name.encode())) is None:
        return None
    try:
        hash(key := as_key(value))
        return key if element_of(value, codec) == stored else StoredKey.of(*stored)
    except Exception:  # whatever the driver makes of it
        return StoredKey.of(*stored)


def key_bytes(key: Any) -> bytes:
    """Bytes that are equal for equal keys of one collection."""
    try:
        return bson.encode({"": key}, codec_options=_ANY_UUID)
    except UnicodeError:
        return encode_raw({"": key}, _ANY_UUID)


def key_identity(key: Any) -> str | int | float | bytes:
    """What is equal for equal keys of one collection, and hashable: numbers of all kinds compare, and no others."""
    kind = type(key)
    if kind is str or kind is int:
        return key  # type: ignore[no-any-return]
    if isinstance(key, Decimal128):
        return _number(key.to_decimal())
    if not isinstance(key, (str, int, float)) or isinstance(key, (bool, StoredKey)):
        return key_bytes(key)
    return key if key == key else _NOT_A_NUMBER


def _number(value: Decimal) -> int | float | bytes:
    """An int or a float where one equals it."""
    if value.is_nan():
        return _NOT_A_NUMBER
    if value.is_infinite() or value == (nearest := float(value)):
        return float(value)
    is_integer = abs(nearest) < _INTEGERS and value == int(value)
    return int(value) if is_integer else str(value.normalize(_EXACTLY)).encode()
