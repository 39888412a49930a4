"""Takes one field out of a JSON value: what spreads a structured answer over several columns."""

from __future__ import annotations

import dataclasses
from typing import Any

from pinnacle.base.errors import ConfigError
from pinnacle.base.types import Boolean, Float, Integer, Json, OutputType, Text
from pinnacle.components.json_schema import ANY, kinds_of, properties_of
from pinnacle.components.model import Model


@dataclasses.dataclass
class FieldOf(Model):
    """The value of ``field`` in a dict; None where it has none. Costs nothing but reading."""

    _: dataclasses.KW_ONLY
    field: str

    def predict_one(self, value: Any) -> Any:
        found = value.get(self.field) if isinstance(value, dict) else None
        if isinstance(self.output_type, Float) and isinstance(found, int) and not isinstance(found, bool):
            return float(found)
        if isinstance(self.output_type, Integer) and isinstance(found, float) and found.is_integer():
            return int(found)  # 3.0 is an integer to JSON Schema
        return found


def column_type(schema: Any, field: str) -> OutputType:
    """The type of the column that a schema's property fills: text, a number, a boolean, or JSON for objects and lists.

    ConfigError for a property whose values no column holds all of.
    """
    kinds = kinds_of(properties_of(schema).get(field), schema) - {"null"}
    for held, made in _TYPES:
        if kinds <= held:
            return made()
    told = "of any type" if ANY in kinds else f"of several types ({', '.join(sorted(kinds))})"
    raise ConfigError(
        f"the field {field!r} has values {told}, and no column holds them all: give it one type, or read it from the "
        "column of the whole answer"
    )


_TYPES: tuple[tuple[frozenset[str], type[OutputType]], ...] = (
    (frozenset({"string"}), Text),
    (frozenset({"integer"}), Integer),
    (frozenset({"integer", "number"}), Float),
    (frozenset({"boolean"}), Boolean),
    (frozenset({"object", "array"}), Json),
)
