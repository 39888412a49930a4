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
    declared = _followed(properties.get(field, {}), schema)
    options = [_followed(option, schema) for option in declared.get("anyOf", [declared])]
    kinds = {_kind(option) for option in options} - {"null"}
    return _TYPES.get(kinds.pop(), Json)() if len(kinds) == 1 else Json()


def _followed(declared: Any, schema: Any) -> Any:
    """What a reference within a schema leads to; a schema of one reference is that."""
    alone = declared.get("allOf", [None])
    if len(alone) == 1 and alone[0]:
        declared = alone[0]
    _, _, name = declared.get("$ref", "").rpartition("/")
    return schema.get("$defs", schema.get("definitions", {})).get(name, declared) if name else declared


def _kind(declared: Any) -> str:
    """The JSON type that a schema names, or that all its constants have."""
    if isinstance(declared.get("type"), str):
        return str(declared["type"])
    constants = declared.get("enum", [declared["const"]] if "const" in declared else [])
    kinds = {_NAMES.get(type(constant), "") for constant in constants}
    return kinds.pop() if len(kinds) == 1 else ""


_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_TYPES: dict[str, type[OutputType]] = {"string": Text, "integer": Integer, "number": Float, "boolean": Boolean}
