"""How a column's values are read where the user's class or table declares another type than the database: told, kept.

Whoever reads the column for an output must get the values that the declaration gives: a worker of another process
too. SQLAlchemy's own types are kept as a name and plain arguments. Of a type that is code of the user's (an Enum of a
class, a TypeDecorator, a PickleType) only its name is kept, and the class or table that declares it; it is taken from
what this process has imported already. Nothing is imported, unpickled or called because the database says so.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.columns import Raw, SqlColumns
from pinnacle.base import forks
from pinnacle.base.errors import ComponentError

Type = sa.types.TypeEngine[Any]
Readings = Mapping[str, "Reading"]
"""By the database's name of the column; those alone that are read otherwise than by the database's own type."""

_live: dict[tuple[str, str, str, str], Type] = {}
_live_lock = forks.lock()


@dataclass(frozen=True)
class Reading:
    """How values of one column are read.

    ``identity`` differs where models get other values; it is empty where they get the driver's. ``form``: the type as a
    name and plain arguments, None where it is code. ``by``: the class or table that declares it, ``module:name``.
    ``alters``: whether models get other values than by the database's own type.
    """

    identity: str
    form: Any = None
    by: str = ""
    alters: bool = True

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Reading:
        """One that was stored; ComponentError for what is none."""
        if not isinstance(stored, Mapping) or not {"identity", "form", "by", "alters"} <= stored.keys():
            raise ComponentError("what is stored of how a column is read has no known form")
        return cls(str(stored["identity"]), stored["form"], str(stored["by"]), bool(stored["alters"]))

    def is_as(self, other: Reading) -> bool:
        return (self.identity, self.form) == (other.identity, other.form)


DRIVERS = Reading("", ["driver"])


def reading_of(kind: Type, columns: SqlColumns) -> Reading:
    """How values of a column of a type are read."""
    kind = columns.effective(kind)
    impl = kind.dialect_impl(columns.dialect)
    if isinstance(impl, Raw):
        return DRIVERS
    if _package(impl) == "pinnacle":
        return _own(impl)
    if (inner := _wrapped(impl)) is not None:
        return reading_of(inner, columns)
    if _package(impl) != "sqlalchemy" and columns.decoder(kind) is not None:
        return Reading(f"type {_name(type(impl))}")
    for family, read_by in _FAMILIES.items():
        if isinstance(impl, family):
            return read_by(impl, columns)
    return DRIVERS if columns.decoder(kind) is None else _converting(impl)


def different(
    declared: Mapping[str, Type], actual: Mapping[str, Type], names: Collection[str], columns: SqlColumns
) -> Readings:
    """The readings of those of the declared types that give other values than the actual ones do for any process."""
    found = {}
    for name, kind in actual.items():
        if name not in names:
            continue
        reading = reading_of(declared.get(name, kind), columns)
        usual = reading_of(kind, columns)
        if not reading.is_as(usual) or _is_own_json(reading):
            found[str(name)] = replace(reading, alters=reading.identity != usual.identity or _is_own_json(reading))
    return found


def declared_by(readings: Readings, table: str, declared: Mapping[str, Type], place: Callable[[], str]) -> Readings:
    """The same readings with the ``place`` of their declaration, where it is needed; their types are remembered."""
    if all(reading.form is not None for reading in readings.values()):
        return readings
    by = place()
    placed = dict(readings)
    with _live_lock:
        for name, reading in readings.items():
            if reading.form is None:
                placed[name] = replace(reading, by=by)
                _live[by, table, name, reading.identity] = declared[name]
    return placed


def type_for(reading: Reading, table: str, name: str, actual: Type, columns: SqlColumns) -> Type:
    """The type that reads a column as was kept; ComponentError where this process has none that does."""
    for candidate in (_built(reading.form), _remembered(reading, table, name), _declared(reading, table, name), actual):
        if candidate is not None and reading_of(candidate, columns).identity == reading.identity:
            return candidate
    raise ComponentError(_why_not(reading, f"{table}.{name}"))


def place_of(table: Any, entity: type | None) -> str:
    """Where a process finds the class or table that declares columns: ``module:name``; empty where none has it."""
    if entity is not None:
        return f"{entity.__module__}:{entity.__qualname__}"
    metadata = getattr(table, "metadata", None)
    for module_name, module in list(sys.modules.items()):
        for name, value in list(vars(module).items()) if isinstance(module, types.ModuleType) else ():
            if value is table or (value is metadata and metadata is not None):
                return f"{module_name}:{name}"
            is_class = issubclass(type(value), type)  # isinstance() would ask objects that warn when they are used
            if is_class and vars(value).get("__table__") is table:
                return f"{module_name}:{name}"
    return ""


def _why_not(reading: Reading, column: str) -> str:
    what = reading.identity.partition(" ")[2] or reading.identity
    module = reading.by.partition(":")[0]
    if _is_own_json(reading):
        return (
            f"column {column} is read by the json_deserializer {what} of an Engine, which this process has not: open "
            "the database with such an Engine, and work on it there, with db.listen()"
        )
    if not module or "<locals>" in reading.by or module == "__main__":
        return (
            f"column {column} is read as {what}, which only the process that declared it has"
            f"{f' ({reading.by})' if module else ''}: move it into a module, add it again from there, and import that "
            "module here; or work on it there, with db.listen()"
        )
    if module in sys.modules:
        return (
            f"column {column} was read as {what}, declared by {reading.by}, and here it is declared otherwise; add the "
            "listener or dataset again, or predict once, with what is declared now"
        )
    return (
        f"column {column} is read as {what}, declared by {reading.by}, and this process has not imported {module!r}: "
        f"import it first; on the command line: pinnacle --import {module} ..."
    )


# -- types of this process -------------------------------------------------------------------------


def _remembered(reading: Reading, table: str, name: str) -> Type | None:
    with _live_lock:
        return _live.get((reading.by, table, name, reading.identity))


def _declared(reading: Reading, table: str, name: str) -> Type | None:
    """The type that a column has where the reading says that it is declared; touches nothing but what is imported."""
    module, _, path = reading.by.partition(":")
    holder: Any = sys.modules.get(module)
    for part in path.split("."):
        if not isinstance(holder, (types.ModuleType, type)):
            return None
        holder = vars(holder).get(part)
    found = vars(holder).get("__table__") if isinstance(holder, type) else holder
    if isinstance(found, sa.MetaData):
        found = next((each for each in found.tables.values() if each.name == table), None)
    if not isinstance(found, sa.sql.expression.TableClause) or found.name != table:
        return None
    return next((column.type for column in found.c if column.name == name), None)


# -- types at rest ---------------------------------------------------------------------------------

OWN_JSON = "json of "
"""How the identity of JSON begins that is read by a function of the user's."""


def _is_own_json(reading: Reading) -> bool:
    return reading.identity.startswith(OWN_JSON)


def _built(form: Any) -> Type | None:
    """A type of its form; None where there is none that this version knows."""
    if not isinstance(form, list) or not form or form[0] not in _BUILDERS:
        return None
    try:
        built: Type = _BUILDERS[form[0]](*form[1:])
    except (TypeError, ValueError, sa.exc.SQLAlchemyError):
        return None
    return built


def _vector() -> Type:
    from pinnacle.base.types import pg_vector

    kind: Type = pg_vector(None)
    return kind


def _enum(is_native: bool, *names: str) -> Type:
    return sa.Enum(*map(str, names), native_enum=bool(is_native), name="pinnacle")


def _decimal(places: int | None) -> Type:
    return sa.Numeric(decimal_return_scale=places, asdecimal=True)


def _uuid(as_uuid: bool, is_native: bool) -> Type:
    kind: Type = sa.Uuid(native_uuid=bool(is_native)) if as_uuid else sa.Uuid(False, native_uuid=bool(is_native))
    return kind


_BUILDERS: dict[str, Callable[..., Type]] = {
    "driver": Raw, "json": sa.JSON, "boolean": sa.Boolean, "datetime": sa.DateTime, "date": sa.Date, "time": sa.Time,
    "bytes": sa.LargeBinary, "interval": sa.Interval, "float": sa.Float, "decimal": _decimal, "vector": _vector,
    "enum": _enum,
    "uuid": _uuid, "array": lambda item, as_tuple, depth: sa.ARRAY(_built(item) or Raw(), as_tuple, depth),
}  # fmt: skip


def _own(impl: Any) -> Reading:
    """pinnacle's types, of outputs."""
    if (read := getattr(impl, "read", None)) is not None:
        return Reading(f"output {_name(read)}")
    return Reading("vector", ["vector"])


def _wrapped(impl: Any) -> Type | None:
    """The type whose values a decorator leaves as they are when they are read."""
    plain, made = sa.types.TypeDecorator, type(impl)
    if not isinstance(impl, plain) or made.result_processor is not plain.result_processor:
        return None
    inner: Type = impl.impl_instance
    return inner if made.process_result_value is plain.process_result_value else None


def _json(impl: Any, columns: SqlColumns) -> Reading:
    own = getattr(columns.dialect, "_json_deserializer", None)
    return Reading("json" if own is None else f"{OWN_JSON}{_name(own)}", ["json"])


def _of_enum(impl: Any, columns: SqlColumns) -> Reading:
    if impl.enum_class is not None:
        return Reading(f"enum {_name(impl.enum_class)}")
    return Reading("", ["enum", bool(impl.native_enum), *sorted(impl.enums)])


def _of_array(impl: Any, columns: SqlColumns) -> Reading:
    item = reading_of(impl.item_type, columns)
    identity = f"{'tuples' if impl.as_tuple else 'lists'} of {item.identity or 'values'}"
    return Reading(identity, None if item.form is None else ["array", item.form, bool(impl.as_tuple), impl.dimensions])


def _of_number(impl: Any, columns: SqlColumns) -> Reading:
    if not impl.asdecimal:
        return Reading("float", ["float"]) if columns.decoder(impl) is not None else DRIVERS
    if columns.dialect.supports_native_decimal:
        return Reading("decimal", ["decimal", None])
    places = impl._effective_decimal_return_scale
    return Reading(f"decimal of {places}", ["decimal", places])


def _of_uuid(impl: Any, columns: SqlColumns) -> Reading:
    if columns.decoder(impl) is None:
        return DRIVERS
    return Reading("uuid" if impl.as_uuid else "text of a uuid", ["uuid", bool(impl.as_uuid), bool(impl.native_uuid)])


def _of_time(impl: Any, columns: SqlColumns) -> Reading:
    """SQLite's texts, which may be of a format of the user's."""
    if columns.decoder(impl) is None:
        return DRIVERS
    kinds = {sa.DateTime: "datetime", sa.Date: "date", sa.Time: "time"}
    name = next(name for kind, name in kinds.items() if isinstance(impl, kind))
    pattern = getattr(impl, "_reg", None)
    written = getattr(impl, "_storage_format", None), getattr(pattern, "pattern", None)
    if written == (getattr(type(impl), "_storage_format", None), None):
        return Reading(name, [name])
    return Reading(f"{name} {written}")


_FAMILIES: dict[type | tuple[type, ...], Callable[[Any, SqlColumns], Reading]] = {
    sa.PickleType: lambda impl, columns: Reading("type PickleType"),
    sa.JSON: _json,
    sa.Enum: _of_enum,
    sa.ARRAY: _of_array,
    (sa.Numeric, sa.Float): _of_number,
    sa.Uuid: _of_uuid,
    (sa.DateTime, sa.Date, sa.Time): _of_time,
}


def _converting(impl: Any) -> Reading:
    """The rest of SQLAlchemy's own types that do something to values."""
    simple = {sa.Boolean: "boolean", sa.LargeBinary: "bytes", sa.Interval: "interval"}
    name = next((name for kind, name in simple.items() if isinstance(impl, kind)), None)
    return Reading(f"type {type(impl).__name__}") if name is None else Reading(name, [name])


def _package(impl: Any) -> str:
    return type(impl).__module__.partition(".")[0]


def _name(code: Any) -> str:
    """What code is called: to move it into another module changes no value."""
    return str(getattr(code, "__qualname__", type(code).__qualname__))
