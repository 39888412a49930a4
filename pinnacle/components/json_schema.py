"""What a JSON Schema says of itself: where its references lead, and of which kinds a value may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from pinnacle.base.errors import ConfigError

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
"""Their values are schemas by names of the user's own."""

DATA = frozenset({"enum", "const", "default", "examples", "example", "required"})
ANY = "any"


def refuse_foreign_references(schema: Any) -> None:
    """ConfigError for a reference to anything but the schema itself, or to what it does not hold.

    Nothing is fetched for a schema, and no file is read.
    """
    names = {text for part in _parts(schema) for name in ("$anchor", "$dynamicAnchor") if (text := part.get(name))}
    is_nested = any(isinstance(part.get("$id", part.get("id")), str) and part is not schema for part in _parts(schema))
    targets = [(word, part[word]) for part in _parts(schema) for word in REFERENCES if isinstance(part.get(word), str)]
    for word, target in targets:
        if not target.startswith("#"):
            raise ConfigError(
                f"output_schema has {word} to {target!r}: a schema may refer to its own parts alone "
                "('#/$defs/...'), for nothing is fetched; put what it refers to into $defs"
            )
        if not is_nested and target[1:] not in names and at_pointer(schema, target) is None:
            raise ConfigError(f"output_schema has {word} to {target!r}, which it does not hold")


def at_pointer(schema: Any, pointer: str) -> Any:
    """The part of a schema that ``#/a/b`` leads to; None where there is none."""
    found = schema
    for step in pointer.removeprefix("#").split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping) and name in found:
            found = found[name]
        else:
            return None
    return found if pointer in ("#", "") or pointer.startswith("#/") else None


def properties_of(schema: Any) -> Mapping[str, Any]:
    """The properties of the objects that fit a schema, also where it is a reference to one of its parts."""
    followed: set[str] = set()
    while isinstance(schema, Mapping) and isinstance(target := schema.get("$ref"), str) and target not in followed:
        followed.add(target)
        schema = {**(at_pointer(schema, target) or {}), "$defs": schema.get("$defs", {})}
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def kinds_of(declared: Any, schema: Any, followed: frozenset[str] = frozenset()) -> frozenset[str]:
    """The JSON types that a value may have, such as "string" or "null"; with `ANY` where a part leaves it open."""
    if not isinstance(declared, Mapping):
        return frozenset({ANY})
    target = declared.get("$ref")
    if isinstance(target, str):
        is_new = target not in followed
        return kinds_of(at_pointer(schema, target), schema, followed | {target}) if is_new else frozenset()
    if (named := declared.get("type")) is not None:
        return frozenset(named if isinstance(named, list) else [named])
    if "enum" in declared or "const" in declared:
        constants = declared.get("enum", [declared.get("const")])
        return frozenset(_NAMES.get(type(constant), ANY) for constant in constants)
    for word in ("anyOf", "oneOf"):
        if isinstance(declared.get(word), list):
            return frozenset().union(*(kinds_of(option, schema, followed) for option in declared[word]))
    if isinstance(declared.get("allOf"), list):
        told = [kinds - {ANY} for option in declared["allOf"] if (kinds := kinds_of(option, schema, followed)) != {ANY}]
        return frozenset.intersection(*told) if told else frozenset({ANY})
    return frozenset({ANY})


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """The schema and all schemas within it, and no data that looks like one."""
    waiting = [schema]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Mapping):
            yield current
        waiting += _within(current)


def _within(schema: Any) -> list[Any]:
    """What may be schemas, or hold some, directly within one."""
    if isinstance(schema, list | tuple):
        return list(schema)
    found: list[Any] = []
    for name, value in schema.items() if isinstance(schema, Mapping) else ():
        if name in BY_NAME and isinstance(value, Mapping):
            found += value.values()
        elif name not in DATA:
            found.append(value)
    return found


_NAMES = {
    str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", dict: "object", list: "array"
}  # fmt: skip
