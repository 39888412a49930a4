"""What proves that the place of an output is pinnacle's to write, and to drop.

The registry of outputs is a table: who may write it could have it name any column of the user's. So a view of
constants beside it says once more where an output is, and whether pinnacle made that place or was told to fill it.
Only who may change tables and views can change one; and a comment on the user's own column, which would say as much,
would be taken away by the next migration that compares comments.
"""

from __future__ import annotations

import json
import re
from dataclasses import astuple, dataclass
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.schema import PLACE_PREFIX, output, place_name
from pinnacle.backends.sql.session import SqlSession
from pinnacle.backends.sql.source import SqlSource, place_schema
from pinnacle.base.rows import OutputInfo, OutputSpec
from pinnacle.base.types import Items

COLUMNS = ("table_schema", "table_name", "name", "kind", "model", "fields", "made")


@dataclass(frozen=True)
class Place:
    """Where an output is, and of what: ``kind`` tells a column from a side table, ``fields`` what of a row the model is
    given."""

    table_schema: str
    table_name: str
    name: str
    kind: str
    model: str
    fields: str

    @classmethod
    def of(cls, source: SqlSource, spec: OutputSpec) -> Place:
        """The place that an output is to have."""
        return cls(
            place_schema(source.actual), source.actual.name, spec.name, _kind(isinstance(spec.type, Items)), spec.model,
            _canonical(spec.fields.to_json()),
        )  # fmt: skip


def creation(session: SqlSession, number: int, place: Place, *, made: bool) -> str:
    """The statement that says where an output is, and whether pinnacle ``made`` that place."""
    values = (*astuple(place), "made" if made else "adopted")
    said = ", ".join(f"{_literal(value)} AS {name}" for name, value in zip(COLUMNS, values, strict=True))
    return f"CREATE VIEW {session.own(place_name(number))} AS SELECT {said}"


def dropping(session: SqlSession, number: int) -> str:
    """The statement that takes back what `creation` says, whether or not it was said."""
    return f"DROP VIEW IF EXISTS {session.own(place_name(number))}"


def proven(session: SqlSession, connection: sa.Connection, number: int) -> tuple[Place, bool] | None:
    """Where an output is, and whether pinnacle made that place; None where nothing tells."""
    name = place_name(number)
    if not sa.inspect(connection).has_table(name, schema=session.schema):
        return None
    view = sa.table(name, *map(sa.column, COLUMNS), schema=session.schema)
    *place, made = connection.execute(sa.select(*view.c)).one()
    return Place(*place), made == "made"


def is_made(session: SqlSession, info: OutputInfo) -> bool:
    """Whether it is proven that pinnacle made what the registry calls the place of an output."""
    with session.reading() as connection:
        row = connection.execute(sa.select(output).where(output.c.id == info.id)).one()
        return proven(session, connection, info.id) == (recorded(row), True)


def recorded(row: Any) -> Place:
    """The place that a row of the registry names."""
    kind = json.loads(row.type)  # of which the rest may be a type that is not known here
    is_side = isinstance(kind, dict) and kind.get("type") == Items.name
    fields = _canonical(json.loads(row.fields))
    return Place(row.table_schema, row.table_name, row.name, _kind(is_side), row.model, fields)


def names(session: SqlSession, connection: sa.Connection) -> list[str]:
    """The views that tell of places, of outputs that are known or not."""
    found = sa.inspect(connection).get_view_names(schema=session.schema)
    return sorted(filter(re.compile(f"{PLACE_PREFIX}[0-9]+").fullmatch, found))


def _kind(is_side: bool) -> str:
    return "table" if is_side else "column"


def _canonical(fields: Any) -> str:
    return json.dumps(fields, sort_keys=True)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
