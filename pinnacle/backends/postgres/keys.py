"""Keeps the bookkeeping of an output on the types of its table's key, which the user may change."""

from __future__ import annotations

import re

import sqlalchemy as sa

from pinnacle.backends.postgres.session import PostgresSession
from pinnacle.backends.postgres.statements import FIRST_CUSTOM_OID, Kind, column_kinds
from pinnacle.backends.sql.schema import WORK_PREFIX, error, state_name
from pinnacle.backends.sql.side import side_table
from pinnacle.backends.sql.source import SqlSource
from pinnacle.base.errors import BackendError
from pinnacle.base.rows import OutputInfo
from pinnacle.base.types import Items


def is_alike(session: PostgresSession, source: SqlSource, info: OutputInfo) -> bool:
    """Whether an output is recorded by a key of as many columns, whose values may be those of the table's."""
    former, key = _kinds(session, source, info)
    return len(former) == len(key) and all(_family(then) == _family(now) for then, now in zip(former, key, strict=True))


def retype_key(session: PostgresSession, source: SqlSource, info: OutputInfo) -> bool:
    """Give the tables of an output the types of the key, where these are others than they were; False where the key
    has more or fewer columns than that by which the output is recorded.

    What is recorded stays where the old values are values of the new type. Keys of another kind
    altogether are other rows: what is recorded of the former ones is forgotten.
    """
    former, key = _kinds(session, source, info)
    if len(former) != len(key):
        return False
    if all(_is_same(*pair) for pair in zip(former, key, strict=True)):
        return True
    with session.reading() as connection:
        tables = _tables(connection, session, source, info)
    are_alike = all(_family(then) == _family(now) for then, now in zip(former, key, strict=True))
    try:
        _alter(session, info, tables, key, emptied=not are_alike)
    except (BackendError, sa.exc.IntegrityError):  # by rows that are gone: the table itself has no such value
        if not are_alike:
            raise
        _alter(session, info, tables, key, emptied=True)
    return True


def _kinds(session: PostgresSession, source: SqlSource, info: OutputInfo) -> tuple[list[Kind], list[Kind]]:
    """The key by which an output is recorded, and the table's."""
    with session.reading() as connection:
        kinds = column_kinds(connection, session.quote_table(source.actual))
        recorded = column_kinds(connection, session.own(state_name(info.id)))
    former = {name: kind for name, kind in recorded.items() if name and re.fullmatch("k[0-9]+", name)}
    return [former[f"k{i}"] for i in range(len(former))], [kinds[column.name] for column in source.key]


def _is_same(then: Kind, now: Kind) -> bool:
    """Whether a key is kept as what it is; one of a domain is kept as what the domain is made of."""
    is_domain = then.oid < FIRST_CUSTOM_OID <= now.oid and _family(then) == _family(now)
    return is_domain or then.with_collation == now.with_collation


def _family(kind: Kind) -> str:
    """What types have in common whose values may be each other's."""
    return kind.hashed or kind.bare


def _tables(
    connection: sa.Connection, session: PostgresSession, source: SqlSource, info: OutputInfo
) -> dict[str, list[str]]:
    """The tables that hold keys of an output, and their columns."""
    names = [f"k{i}" for i in range(len(source.key))]
    tables = {session.own(name): names for name in (state_name(info.id), f"{WORK_PREFIX}{info.id}")}
    if isinstance(info.type, Items):
        side = side_table(session, source, info)
        tables[session.quote_table(side)] = [column.name for column in list(side.primary_key.columns)[:-1]]
    there = sa.text("SELECT to_regclass(:name) IS NOT NULL")
    return {name: columns for name, columns in tables.items() if connection.scalar(there, {"name": name})}


def _alter(
    session: PostgresSession, info: OutputInfo, tables: dict[str, list[str]], key: list[Kind], *, emptied: bool
) -> None:
    statements = []
    for name, columns in tables.items():
        if emptied:
            statements.append(f"TRUNCATE {name}")
        changes = ", ".join(
            f"ALTER COLUMN {session.quote(column)} TYPE {kind.with_collation} "
            f"USING CAST(CAST({session.quote(column)} AS text) AS {kind.declared})"
            for column, kind in zip(columns, key, strict=True)
        )
        statements.append(f"ALTER TABLE {name} {changes}")
    if emptied:
        statements.append(f"DELETE FROM {session.own(error.name)} WHERE output_id = {info.id}")
    session.alter_all(sa.table(state_name(info.id), schema=session.schema), statements)
