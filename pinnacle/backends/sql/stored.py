"""Selects at rest: a resolved query as JSON, and back, without any code from the database.

What is kept is the table's name, the condition as a tree with its parameters apart as plain values, which of the
table's columns the condition reads, and how columns are read that the user's class or table declares otherwise than
the database. No SQL text is kept, and none that is found is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from pinnacle.backends.sql.conditions.grammar import MAX_PARAMETERS
from pinnacle.backends.sql.conditions.names import ReflectedTables, Scope, check_open, quoted_name
from pinnacle.backends.sql.conditions.parsing import check_volatile, parse
from pinnacle.backends.sql.conditions.rendering import render
from pinnacle.backends.sql.conditions.tokens import same_words
from pinnacle.backends.sql.readings import Reading
from pinnacle.backends.sql.source import (
    USUAL_SCHEMAS,
    KnownTypes,
    SqlSource,
    key_tuple,
    named_source,
    place_schema,
    usual_schema,
)
from pinnacle.base.errors import ComponentError, UnsupportedQuery
from pinnacle.base.rows import Fields
from pinnacle.base.types import dump_json

PLAIN = frozenset({bool, int, float, str, bytes, Decimal, datetime, date, time, timedelta, UUID})
REMEDY = (
    "say it with the functions and operators that docs/guide/listeners.md lists, or keep it in a column of the table, "
    "which may be a generated one, and compare with that"
)

_PLACEHOLDER = re.compile(r"%%|%\((?P<name>.+?)\)s|:")


def freeze(connection: sa.Connection, source: SqlSource, *, limited: bool = False) -> dict[str, Any]:
    """``source`` as plain values. UnsupportedQuery for what no tree is made of, and for one that depends on how many
    rows there are, unless ``limited`` ones are meant too."""
    if source.is_limited and not limited:
        raise UnsupportedQuery(
            "a listener keeps all rows that meet a condition; a select with LIMIT or OFFSET means other rows whenever "
            "the data changes. Leave it out, or say which rows in the WHERE"
        )
    stored = freeze_rows(place_schema(source.actual) or None, source.actual.name, stored_readings(source))
    condition = _condition(source)
    if condition is None:
        return stored
    text, parameters = _text_of(condition, connection.dialect)
    try:
        tree = parse(text, folds=_folds(connection))
        if isinstance(grouped := tree.get("group"), list) and len(grouped) == 1:
            tree = grouped[0]  # in parentheses, as it comes back
        else:
            text = f"({text})"
        again = _rendered(connection, tree, stored["schema"], stored["table"], parameters)
        check_volatile(tree, limited=limited)
    except (UnsupportedQuery, ComponentError) as error:
        raise UnsupportedQuery(f"{error}; {REMEDY}") from error
    if not same_words(text, again, folds=_folds(connection)):
        raise UnsupportedQuery(f"the select cannot be stored: it would come back as {again[:200]!r}; {REMEDY}")
    return stored | {"where": tree, "parameters": parameters, "reads": sorted(map(str, _reads(source)))}


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

    ComponentError where the select is none that `freeze` makes, or its inputs are read by code of the user's that this
    process has not imported.
    """
    schema, table, where = stored.get("schema"), stored.get("table"), stored.get("where")
    parameters, readings, reads = (stored.get(name) or {} for name in ("parameters", "readings", "reads"))
    if not isinstance(table, str) or not isinstance(schema, (str, type(None))):
        raise ComponentError("what is stored of its select names no table")
    if not isinstance(readings, Mapping) or not isinstance(reads or [], list):
        raise ComponentError("what is stored of its select does not say which columns it reads, and how")
    check_open(schema, table)
    condition = None if where is None else _thawed(connection, where, schema, table, parameters)
    kept = {str(name): Reading.of(reading) for name, reading in readings.items()}
    source = named_source(connection, table, schema, fields, known, condition, kept)
    if unknown := [name for name in reads if name not in source.actual.c]:
        raise ComponentError(f"its select reads columns that {table!r} has not: {', '.join(map(repr, unknown))}")
    return source


def _thawed(connection: sa.Connection, where: Any, schema: str | None, table: str, parameters: Any) -> Any:
    """A stored condition, ready to be run; one that was stored as text by an earlier pinnacle is made a tree first."""
    if not isinstance(parameters, Mapping) or len(parameters) > MAX_PARAMETERS:
        raise ComponentError("its select has parameters of no known form")
    for name, value in parameters.items():
        if not _is_plain_value(value):
            raise ComponentError(f"parameter {name!r} of its select is a {type(value).__name__}, which is never stored")
    if isinstance(where, str):
        try:
            where = parse(where, folds=_folds(connection))
        except UnsupportedQuery as error:
            raise ComponentError(
                f"its select was stored as text by an earlier pinnacle, and {error}. Add it again from the program "
                "that declares it"
            ) from error
    text = _rendered(connection, where, schema, table, parameters)
    binds = [sa.bindparam(name, value, type_=sa.types.NullType()) for name, value in parameters.items()]
    return sa.text(text).bindparams(*binds)


def _rendered(
    connection: sa.Connection, tree: Any, schema: str | None, table: str, parameters: Mapping[str, Any]
) -> str:  # fmt: skip
    """A condition on a table, as ``sa.text`` takes it, after a look at all that it names."""
    found = schema or usual_schema(connection, table)
    tables, scope = ReflectedTables(connection, quoted_name(found, table)), Scope(folds=_folds(connection))
    with scope.inside({}):
        scope.add(table, tables.columns(found, table), found or USUAL_SCHEMAS.get(connection.dialect.name))
        return render(tree, quote=_quoting(connection.dialect), scope=scope, tables=tables, parameters=parameters)


def _quoting(dialect: sa.Dialect) -> Callable[[str], str]:
    quote = dialect.identifier_preparer.quote

    def quoted(name: str) -> str:
        return name if quote(name) == name else '"' + name.replace('"', '""') + '"'

    return quoted


def _folds(connection: sa.Connection) -> bool:
    """Whether names without quotes are of lower case, and those of another case are others."""
    return connection.dialect.name == "postgresql"


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
    expanded = compiled._post_compile_expanded_state
    for name, process in {**compiled._bind_processors, **(expanded.processors if expanded else {})}.items():
        if name in values and name in compiled.binds and isinstance(compiled.binds[name].type, sa.JSON):
            values[name] = dump_json(values[name])  # a driver may have a wrapper for it
        elif name in values:
            values[name] = process(values[name])
    for name, value in values.items():
        if not _is_plain_value(value):
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


def _is_plain_value(value: Any) -> bool:
    """Whether it is what a driver takes for a value, and a list or tuple of such."""
    if type(value) in (list, tuple):
        return all(map(_is_plain_value, value))
    return value is None or type(value) in PLAIN


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
