"""JSON: dicts and lists."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from pinnacle.base.types.integer import INT64
from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.storage import BsonField, PostgresColumn, SqliteColumn
from pinnacle.base.types.text import encodes

MAX_BSON_DEPTH = 90
"""Nesting that MongoDB surely accepts: it refuses documents over 100 levels deep."""


class Json(OutputType):
    """A dict or list of JSON values: str keys, finite numbers.

    Pydantic models and dataclasses are stored as their fields.
    """

    name, annotations, is_cached = "json", (dict, list), True

    def check(self, value: Any) -> Any:
        plain = value
        if hasattr(value, "model_dump") and not isinstance(value, type):
            plain = value.model_dump(mode="json")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            plain = dataclasses.asdict(value)
        if not isinstance(plain, (dict, list)):
            raise self.misfit(value, "a dict or a list is needed")
        try:
            return _plain_json(plain, "")
        except (TypeError, ValueError, RecursionError) as error:
            raise self.misfit(value, str(error)) from None

    def on_sqlite(self) -> SqliteColumn:
        import sqlalchemy as sa

        return SqliteColumn(type=sa.JSON(), strict="TEXT", adopts=(sa.JSON,))

    def on_postgres(self) -> PostgresColumn:
        import sqlalchemy as sa
        from sqlalchemy.dialects import postgresql

        return PostgresColumn(
            type=postgresql.JSONB(), adopts=(sa.JSON,), pack=_texts, cast="%b::text[]::{type}[]",
            is_hashed_as_text=True,
        )  # fmt: skip

    def on_mongodb(self) -> BsonField:
        return BsonField(types=("object", "array"), refuse=_refused_depth)


def dump_json(value: Any) -> str:
    """Compact JSON text of a checked value, keys in their own order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _texts(values: Sequence[Any], oid: int) -> list[str | None]:
    return [None if value is None else dump_json(value) for value in values]


def _plain_json(value: Any, path: str) -> Any:
    """A copy made of plain JSON types; raises TypeError or ValueError naming the path."""
    if value is None or type(value) in (str, bool):
        if isinstance(value, str) and ("\x00" in value or not encodes(value)):
            raise ValueError(f"text at {path or 'the root'} holds a NUL or a lone surrogate")
        return value
    if type(value) is int:
        if value not in INT64:
            raise ValueError(f"{value} at {path or 'the root'} does not fit 64 bits")
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{value} at {path or 'the root'} is not JSON")
        return value
    if isinstance(value, dict):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"key {key!r} at {path or 'the root'} is not a string")
            _plain_json(key, f"{path}.{key}")
        return {key: _plain_json(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{type(value).__name__} at {path or 'the root'} is not JSON")


def _refused_depth(value: Any) -> str | None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_BSON_DEPTH:
            return f"it is nested more than {MAX_BSON_DEPTH} levels deep, which MongoDB refuses"
        inner: list[Any] = []
        for item in level:
            inner.extend(item.values() if isinstance(item, dict) else item)
        level = [item for item in inner if isinstance(item, (dict, list))]
    return None
