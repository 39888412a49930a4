"""Selects at rest: a resolved query as JSON, and back, without any code from the database.

What is kept is the table's name, the condition as SQL text with its parameters apart as
plain values, which of the table's columns the condition reads, and how columns are read that
the user's class or table declares otherwise than the database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.readings import Reading
from pinnacle.backends.sql.source import KnownTypes, SqlSource, key_tuple, named_source, place_schema
from pinnacle.base.errors import ComponentError, UnsupportedQuery
from pinnacle.base.rows import Fields
from pinnacle.base.types import dump_json

_PLACEHOLDER = re.compile(r"%%|%\((?P<name>.+?)\)s|:")


def freeze(source: SqlSource, dialect: sa.Dialect, *, limited: bool = False) -> dict[str, Any]:
    """``source`` as plain values. UnsupportedQuery for one that depends on how many rows there are, unless ``limited``
    ones are meant too."""
    if source.is_limited and not limited:
        raise UnsupportedQuery(
            "a listener keeps all rows that meet a condition; a select with LIMIT or OFFSET means other rows whenever "
            "the data changes. Leave it out, or say which rows in the WHERE"
        )
    stored = freeze_rows(place_schema(source.actual) or None, source.actual.name, stored_readings(source))
    condition = _condition(source)
    if condition is not None:
        text, parameters = _text_of(condition, dialect)
        stored |= {"where": text, "parameters": parameters, "reads": sorted(map(str, _reads(source)))}
    return stored


def freeze_rows(schema: str | None, table: str, readings: Mapping[str, Any]) -> dict[str, Any]:
    """All rows of a table as plain values, with readings as `stored_readings` gives them."""
    stored: dict[str, Any] = {"schema": schema and str(schema), "table": str(table), "where": None}
    return stored | {"readings": dict(readings)} if readings else stored


def stored_readings(source: SqlSource) -> dict[str, Any]:
    """How columns are read, as plain values."""
    return {name: reading.to_json() for name, reading in sorted(source.readings.items())}


def read_by(parameters: str, source: SqlSource) -> str:
    """A prediction's ``parameters`` with how its inputs are read, as other values of a column make other outputs."""
    readings = [source.readings.get(str(column.name)) for column in source.inputs]
    altered = [None if reading is None or not reading.alters else reading.identity for reading in readings]
    if altered.count(None) == len(altered):
        return parameters
    text = json.dumps([parameters, altered])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def thaw(connection: sa.Connection, stored: Mapping[str, Any], fields: Fields, known: KnownTypes) -> SqlSource:
    """The source that `freeze` was given, on the table as it is now.

    ComponentError where its inputs are read by code of the user's that this process has not imported.
    """
    condition = None
    if stored["where"] is not None:
        binds = [sa.bindparam(name, value, type_=sa.types.NullType()) for name, value in stored["parameters"].items()]
        condition = sa.text(stored["where"]).bindparams(*binds)
    readings = {name: Reading.of(kept) for name, kept in stored.get("readings", {}).items()}
    return named_source(connection, stored["table"], stored["schema"], fields, known, condition, readings)


def _condition(source: SqlSource) -> Any:
    if source.subquery is not None:
        return key_tuple(source.key).in_(source.subquery)
    if source.where is not None and any(isinstance(part, sa.SelectBase) for part in _parts(source.where)):
        # Only inside its own SELECT does a subquery know which tables are the outer query's.
        return key_tuple(source.key).in_(sa.select(*source.key).select_from(source.base).where(source.where))
    return source.where


def _text_of(condition: Any, dialect: sa.Dialect) -> tuple[str, dict[str, Any]]:
    """The condition as text for ``sa.text``, and its parameters as the driver takes them."""
    named: Any = type(dialect)
    compiled = condition.compile(dialect=named(paramstyle="pyformat"), compile_kwargs={"render_postcompile": True})
    values = dict(compiled.params)
    for name, process in compiled._bind_processors.items():
        if name in values and isinstance(compiled.binds[name].type, sa.JSON):
            values[name] = dump_json(values[name])  # a driver may have a wrapper for it
        elif name in values:
            values[name] = process(values[name])
    for name, value in values.items():
        if type(value).__module__ not in ("builtins", "datetime", "decimal", "uuid"):
            raise ComponentError(
                f"the select compares with a {type(value).__name__} (parameter {name!r}), which cannot be stored; "
                "compare with a plain value"
            )

    # By numbers: SQLAlchemy makes a parameter's name of its column's, which may hold anything.
    numbered = {compiled.escaped_bind_names.get(name, name): f"p{i}" for i, name in enumerate(values)}

    def replaced(match: re.Match[str]) -> str:
        name = match.group("name")
        if name is not None:
            return f":{numbered[name]}"
        return "%" if match.group() == "%%" else "\\:"

    return _PLACEHOLDER.sub(replaced, compiled.string), dict(zip(numbered.values(), values.values(), strict=True))


def _reads(source: SqlSource) -> set[str]:
    """The columns of the source's own table that its condition reads; those that its texts name."""
    query = source.subquery if source.subquery is not None else source.where
    own = set(source.actual.c.keys())
    found: set[str] = set()
    for part in _parts(query):
        if isinstance(part, sa.TextClause):
            found |= {name for name in own if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", part.text)}
        elif isinstance(part, sa.sql.expression.ColumnClause) and part.name in own and _is_on(part, source):
            found.add(part.name)
    return found


def _is_on(column: Any, source: SqlSource) -> bool:
    table = column.table
    while isinstance(table, sa.Alias):
        table = table.element
    return table is None or getattr(table, "name", None) == source.actual.name


def _parts(query: Any) -> list[Any]:
    return list(sa.sql.visitors.iterate(query))
