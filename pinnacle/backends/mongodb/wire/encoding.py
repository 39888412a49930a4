"""Outputs as BSON keeps them, and inputs and keys as models and the engine get them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.objectid import ObjectId
from bson.regex import Regex

from pinnacle.backends.mongodb.wire.errors import refused
from pinnacle.base.document import plain
from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.types import Items, OutputType, is_float_vector, vector_of

_AS_THEY_ARE = frozenset({str, int, float, bool, type(None), bytes, datetime})


def with_uuids(codec: CodecOptions[Any]) -> CodecOptions[Any]:
    """The user's own way to keep UUIDs; where none is chosen the standard one, so that models get UUIDs everywhere."""
    if codec.uuid_representation != UuidRepresentation.UNSPECIFIED:
        return codec
    return codec.with_options(uuid_representation=UuidRepresentation.STANDARD)


_ANY_UUID = with_uuids(DEFAULT_CODEC_OPTIONS)


def bson_type_of(value: Any) -> str:
    """The `$type` name of a Python value, as far as outputs go; ``other`` for the rest."""
    if isinstance(value, bool):
        return "bool"
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (str, "string"), (int, "int"), (float, "double"), (bytes, "binData"), (datetime, "date"), (dict, "object"),
        (list, "array"), (Decimal128, "decimal"), (ObjectId, "objectId"),
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), "other")


def check_all(kind: OutputType, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
    """Check a batch against its type and against what BSON can hold: values to store, misfits by position."""
    checked, misfits = kind.check_all(values)
    refuse = kind.stored.on_mongodb().refuse
    if refuse is not None:
        for position, value in enumerate(checked):
            if value is None or position in misfits:
                continue
            reasons = map(refuse, value if isinstance(kind, Items) else [value])
            reason = next(filter(None, reasons), None)
            if reason:
                misfits[position] = kind.misfit(value, reason)
    return checked, misfits


def encode_outputs(kind: OutputType, values: Sequence[Any]) -> Sequence[Any]:
    """Checked values as they go into documents; of items, lists of these."""
    if isinstance(kind, Items):
        return [encode_outputs(kind.item, value or ()) for value in values]
    encode = kind.on_mongodb().encode
    return values if encode is None else [None if value is None else encode(value) for value in values]


def encode(document: Mapping[str, Any], codec: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS) -> bytes:
    """A document as BSON; RowRejected for a value that BSON has not."""
    try:
        return bson.encode(document, codec_options=codec)
    except BSONError as error:
        raise refused(error) from error


def decode_all(documents: Sequence[bytes], codec: CodecOptions[Any]) -> list[dict[str, Any]]:
    """Documents of their bytes; RowRejected for bytes that are none."""
    try:
        return bson.decode_all(b"".join(documents), codec) if documents else []
    except BSONError as error:
        raise refused(error) from error


def decode(document: bytes, codec: CodecOptions[Any]) -> dict[str, Any]:
    """`decode_all` of one document."""
    return decode_all([document], codec)[0]


def keys_of(rows: Sequence[bytes], codec: CodecOptions[Any]) -> list[Any]:
    """The keys of canonical rows."""
    return [row["_id"] for row in decode_all(rows, codec)]


def output_element(value: Any) -> bytes:
    """The BSON element ``o: value``, as it ends a canonical row."""
    return encode({"o": value})[4:-1]


def as_input(value: Any) -> Any:
    """An input as a model takes it: plain Python, and a stored vector as a float32 array."""
    if type(value) in _AS_THEY_ARE:
        return value
    return vector_of(value) if is_float_vector(value) else plain(value)


def key_bytes(key: Any) -> bytes:
    """Bytes that are equal for equal keys of one collection."""
    return encode({"": key}, _ANY_UUID)


def key_identity(key: Any) -> Any:
    """What is equal for equal keys of one collection, and hashable: numbers of all kinds compare, and no others."""
    return key if isinstance(key, (str, int, float)) and not isinstance(key, bool) else key_bytes(key)


NO_KEYS = ("null", "array", "regex")
"""The BSON types, by their `$type` names, that no ``_id`` can have."""


def is_key(value: Any) -> bool:
    """Whether a document's ``_id`` can be this value."""
    return value is not None and not isinstance(value, (list, Regex, re.Pattern))


class DocumentKey(dict[str, Any]):
    """An ``_id`` that is a document, hashable as keys must be."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(key_bytes(self))


def as_key(value: Any) -> Any:
    """An ``_id`` as a hashable key; every other kind of ``_id`` is hashable as it is."""
    return DocumentKey(value) if isinstance(value, dict) else value
