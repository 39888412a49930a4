"""Outputs as BSON keeps them, and rows and inputs as the engine and models get them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions, DatetimeConversion, TypeRegistry
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.objectid import ObjectId

from pinnacle.backends.mongodb.wire.errors import NOT_BSON, refused
from pinnacle.backends.mongodb.wire.keys import set_keys
from pinnacle.backends.mongodb.wire.raw_encoding import encode_raw
from pinnacle.backends.mongodb.wire.row_bytes import elements, name_in
from pinnacle.base.document import plain
from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.types import Items, OutputType, is_float_vector, vector_of

_AS_THEY_ARE = frozenset({str, int, float, bool, type(None), bytes, datetime})

FORGIVING: dict[str, Any] = {
    "document_class": dict,
    "unicode_decode_error_handler": "surrogateescape",
    "datetime_conversion": DatetimeConversion.DATETIME_AUTO,
}
"""How text that is not UTF-8 and dates that Python has not are read: so that they are the same bytes again."""


def with_uuids(codec: CodecOptions[Any]) -> CodecOptions[Any]:
    """The user's own way to keep UUIDs; where none is chosen the standard one, so that models get UUIDs everywhere."""
    if codec.uuid_representation != UuidRepresentation.UNSPECIFIED:
        return codec
    return codec.with_options(uuid_representation=UuidRepresentation.STANDARD)


def reading_of(codec: CodecOptions[Any]) -> dict[str, Any]:
    """What of the user's way to read documents gives models other values than the usual way, as plain values."""
    told: dict[str, Any] = {}
    if codec.tz_aware:
        told["tz_aware"] = str(codec.tzinfo or UTC)
    if codec.uuid_representation != UuidRepresentation.STANDARD:
        told["uuidRepresentation"] = codec.uuid_representation
    if codec.type_registry != TypeRegistry():
        made = (f"{decode.__module__}:{decode.__qualname__}" for decode in codec.type_registry._decoder_map.values())
        told["type_registry"] = sorted(made)
    return told


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
    except NOT_BSON as error:
        raise refused(error) from error


def encode_with_key(document: Mapping[str, Any], codec: CodecOptions[Any]) -> bytes:
    """The same of a document with keys in it, which may be no text that BSON has."""
    try:
        return bson.encode(document, codec_options=codec)
    except UnicodeError:
        return encode_raw(document, codec)


def decode(document: bytes, codec: CodecOptions[Any]) -> dict[str, Any]:
    """A document of its bytes; RowRejected for bytes that are none."""
    try:
        found: dict[str, Any] = bson.decode(document, codec)
    except BSONError as error:
        raise refused(error) from error
    return found


def decode_keyed(
    rows: Sequence[bytes], codec: CodecOptions[Any], name: str = "_id", *, spare: str = ""
) -> tuple[list[dict[str, Any]], dict[int, Exception]]:
    """Documents of their bytes, with keys of what they have under ``name``.

    What cannot be decoded is left out, and its error told with the document's position. A key stands for itself as it
    is stored, and None for what is under ``spare``.
    """
    errors: dict[int, Exception] = {}
    try:
        documents: list[dict[str, Any]] = bson.decode_all(b"".join(rows), codec) if rows else []
    except Exception:  # of any of them: it is looked for row by row
        documents = [_decoded(row, codec, (name, spare), position, errors) for position, row in enumerate(rows)]
    set_keys(documents, rows, codec, name)
    return documents, errors


def _decoded(
    row: bytes, codec: CodecOptions[Any], excused: Sequence[str], position: int, errors: dict[int, Exception]
) -> dict[str, Any]:
    """One document, value by value."""
    found: dict[str, Any] = {}
    for element in elements(row):
        try:
            found |= bson.decode(element, codec)
        except Exception as error:  # whatever the driver makes of it, or Python's limits
            if (name := name_in(element).decode("utf-8", "surrogateescape")) in excused:
                found[name] = None
            else:
                errors[position] = error
    return found


def keys_of(rows: Sequence[bytes], codec: CodecOptions[Any]) -> list[Any]:
    """The keys of canonical rows."""
    return [row["_id"] for row in decode_keyed(rows, codec)[0]]


def output_element(value: Any) -> bytes:
    """The BSON element ``o: value``, as it ends a canonical row."""
    return encode({"o": value})[4:-1]


def as_input(value: Any) -> Any:
    """An input as a model takes it: plain Python, and a stored vector as a float32 array."""
    if type(value) in _AS_THEY_ARE:
        return value
    return vector_of(value) if is_float_vector(value) else plain(value)
