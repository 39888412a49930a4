"""What is signed of the records in pinnacle's tables, for every SQL database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.schema import component
from pinnacle.backends.sql.session import SqlSession
from pinnacle.base.errors import NotAuthenticated
from pinnacle.base.refusals import unsigned_write
from pinnacle.base.seal import Seal, Sealed

SIGNED: Mapping[sa.Table, tuple[str, ...]] = {component: ("kind", "identifier", "version", "type", "body", "digest")}
"""The columns whose values are signed: what a record says, and its place. Others are bookkeeping, which changes by
itself."""


class SqlSeals:
    """The signatures of one database: a column of each record's own row."""

    def __init__(self, session: SqlSession, seal: Seal) -> None:
        self._session, self.seal = session, seal

    def sign(self, connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> str | None:
        """The signature of a row that is about to be written; None where this process signs nothing.

        ConfigError where it signs nothing and others do: they would refuse what it writes.
        """
        if not self.seal.is_on and self._are_any(connection):
            raise unsigned_write()
        return self.seal.sign(_sealed(table, row))

    def refusal(self, table: sa.Table, row: Any) -> NotAuthenticated | None:
        """Why nothing of a row that was read is to be used; None where it is in order."""
        return self.seal.refusal(_sealed(table, row._mapping))

    def records(self) -> Iterator[Sealed]:
        """See `Seals`. Those of a kind and a name stand together, oldest first."""
        if not self._session.is_migrated():
            return
        for table, names in SIGNED.items():
            with self._session.reading() as connection:
                rows = connection.execute(sa.select(table).order_by(*(table.c[name] for name in names[:3]))).all()
            yield from (_sealed(table, dict(row._mapping)) for row in rows)

    def put(self, record: Sealed) -> bool:
        """See `Seals`."""
        table = next(table for table in SIGNED if table.name == record.table)
        this = [table.c[name] == value for name, value in record.fields.items()]
        with self._session.writing() as connection:
            changed = connection.execute(sa.update(table).where(*this).values(mac=self.seal.sign(record)))
        return changed.rowcount == 1

    def _are_any(self, connection: sa.Connection) -> bool:
        signed = sa.select(sa.literal(1)).select_from(component).where(component.c.mac.is_not(None)).limit(1)
        return connection.scalar(signed) is not None


def _sealed(table: sa.Table, row: Mapping[str, Any]) -> Sealed:
    fields = {name: row[name] for name in SIGNED[table]}
    return Sealed(table=table.name, name=_NAMES[table].format(**fields), fields=fields, mac=row.get("mac"))


_NAMES: Mapping[sa.Table, str] = {component: "{kind} {identifier!r} version {version}"}
