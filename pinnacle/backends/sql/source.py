"""Turns the user's ``select()`` and field names into keyed rows of one table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects.postgresql.ranges import AbstractRange
from sqlalchemy.sql import ColumnElement

from pinnacle.backends.protocol import Source
from pinnacle.backends.sql.columns import SqlColumns
from pinnacle.backends.sql.readings import Readings, Type, declared_by, different, place_of, type_for
from pinnacle.base.encoding import dump_key
from pinnacle.base.errors import UnknownField, UnsupportedQuery, UnsupportedTable
from pinnacle.base.near import did_you_mean
from pinnacle.base.refusals import of_another_database
from pinnacle.base.rows import Fields

MANY_VALUED = (sa.ARRAY, sa.JSON, AbstractRange)
"""Types that are no keys: their values have parts, and Python's form of them cannot be looked up."""

ColumnTypes = Mapping[str, Type]
Steps = tuple[str, ...]


@dataclass(frozen=True)
class KnownTypes:
    """What is known of columns beside their declarations: the database's types, and ``outputs``, the types of those of
    a table's columns that are outputs, which say what a BLOB holds."""

    columns: SqlColumns
    outputs: Callable[[sa.Table], ColumnTypes]

    def of(self, actual: sa.Table) -> dict[str, Type]:
        """How values are read where nothing else is declared."""
        return {column.name: column.type for column in actual.c} | dict(self.outputs(actual))


@dataclass(frozen=True)
class SqlSource:
    """One table with its key, the columns that feed the model, and the user's condition.

    ``fields`` are by the database's names, also where a mapped class has others for them.
    ``steps``: for each input the path inside its column, empty for the column itself. It is walked in Python: in SQL
    it would change numbers, and one bad value would fail the whole statement.
    ``base`` is the user's own table object, which their condition refers to; ``actual``
    is the same table as the database has it.
    ``subquery`` selects the keys when the query is more than a condition on the table
    itself (joins, limits, groups, inheritance); else ``where`` holds that condition.
    ``readings``: of which inputs the user's class or table makes other values than the database's own type; without
    inputs of which columns.
    """

    base: sa.sql.expression.TableClause
    actual: sa.Table
    key: tuple[ColumnElement[Any], ...]
    fields: Fields
    inputs: tuple[ColumnElement[Any], ...]
    steps: tuple[Steps, ...]
    where: ColumnElement[bool] | None
    subquery: sa.Select[Any] | None
    readings: Readings

    @property
    def table(self) -> str:
        return self.beside(self.actual.name)

    def beside(self, name: str) -> str:
        """A side table is in the schema of its source."""
        return full_name(place_schema(self.actual), name)

    @property
    def is_limited(self) -> bool:
        """Whether which rows are meant depends on how many: a LIMIT, an OFFSET, a FETCH."""
        query = self.subquery
        if query is None:
            return False
        return any(clause is not None for clause in (query._limit_clause, query._offset_clause, query._fetch_clause))

    def everything(self) -> SqlSource:
        """The same table without the user's condition."""
        return replace(self, where=None, subquery=None)

    def select(self, *columns: Any, joined: Any = None) -> sa.Select[Any]:
        """Select ``columns`` of the rows the user chose; ``joined`` replaces the FROM."""
        statement = sa.select(*columns).select_from(self.base if joined is None else joined)
        if self.where is not None:
            statement = statement.where(self.where)
        if self.subquery is not None:
            statement = statement.where(key_tuple(self.key).in_(self.subquery))
        return statement


USUAL_SCHEMAS = {"postgresql": "public", "sqlite": "main"}
PLACE = "pinnacle_place"
OWN_PREFIX = "pinnacle_"
"""What the names of pinnacle's own tables begin with on SQLite."""


def place_schema(actual: sa.Table) -> str:
    """The schema that a reflected table is recorded by: empty for the usual one, however it was named."""
    return str(actual.info[PLACE])


def full_name(schema: str | None, name: str) -> str:
    """A table's name as `SqlSource.table` gives it."""
    return f"{schema}.{name}" if schema else name


def key_tuple(key: Sequence[ColumnElement[Any]]) -> Any:
    """The key as one SQL value: the column, or a row value."""
    return key[0] if len(key) == 1 else sa.tuple_(*key)


def resolve(connection: sa.Connection, query: Any, fields: Fields, known: KnownTypes) -> SqlSource:
    """Check ``query`` and ``fields`` against the database; see `Backend.resolve`."""
    if not isinstance(query, sa.Select):
        raise UnsupportedQuery(
            f"rows are chosen by a sqlalchemy select(), not by {type(query).__name__}; "
            "write select(Entity) or select(table), with any where()"
        )
    _refuse_summary(query)
    if query.get_execution_options().get("schema_translate_map"):
        raise UnsupportedQuery(f"this select translates schemas, {NOT_TRANSLATED}")
    entity, mapped = _selected(query)
    base, actual = table_named(mapped), _reflect(connection, mapped)
    usual, declared = known.of(actual), _declared_types(base, actual)
    lookup = _Lookup(entity, base, actual, (usual | declared).__getitem__)
    inputs, steps = lookup.places(fields.paths)
    key = tuple(column_on(base, column) for column in _key(connection, actual))
    stored = stored_fields(entity, fields)
    where, subquery = _fit_beside_others(query.whereclause), None
    if not _is_plain(query, entity, mapped):
        where, subquery = None, _key_subquery(query, entity, mapped, key)
    differing = different(declared, usual, {column.name for column in inputs} or usual.keys(), known.columns)
    readings = declared_by(differing, actual.name, declared, lambda: place_of(base, _class_of(entity)))
    source = SqlSource(base, actual, key, stored, inputs, steps, where, subquery, readings)
    _try(connection, source)
    return source


def named_source(
    connection: sa.Connection, table: str, schema: str | None, fields: Fields, known: KnownTypes, where: Any,
    readings: Readings,
) -> SqlSource:  # fmt: skip
    """A source by its table's name and a condition; raises what `resolve` raises.

    ComponentError where this process has not the types by which its inputs are read.
    """
    base = sa.table(table, schema=schema or usual_schema(connection, table))
    actual = _reflect(connection, base)
    usual = known.of(actual)

    def kind_of(column: str) -> Type:
        kept = readings.get(column)
        return usual[column] if kept is None else type_for(kept, table, column, usual[column], known.columns)

    inputs, steps = _Lookup(None, base, actual, kind_of).places(fields.paths)
    key = tuple(column_on(base, column) for column in _key(connection, actual))
    source = SqlSource(base, actual, key, fields, inputs, steps, where, None, readings)
    _try(connection, source)
    return source


def input_columns(source: SqlSource) -> list[str]:
    """The columns that the inputs are read from, each once."""
    return list(dict.fromkeys(str(column.name) for column in source.inputs))


def _try(connection: sa.Connection, source: SqlSource) -> None:
    """Run the query for no rows: what is wrong with it shows before anything is written."""
    try:
        connection.execute(source.select(*source.key, *source.inputs).limit(0)).close()
    except sa.exc.DBAPIError:
        raise  # the database's own words, wrapped by the caller
    except sa.exc.SQLAlchemyError as error:
        raise UnsupportedQuery(f"the select cannot run: {str(error).splitlines()[0]}") from error


def own(source: Source) -> SqlSource:
    """A source as this family of databases resolved it."""
    if not isinstance(source, SqlSource):
        raise of_another_database(source)
    return source


def table_of(entity: Any) -> Any:
    """The table object behind a mapped class, an alias or a Table."""
    inspected = sa.inspect(entity, raiseerr=False)
    if inspected is not None and hasattr(inspected, "local_table"):
        return inspected.local_table
    return inspected.selectable if inspected is not None and hasattr(inspected, "selectable") else entity


def stored_fields(entity: Any, fields: Fields) -> Fields:
    """``fields`` by the names the database knows, where a mapped class calls them otherwise."""
    inspected = sa.inspect(entity, raiseerr=False) if entity is not None else None
    mapper = getattr(inspected, "mapper", None)
    if mapper is None:
        return fields

    def stored(path: str) -> str:
        head, dot, rest = path.partition(".")
        return f"{mapper.column_attrs[head].columns[0].name}{dot}{rest}" if head in mapper.column_attrs else path

    return Fields(tuple(map(stored, fields.paths)), fields.arguments)


def column_on(base: Any, column: ColumnElement[Any], kind: Any = None) -> ColumnElement[Any]:
    """``column`` as a column of the table object ``base``, whether or not that declares it."""
    return sa.sql.expression.ColumnClause(column.name, kind or column.type, _selectable=base)


def _declared_types(base: Any, actual: sa.Table) -> dict[str, Type]:
    """The types that the user's table object declares for columns that are there."""
    columns = getattr(base, "c", ())
    return {c.name: c.type for c in columns if c.name in actual.c and not isinstance(c.type, sa.types.NullType)}


def _fit_beside_others(condition: Any) -> Any:
    """A text in parentheses: SQLAlchemy puts it as it is beside others, where an OR in it would mean other rows."""
    return sa.sql.elements.Grouping(condition) if isinstance(condition, sa.TextClause) else condition


def _class_of(entity: Any) -> type | None:
    return None if entity is None else sa.inspect(entity).mapper.class_


NOT_TRANSLATED = (
    "which reflection, triggers and other processes do not follow; pass an Engine whose search_path is set, or tables "
    "with their schema, for example table.to_metadata(MetaData(), schema='tenant')"
)

AGGREGATES = frozenset({
    "count", "sum", "total", "avg", "min", "max", "group_concat", "string_agg", "array_agg", "json_agg", "jsonb_agg",
    "json_group_array", "json_group_object", "json_object_agg", "jsonb_object_agg", "bool_and", "bool_or", "every",
    "aggregate_strings", "stddev", "stddev_pop", "stddev_samp", "variance", "var_pop", "var_samp", "mode",
    "percentile_cont", "percentile_disc",
})  # fmt: skip


def _refuse_summary(query: sa.Select[Any]) -> None:
    """Refuse a query whose rows are not rows of a table: groups, distinct values, counts."""
    what = None
    if query._group_by_clauses or query._having_criteria:
        what = "group_by() or having()"
    elif query._distinct:
        what = "distinct()"
    elif (name := next(filter(None, map(_aggregate_in, query.selected_columns)), None)) is not None:
        what = f"{name}(...)"
    if what is not None:
        raise UnsupportedQuery(
            f"outputs are written beside the rows of a table, and a select with {what} gives others; "
            "select the table or entity, and put such conditions into a subquery in its WHERE"
        )


def _aggregate_in(column: Any) -> str | None:
    """The name of an aggregate function in a selected column; those of windows and subqueries are of single rows."""
    if isinstance(column, (sa.Over, sa.ScalarSelect)):
        return None
    name = getattr(column, "name", None)
    if isinstance(column, sa.sql.functions.FunctionElement) and str(name).lower() in AGGREGATES:
        return str(name)
    return next(filter(None, map(_aggregate_in, column.get_children())), None)


def _selected(query: sa.Select[Any]) -> tuple[Any, Any]:
    """The one entity (or None) and the one table or alias the query selects from."""
    entities = {id(d["entity"]): d["entity"] for d in query.column_descriptions if d.get("entity") is not None}
    if len(entities) > 1:
        raise UnsupportedQuery(
            "the select names several entities; select one and reach the others in its WHERE "
            "(joins and subqueries are fine)"
        )
    tables = {table for column in query.selected_columns for table in _tables_of(column)}
    if entities:
        entity = next(iter(entities.values()))
        inspected = sa.inspect(entity)
        selectable = inspected.selectable if inspected.is_aliased_class else inspected.local_table
        if not isinstance(selectable, (sa.Table, sa.Alias)):
            raise UnsupportedTable(f"{entity} is mapped to a query, not to a table that can hold outputs")
        return entity, selectable
    if len(tables) != 1:
        raise UnsupportedQuery(
            f"predict needs rows of exactly one table and this select takes columns of {len(tables)}; "
            "select one table or entity and put the others into its WHERE"
        )
    return None, tables.pop()


def _tables_of(column: Any) -> list[Any]:
    """Where a selected column comes from: its own table or alias, or those of what it is made of."""
    own = getattr(column, "table", None)
    if own is not None:
        return [own]
    parts: list[Any] = list(sa.sql.visitors.iterate(column))
    return [part.table for part in parts if getattr(part, "table", None) is not None]


def table_named(mapped: Any) -> Any:
    """The table behind an alias."""
    while isinstance(mapped, sa.Alias):
        mapped = mapped.element
    if not isinstance(mapped, sa.sql.expression.TableClause):
        raise UnsupportedTable(f"rows of a {type(mapped).__name__} cannot hold outputs; select from a table")
    return mapped


@contextmanager
def unknown_types_allowed() -> Iterator[None]:
    """Reflect tables without a word about columns of types that SQLAlchemy does not know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Did not recognize type", sa.exc.SAWarning)
        yield


def _reflect(connection: sa.Connection, mapped: Any) -> sa.Table:
    """The table as the database has it, whatever the user's metadata says."""
    named = table_named(mapped)
    inspector = sa.inspect(connection)
    name, schema = str(named.name), schema_of(connection, named)
    try:
        with unknown_types_allowed():
            table = sa.Table(name, sa.MetaData(), schema=schema, autoload_with=connection, resolve_fks=False)
    except sa.exc.NoSuchTableError:
        known = [table for table in inspector.get_table_names(schema=schema) if not table.startswith(OWN_PREFIX)]
        hint = did_you_mean(name, known, none="there is none of yours")
        raise UnsupportedTable(f"the database has no table {named.fullname!r}; {hint}") from None
    if name in inspector.get_view_names(schema=schema) or name in _materialized(inspector, schema):
        raise UnsupportedTable(f"{named.fullname!r} is a view; select from the table behind it")
    table.info[PLACE] = "" if schema in (None, USUAL_SCHEMAS.get(connection.dialect.name)) else schema
    for column in table.c:  # a domain is handled as what it is made of
        column.type = getattr(column.type, "data_type", column.type)
    return table


def schema_of(connection: sa.Connection, table: Any) -> str | None:
    """The schema by which statements must name a table; None where its name alone leads to it.

    That of a search_path, where the table names none, and the usual one where that has another table of this name.
    """
    given: str | None = getattr(table, "schema", None)
    usual = USUAL_SCHEMAS.get(connection.dialect.name)
    if connection.dialect.name != "postgresql" or given not in (None, usual):
        return None if given == usual else given
    name = '"' + str(table.name).replace('"', '""') + '"'
    query = sa.text(
        "SELECT (SELECT nspname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace WHERE pg_class.oid = "
        "to_regclass(:name)), to_regclass(:there) IS NOT NULL"
    )
    found, is_there = connection.execute(query, {"name": name, "there": f"{usual}.{name}"}).one()
    if given is None:
        return None if found is None or found == usual or found.startswith("pg_temp") else str(found)
    return usual if is_there and found != usual else None


def usual_schema(connection: sa.Connection, table: Any) -> str | None:
    """`schema_of` for a table of this name in the usual schema."""
    return schema_of(connection, sa.table(table, schema=USUAL_SCHEMAS.get(connection.dialect.name)))


def _materialized(inspector: sa.Inspector, schema: str | None) -> list[str]:
    try:
        return inspector.get_materialized_view_names(schema=schema)
    except NotImplementedError:  # a database without them, says its dialect
        return []


def _key(connection: sa.Connection, base: sa.Table) -> tuple[sa.Column[Any], ...]:
    key = tuple(base.primary_key.columns)
    if not key:
        raise UnsupportedTable(
            f"table {base.fullname!r} has no primary key; outputs need one to find their rows again. "
            + (
                "Copy it into a table that declares one, for example id INTEGER PRIMARY KEY"
                if connection.dialect.name == "sqlite"
                else f"Add one, for example: ALTER TABLE {base.fullname} ADD PRIMARY KEY (id)"
            )
        )
    if connection.dialect.name != "sqlite":  # whose values are scalars, whatever a column is declared as
        if any(isinstance(c.type, sa.types.NullType) for c in key):
            raise UnsupportedTable(f"the primary key of {base.fullname!r} has a type that SQLAlchemy does not know")
        if many := [c for c in key if isinstance(c.type, MANY_VALUED)]:
            raise UnsupportedTable(
                f"keys of type {many[0].type!r} cannot be used; give {base.fullname!r} a simpler primary key"
            )
    _check_sample(connection, key)
    return key


def _check_sample(connection: sa.Connection, key: Sequence[Any]) -> None:
    """Raise UnsupportedTable where keys come as something that cannot be recorded; one that does not come at all is
    its row's matter."""
    try:
        sample = connection.execute(sa.select(*key).limit(1)).cursor.fetchone()
    except connection.dialect.loaded_dbapi.Error:
        return
    if sample is not None:
        dump_key(tuple(sample))


def _is_plain(query: sa.Select[Any], entity: Any, mapped: Any) -> bool:
    """Whether the query is the table and a condition on it, and nothing else."""
    if isinstance(mapped, sa.Alias) or query._with_options or query._distinct or query._group_by_clauses:
        return False
    if query._having_criteria or query._limit_clause is not None or query._offset_clause is not None:
        return False
    if query._fetch_clause is not None or query._prefixes or query._setup_joins or query._independent_ctes:
        return False
    if entity is not None:
        mapper = sa.inspect(entity).mapper
        if mapper.inherits is not None or mapper.polymorphic_on is not None:
            return False
    froms = query.get_final_froms()
    return len(froms) == 1 and hash(froms[0]) == hash(mapped)


def _key_subquery(
    query: sa.Select[Any], entity: Any, mapped: Any, key: tuple[ColumnElement[Any], ...]
) -> sa.Select[Any]:
    """The user's whole query, giving keys; correlated to nothing outside it."""
    columns = [_user_column(entity, mapped, column) for column in key]
    return query.with_only_columns(*columns, maintain_column_froms=True).correlate(None)


def _user_column(entity: Any, mapped: Any, column: ColumnElement[Any]) -> Any:
    """``column`` as the user's query knows it: an attribute, a column of an alias, or itself."""
    if entity is not None:
        mapper = sa.inspect(entity).mapper
        known = table_named(mapped).c
        if column.name in known:
            return getattr(entity, mapper.get_property_by_column(known[column.name]).key)
    return mapped.c[column.name] if column.name in mapped.c else column_on(mapped, column)


class _Lookup:
    """Finds the place of a field name: an attribute, a column, or a path into JSON."""

    def __init__(self, entity: Any, base: Any, actual: sa.Table, kind_of: Callable[[str], Type]) -> None:
        self._mapper: orm.Mapper[Any] | None = sa.inspect(entity).mapper if entity is not None else None
        self._base, self._actual, self._kind_of = base, actual, kind_of

    def names(self) -> set[str]:
        attributes = {a.key for a in self._mapper.column_attrs} if self._mapper is not None else set()
        return attributes | set(self._actual.c.keys())

    def places(self, paths: Sequence[str]) -> tuple[tuple[ColumnElement[Any], ...], tuple[Steps, ...]]:
        """The columns that the paths begin at, and the steps from there."""
        found = [self._place(path) for path in paths]
        return tuple(column for column, _ in found), tuple(steps for _, steps in found)

    def _place(self, path: str) -> tuple[ColumnElement[Any], Steps]:
        whole = self._column(path)
        if whole is not None:
            return whole, ()
        parts = path.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            column = self._column(".".join(parts[:cut]))
            if column is None:
                continue
            if not isinstance(column.type, sa.JSON):
                raise UnknownField(
                    path, f"table {self._actual.fullname!r} (column {column.name!r} is not JSON)", self.names()
                )
            return column, tuple(parts[cut:])
        raise UnknownField(path, f"table {self._actual.fullname!r}", self.names())

    def _column(self, name: str) -> ColumnElement[Any] | None:
        """The reflected column under ``name``, with the type by which it is read."""
        declared = None
        if self._mapper is not None and name in self._mapper.column_attrs:
            declared = self._mapper.column_attrs[name].columns[0]
            if declared.table is not self._base:
                raise UnsupportedQuery(
                    f"{name!r} is a column of {declared.table}, not of {self._actual.fullname}; "
                    "select the entity that owns it"
                )
        elif name in getattr(self._base, "c", {}):
            declared = self._base.c[name]
        column_name = declared.name if declared is not None else name
        if column_name not in self._actual.c:
            return None
        return column_on(self._base, self._actual.c[column_name], self._kind_of(column_name))
