"""Documents of pinnacle's own registry as values: one that somebody broke is told by its name, and takes no other with
it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bson.timestamp import Timestamp

from pinnacle.base.errors import ConfigError, PinnacleError
from pinnacle.base.rows import Fields, OutputInfo
from pinnacle.base.told import logger
from pinnacle.base.types import output_type_from_json

BROKEN = (TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError, PinnacleError)
"""What reading a value raises that pinnacle never wrote."""

log = logger(__name__)


def info_of(entry: Mapping[str, Any]) -> OutputInfo:
    """An output as its document in the registry says; ConfigError naming it where that is broken."""
    try:
        stored = entry["fields"]
        arguments = None if stored["arguments"] is None else tuple(map(text_of, stored["arguments"]))
        return OutputInfo(
            id=whole_of(entry["_id"]), table=text_of(entry["collection"]), name=text_of(entry["path"]),
            model=text_of(entry["model"]), version=whole_of(entry["version"]),
            fields=Fields(tuple(map(text_of, stored["paths"])), arguments), type=output_type_from_json(entry["type"]),
            created_column=entry["created"] is True,
        )  # fmt: skip
    except BROKEN as error:
        raise broken(f"output {entry.get('collection')}.{entry.get('path')}", error) from error


def infos_of(entries: Iterable[Mapping[str, Any]]) -> list[OutputInfo]:
    """Those outputs whose documents can be read; the others are logged."""
    found = []
    for entry in entries:
        try:
            found.append(info_of(entry))
        except ConfigError as error:
            log.warning("%s", error)
    return found


def broken(name: str, error: BaseException) -> ConfigError:
    """What is said of a record that cannot be read."""
    what = f"what pinnacle's registry says of {name} is broken"
    return ConfigError(f"{what} ({type(error).__name__}: {error}); remove it, and add it again")


def text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is stored as a {type(value).__name__}")
    return value


def whole_of(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a whole number is stored as a {type(value).__name__}")
    return value


def moment_of(value: Any) -> Any:
    """A time of the server's; None where it tells of none."""
    if not isinstance(value, (Timestamp, type(None))):
        raise TypeError(f"a time of the server is stored as a {type(value).__name__}")
    return value


def number_of(value: Any) -> float:
    """What is no number counts for nothing."""
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    return value if is_number else 0.0
