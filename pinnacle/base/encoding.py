"""Canonical forms: fingerprints of values, keys as JSON text, safe output names."""

from __future__ import annotations

import base64
import ipaddress
import json
import uuid
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from pinnacle.base.errors import UnsupportedTable
from pinnacle.base.rows import UnreadableKey

MAX_NAME_BYTES = 63
"""PostgreSQL's limit on identifiers, kept everywhere so that names are portable."""


def tag(value: Any) -> str:
    """A string that is equal for two scalars exactly when type and value are equal.

    Self-delimiting, so that tags may be joined. Takes what SQLite stores: None, str,
    int, float, bytes.
    """
    kind = type(value)
    if kind is str:
        return f"s{len(value)}:{value}"
    if value is None:
        return "n"
    if kind is int:
        return f"i{value};"
    if kind is float:
        return f"f{(value + 0.0).hex()};"  # SQLite keeps -0.0 as 0.0
    if isinstance(value, (bytes, memoryview)):
        return f"b{len(value)}:{bytes(value).decode('latin-1')}"
    raise TypeError(f"no canonical form for {kind.__name__}")


def digest(text: str) -> bytes:
    """The 16-byte hash of a tagged string."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def fingerprint(values: Sequence[Any]) -> bytes:
    """One row's 16-byte fingerprint: of its output, then its inputs.

    The last value, if it is text, is written without its length: it is the rest.
    """
    *first, last = values
    return digest("".join(map(tag, first)) + (f"s{last}" if type(last) is str else tag(last)))


def fingerprints(*columns: Sequence[Any]) -> list[bytes]:
    """`fingerprint` of each row, the values given column by column.

    The usual case, an output and one text input, is written out: it is the hot loop of a
    bulk predict.
    """
    if len(columns) != 2 or set(map(type, columns[1])) != {str}:
        return list(map(fingerprint, zip(*columns, strict=True)))
    outputs, inputs = columns
    kinds = set(map(type, outputs))
    if kinds == {str}:
        texts = [f"s{len(o)}:{o}s{x}" for o, x in zip(outputs, inputs, strict=True)]
    elif kinds == {int}:
        texts = [f"i{o};s{x}" for o, x in zip(outputs, inputs, strict=True)]
    else:
        texts = [f"{tag(o)}s{x}" for o, x in zip(outputs, inputs, strict=True)]
    new, found = blake2b(digest_size=16).copy, []
    try:
        for text in texts:
            state = new()
            state.update(text.encode())
            found.append(state.digest())
    except UnicodeEncodeError:  # lone surrogates, which stand for bytes that are not UTF-8
        return list(map(digest, texts))
    return found


_KEY_WRITERS: tuple[tuple[type, str, Callable[[Any], str]], ...] = (
    (uuid.UUID, "uuid", str),
    (datetime, "datetime", datetime.isoformat),
    (date, "date", date.isoformat),
    (time, "time", time.isoformat),
    (Decimal, "decimal", str),
    (timedelta, "timedelta", lambda d: f"{d.days} {d.seconds} {d.microseconds}"),
    (ipaddress.IPv4Network, "ip_network", str),
    (ipaddress.IPv6Network, "ip_network", str),
    (ipaddress.IPv4Interface, "ip_interface", str),
    (ipaddress.IPv6Interface, "ip_interface", str),
    (ipaddress.IPv4Address, "ip", str),
    (ipaddress.IPv6Address, "ip", str),
    (bytes, "bytes", lambda b: base64.b64encode(b).decode()),
)
_KEY_READERS: dict[str, Callable[[str], Any]] = {
    "uuid": uuid.UUID,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "timedelta": lambda text: timedelta(*map(int, text.split())),
    "ip": ipaddress.ip_address,
    "ip_interface": ipaddress.ip_interface,
    "ip_network": ipaddress.ip_network,
    "bytes": base64.b64decode,
    "unreadable": UnreadableKey,
}


def identity_digest(identity: Any, *, key: bytes = b"") -> bytes:
    """An input's identity, as pages have it, by 16 bytes that are the same in every process."""
    told = identity.encode("utf-8", "surrogatepass") if isinstance(identity, str) else repr(identity).encode()
    return blake2b(told, digest_size=16, key=key).digest()


def dump_key(key: Any) -> str:
    """A row's key, scalar or tuple, as JSON text; equal keys give equal text."""
    if type(key) is int:
        return str(key)
    text = json.dumps(_plain_key(key), ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates, which stand for bytes that are not UTF-8
        return json.dumps(_plain_key(key), separators=(",", ":"))
    return text


def dump_keys(keys: Sequence[Any]) -> str:
    """Many keys as one JSON array; a range of integers as its ends."""
    if set(map(type, keys)) == {int}:
        if keys[-1] - keys[0] == len(keys) - 1 and list(keys) == list(range(keys[0], keys[-1] + 1)):
            return json.dumps({"from": keys[0], "to": keys[-1]})
        return json.dumps(keys, separators=(",", ":"))
    return "[" + ",".join(map(dump_key, keys)) + "]"


def load_key(text: str) -> Any:
    """The inverse of `dump_key`."""
    return _rich_key(json.loads(text))


def load_keys(text: str) -> list[Any]:
    """The inverse of `dump_keys`."""
    stored = json.loads(text)
    if isinstance(stored, dict):
        return list(range(stored["from"], stored["to"] + 1))
    return [_rich_key(key) for key in stored]


def _plain_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return [_plain_key(part) for part in key]
    if isinstance(key, UnreadableKey):
        return {"unreadable": str(key)}
    if key is None or isinstance(key, (str, int, float)):
        return key
    if isinstance(key, memoryview):
        key = bytes(key)
    for kind, name, write in _KEY_WRITERS:
        if isinstance(key, kind):
            return {name: write(key)}
    raise UnsupportedTable(f"keys of type {type(key).__name__} cannot be used; give the table a simpler primary key")


def _rich_key(stored: Any) -> Any:
    if isinstance(stored, list):
        return tuple(_rich_key(part) for part in stored)
    if isinstance(stored, dict):
        ((name, text),) = stored.items()
        return _KEY_READERS[name](text)
    return stored


def safe_name(name: str) -> str:
    """``name`` if it fits a database identifier, else cut and ended with a hash of the whole.

    NUL cannot be in an identifier and counts as an underscore; everything else is quoted.
    """
    name = name.replace("\x00", "_")
    if len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES:
        return name
    suffix = "_" + blake2b(name.encode("utf-8", "replace"), digest_size=5).hexdigest()
    cut = name.encode("utf-8", "replace")[: MAX_NAME_BYTES - len(suffix)].decode("utf-8", "ignore")
    return cut + suffix
