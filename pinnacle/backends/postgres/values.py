"""Values that psycopg or Python cannot take, as PostgreSQL writes them: the rest of their page is had all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pinnacle.backends.postgres.statements import Kind
from pinnacle.backends.sql.inputs import Patched, Undecoded
from pinnacle.base.rows import Key, UnreadableKey

MAY_BE_NAN = ("numeric", "real", "double precision")
INTERVAL_OID = 1186


class RowReader:
    """Fetches rows of a key and inputs of these kinds."""

    def __init__(self, key: Sequence[Kind], inputs: Sequence[Kind]) -> None:
        self._width = len(key)
        self._has_intervals = any(kind.bare == "interval" for kind in (*key, *inputs))
        self._may_be_nan = any(kind.bare.startswith(MAY_BE_NAN) for kind in key)

    def fetch(self, cursor: Any) -> list[Any]:
        """All rows of a cursor's result."""
        if self._has_intervals:
            return self._patched(cursor)
        try:
            return list(cursor.fetchall())
        except Exception:  # of a loader, on one value at least: each row is loaded alone
            return self._patched(cursor)

    def exact(self, keys: list[Key]) -> list[Key]:
        """The keys, with NaN, which equals nothing in Python and itself in PostgreSQL, as text."""
        if not self._may_be_nan:
            return keys
        if self._width == 1:
            return [key if key == key else UnreadableKey("NaN") for key in keys]
        return [tuple(part if part == part else UnreadableKey("NaN") for part in key) for key in keys]

    def _patched(self, cursor: Any) -> Patched:
        from psycopg.adapt import Transformer

        result, transformer = cursor.pgresult, Transformer(cursor)
        transformer.set_pgresult(result)
        rows = Patched()
        for number in range(result.ntuples):
            try:
                row = transformer.load_row(number, tuple)
            except Exception:  # of a loader: which value it is shows below
                row = None
            if row is None or self._has_intervals:
                row = tuple(self._value(transformer, result, number, column) for column in range(result.nfields))
            rows.append(row)
        return rows

    def _value(self, transformer: Any, result: Any, row: int, column: int) -> Any:
        found = result.get_value(row, column)
        if found is None:
            return None
        is_key = column < self._width
        try:
            if result.ftype(column) == INTERVAL_OID:
                _require_timedelta(_text(found), is_key=is_key)
            return transformer.get_loader(result.ftype(column), result.fformat(column)).load(found)
        except Exception as error:  # the unit of work: one value, whose row is set aside
            return UnreadableKey(_text(found)) if is_key else Undecoded(_text(found), error)


def _require_timedelta(text: str, *, is_key: bool) -> None:
    """ValueError for an interval that a timedelta is not: psycopg makes 0 of infinity, and 30 days of a month, which as
    a key finds no row of a year again."""
    if "infinity" in text or (is_key and ("mon" in text or "year" in text)):
        raise ValueError(f"no timedelta is the interval {text!r}")


def _text(value: bytes | bytearray | memoryview) -> str:
    return bytes(value).decode("utf-8", "surrogateescape")


def key_columns(keys: Sequence[Key], width: int) -> list[list[Any]]:
    """Keys column by column, as parameters that become arrays: of one type each, and where they differ as text."""
    columns = [list(keys)] if width == 1 else [list(column) for column in zip(*keys, strict=True)] or [[]] * width
    return [_alike(column) for column in columns]


def _alike(values: list[Any]) -> list[Any]:
    if len(set(map(type, values))) <= 1:
        return values
    from psycopg.adapt import PyFormat, Transformer

    transformer = Transformer()
    return [
        value if isinstance(value, str) else _text(transformer.get_dumper(value, PyFormat.TEXT).dump(value) or b"")
        for value in values
    ]
