"""Rows of pinnacle's own tables as values: one that somebody broke is told by its name, and takes no other with it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.source import full_name
from pinnacle.base.encoding import load_key
from pinnacle.base.errors import ConfigError, PinnacleError
from pinnacle.base.listeners import ListenerRecord
from pinnacle.base.rows import Fields, Key, OutputInfo, RowError
from pinnacle.base.told import logger
from pinnacle.base.types import Items, output_type_from_json
from pinnacle.base.usage import UsageRow

BROKEN = (TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError, PinnacleError)
"""What reading a value raises that pinnacle never wrote."""

log = logger(__name__)


def output_info(row: Any) -> OutputInfo:
    """An output as its row in the registry says; ConfigError naming it where that is broken."""
    table = full_name(str(row.table_schema), str(row.table_name))
    try:
        return OutputInfo(
            id=_whole(row.id), table=table, name=_text(row.name), model=_text(row.model), version=_whole(row.version),
            fields=Fields.of(json.loads(row.fields)), type=output_type_from_json(json.loads(row.type)),
            created_column=row.created_column,
        )  # fmt: skip
    except BROKEN as error:
        raise broken(f"output {table}.{row.name}", error) from error


def output_infos(rows: Iterable[Any]) -> list[OutputInfo]:
    """Those outputs whose rows can be read; the others are logged."""
    found = []
    for row in rows:
        try:
            found.append(output_info(row))
        except ConfigError as error:
            log.warning("%s", error)
    return found


def listener_record(row: Any) -> ListenerRecord:
    """A listener as its row in the registry says, with its output's columns; paused, by its reason, where that is
    broken."""
    table, paused = full_name(str(row.table_schema), str(row.table_name)), _optional(row.paused)
    fields, side, reads = Fields.of("?"), None, tuple[str, ...]()
    try:
        fields, reads = Fields.of(json.loads(row.fields)), tuple(map(_text, json.loads(row.shape)))
        _whole(row.version), _text(row.identifier), _text(row.name)
        is_side = isinstance(output_type_from_json(json.loads(row.type)), Items)
        side = full_name(str(row.table_schema), row.name) if is_side else None
    except BROKEN as error:
        paused = str(broken(f"listener {row.identifier}", error))
    return ListenerRecord(
        output=row.output_id, identifier=str(row.identifier),
        version=row.version if isinstance(row.version, int) else -1, table=table, column=str(row.name), fields=fields,
        reads=reads, paused=paused, sweep=_optional(row.sweep), swept_at=_number(row.swept_at),
        folded_at=_number(row.folded_at), processed=int(_number(row.processed)), error=_optional(row.error),
        error_at=None if row.error_at is None else _number(row.error_at), side=side,
    )  # fmt: skip


def row_error(row: Any) -> RowError:
    """A row that was set aside; one whose key is broken has the text of it for a key."""
    try:
        key = load_key(row.key)
    except BROKEN:
        key = str(row.key)
    return RowError(
        output=".".join(str(part) for part in (row.table_schema, row.table_name, row.name) if part), key=key,
        model=str(row.model), version=row.version, error=str(row.error), message=str(row.message),
        traceback=str(row.traceback), attempts=row.attempts, failed_at=_moment(row.failed_at),
    )  # fmt: skip


def usage_row(row: sa.RowMapping) -> UsageRow:
    """What a model cost on a day; what is no number counts for nothing."""
    texts = {name: str(row[name]) for name in ("day", "model", "output")}
    numbers = {name: _number(value) for name, value in row.items() if name not in texts}
    return UsageRow(**texts, **numbers)  # type: ignore[arg-type]


def readable_keys(texts: Iterable[str]) -> list[Key]:
    """The keys of rows; what is none is left out."""
    found = []
    for text in texts:
        with contextlib.suppress(*BROKEN):
            found.append(load_key(text))
    return found


def broken(name: str, error: BaseException) -> ConfigError:
    """What is said of a record that cannot be read."""
    what = f"what pinnacle's registry says of {name} is broken"
    return ConfigError(f"{what} ({type(error).__name__}: {error}); remove it, and add it again")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is stored as a {type(value).__name__}")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a whole number is stored as a {type(value).__name__}")
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    return value if is_number else 0.0


def _moment(value: Any) -> datetime:
    try:
        return datetime.fromtimestamp(_number(value), UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
