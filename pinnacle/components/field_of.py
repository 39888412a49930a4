"""Takes one field out of a JSON value: what spreads a structured answer over several columns."""

from __future__ import annotations

import dataclasses
from typing import Any

from pinnacle.base.types import Boolean, Float, Integer, Json, OutputType, Text
from pinnacle.components.model import Model


@dataclasses.dataclass
class FieldOf(Model):
    """The value of ``field`` in a dict; None where it has none. Costs nothing but reading."""

    _: dataclasses.KW_ONLY
    field: str

    def predict_one(self, value: Any) -> Any:
        found = value.get(self.field) if isinstance(value, dict) else None
        return float(found) if isinstance(self.output_type, Float) and isinstance(found, int) else found


def column_type(schema: Any, field: str) -> OutputType:
    """The type of the column that a schema's property fills: text, a number or a boolean; JSON for all else."""
    properties = schema.get("properties", {})
    declared = properties.get(field, {})
    kinds = [option.get("type") for option in declared.get("anyOf", [declared]) if option.get("type") != "null"]
    kind = kinds[0] if len(kinds) == 1 else None
    return _TYPES.get(kind, Json)() if isinstance(kind, str) else Json()


_TYPES: dict[str, type[OutputType]] = {"string": Text, "integer": Integer, "number": Float, "boolean": Boolean}
