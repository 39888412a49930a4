"""What names in a condition stand for: tables that the database has, their columns, and what a FROM calls them.

A column is looked up wherever it is named: PostgreSQL takes ``docs.name`` for a call of a function ``name`` where the
table has no such column, and SQLite takes a name that it does not know for a text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from pinnacle.base.errors import ComponentError

SYSTEM_COLUMNS = {
    "postgresql": ("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"), "sqlite": ("rowid", "oid", "_rowid_"),
}  # fmt: skip
CLOSED_SCHEMAS = frozenset({"pinnacle", "pg_catalog", "information_schema", "pg_toast", "pg_temp"})
CLOSED_TABLES = ("pinnacle_", "sqlite_")
"""How the names of tables begin that are pinnacle's or the database's own."""

Columns = Collection[str]


class Tables(Protocol):
    """The tables of a database, as conditions name them."""

    def columns(self, schema: str | None, table: str) -> Columns:
        """The names of a table's columns; ComponentError for one that is not there, or not the user's."""

    def has_type(self, names: Sequence[str]) -> bool:
        """Whether a column of a table that was asked for is of an enum of this name, with its schema or without."""


def check_open(schema: str | None, table: str) -> None:
    """ComponentError for a table of pinnacle's or of the database's own."""
    if (schema or "").lower() in CLOSED_SCHEMAS or table.lower().startswith(CLOSED_TABLES):
        raise ComponentError(f"{_full(schema, table)} is no table of yours, and no select may name it")


_STRANGERS_CODE = sa.text(
    "SELECT pg_get_userbyid(v.relowner) FROM pg_class AS v WHERE v.oid = to_regclass(:view) "
    "AND (v.relkind IN ('v', 'f') OR v.relrowsecurity) "
    "AND pg_get_userbyid(v.relowner) <> current_user "
    "AND NOT (SELECT rolsuper FROM pg_roles WHERE oid = v.relowner) "
    "AND v.relowner IS DISTINCT FROM (SELECT relowner FROM pg_class WHERE oid = to_regclass(:own))"
)
"""Who owns a view, a foreign table or one with row security, where that is
neither this role, nor a superuser, nor the owner of the select's own table."""


class ReflectedTables:
    """The tables that a connection reaches, for a select of rows of the table ``own``, a name in quotes."""

    def __init__(self, connection: sa.Connection, own: str) -> None:
        self._connection, self._own = connection, own
        self._inspector: sa.Inspector = sa.inspect(connection)
        self._dialect = connection.dialect.name
        self._types: set[tuple[str, ...]] = set()
        self._known: dict[tuple[str | None, str], Columns] = {}

    def columns(self, schema: str | None, table: str) -> Columns:
        if (schema, table) not in self._known:
            check_open(schema, table)
            self._known[schema, table] = self._reflected(schema, table)
        return self._known[schema, table]

    def has_type(self, names: Sequence[str]) -> bool:
        return tuple(names) in self._types

    def _reflected(self, schema: str | None, table: str) -> Columns:
        try:
            if self._dialect == "sqlite" and table not in self._sqlite_tables(schema):
                raise sa.exc.NoSuchTableError(table)
            found = self._inspector.get_columns(table, schema=schema)
        except (sa.exc.NoSuchTableError, sa.exc.OperationalError) as error:
            raise ComponentError(f"its select names a table {_full(schema, table)!r}, which is not there") from error
        if self._dialect == "postgresql":
            self._check_view(schema, table)
        for column in found:
            self._note_type(column["type"])
        return [str(column["name"]) for column in found] + list(SYSTEM_COLUMNS.get(self._dialect, ()))

    def _check_view(self, schema: str | None, table: str) -> None:
        """ComponentError for a stranger's view, or row security: what its owner wrote there runs with the rights of who
        reads."""
        names = {"view": quoted_name(schema, table), "own": self._own}
        if (owner := self._connection.execute(_STRANGERS_CODE, names).scalar()) is not None:
            raise ComponentError(
                f"its select reads a view, a foreign table or row security, {_full(schema, table)}, which belongs "
                f"to {owner!r}, who decides what runs "
                "in it: have it belong to the owner of the table whose rows are selected, or name other tables"
            )

    def _sqlite_tables(self, schema: str | None) -> Columns:
        """Its tables and views; other names may be those of SQLite's own modules."""
        return [*self._inspector.get_table_names(schema), *self._inspector.get_view_names(schema)]

    def _note_type(self, kind: Any) -> None:
        kind = getattr(kind, "item_type", kind)
        name, schema = getattr(kind, "name", None), getattr(kind, "schema", None)
        if isinstance(kind, sa.Enum) and isinstance(name, str):  # the check of a domain may run what its owner likes
            self._types.add((name,))
            if isinstance(schema, str):
                self._types.add((schema, name))


@dataclass
class Scope:
    """What the FROMs around a place in a condition call their rows; the innermost last."""

    folds: bool
    frames: list[dict[str, Columns]] = field(default_factory=list)
    schemas: list[tuple[str, str]] = field(default_factory=list)
    ctes: list[Mapping[str, Columns]] = field(default_factory=list)
    labels: list[Columns] = field(default_factory=list)

    @contextmanager
    def inside(self, frame: dict[str, Columns]) -> Any:
        self.frames.append(frame)
        yield
        self.frames.pop()

    def add(self, name: str, columns: Columns, schema: str | None = None) -> None:
        """Have rows of the innermost FROM known by a name, which may be empty."""
        frame = self.frames[-1]
        frame[name] = [*frame.get(name, ()), *columns] if not name else columns
        if schema is not None:
            self.schemas.append((schema, name))

    def cte(self, name: str) -> Columns | None:
        return next((frame[name] for frame in reversed(self.ctes) if name in frame), None)

    def check(self, names: Sequence[str]) -> None:
        """ComponentError unless a column of this name is in reach."""
        *place, column = names
        if not place:
            among = [*self.labels, *(columns for frame in self.frames for columns in frame.values())]
            if any(self._has(columns, column) for columns in among):
                return
        elif len(place) == 1 or tuple(place) in self.schemas:
            frames = (frame[place[-1]] for frame in reversed(self.frames) if place[-1] in frame)
            if (columns := next(frames, None)) is not None and self._has(columns, column):
                return
        raise ComponentError(f"its select reads a column {'.'.join(names)!r}, which none of its tables has")

    def _has(self, columns: Columns, name: str) -> bool:
        return name in columns or (not self.folds and name.lower() in {known.lower() for known in columns})

    def all_of(self, table: str | None) -> Columns:
        """The columns that a star stands for."""
        frame = self.frames[-1]
        if table is None:
            return [name for columns in frame.values() for name in columns]
        if table not in frame:
            raise ComponentError(f"its select reads all columns of {table!r}, which its FROM does not name")
        return frame[table]


def quoted_name(schema: str | None, table: str) -> str:
    """A table's name in quotes, with its schema."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table) if name)


def _full(schema: str | None, table: str) -> str:
    return f"{schema}.{table}" if schema else table
