"""Tells whether what is recorded by a key on SQLite still is by the key that the table has."""

from __future__ import annotations

import re

import sqlalchemy as sa

from pinnacle.backends.sql.schema import state_name
from pinnacle.backends.sql.source import SqlSource
from pinnacle.base.rows import OutputInfo

AFFINITIES = (("INTEGER", "INT"), ("TEXT", "CHAR|CLOB|TEXT"), ("BLOB", "BLOB|^$"), ("REAL", "REAL|FLOA|DOUB"))


def is_followed(connection: sa.Connection, source: SqlSource, info: OutputInfo) -> bool:
    """Whether the state table has as many key columns as the table's key has, and of the same affinities: values of
    others would be changed or refused there."""
    declared = "SELECT name, type FROM pragma_table_xinfo(?, ?)"
    place = source.actual.name, source.actual.schema or "main"
    now = {row.name: row.type for row in connection.exec_driver_sql(declared, place)}
    state = connection.exec_driver_sql(declared, (state_name(info.id), "main"))
    then = [row.type for row in state if re.fullmatch("k[0-9]+", row.name)]
    return list(map(affinity, then)) == [affinity(now[column.name]) for column in source.key]


def affinity(declared: str) -> str:
    """What SQLite makes of a column that is declared so; see its documentation, section 3.1 of "Datatypes"."""
    return next((name for name, words in AFFINITIES if re.search(words, declared.upper())), "NUMERIC")
