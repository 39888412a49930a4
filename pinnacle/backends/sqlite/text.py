"""Text that is not UTF-8, which other programs store freely: read with escapes for its bytes, and bound as bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def lenient(raw: Any) -> Iterator[None]:
    """What is read meanwhile over a driver's connection has text that is not UTF-8 with escapes for its bytes."""
    strict, raw.text_factory = raw.text_factory, _decoded
    try:
        yield
    finally:
        raw.text_factory = strict


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def is_escaped(value: Any) -> bool:
    """Whether a value is text with such escapes, which the driver does not take."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def bytes_of(value: Any) -> Any:
    """Text as the bytes that it is made of; all else as it is."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def bound(row: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """The marks and the parameters of a row that the driver takes as they are not."""
    return ["CAST(? AS TEXT)" if isinstance(value, str) else "?" for value in row], [bytes_of(value) for value in row]
