"""Outputs in a side table: any number of values a row, rewritten as a whole.

Only what differs is written, so that an unchanged item keeps what others have computed
from it. No foreign key ties the table to its source: it would make the user's TRUNCATE
fail; rows of sources that are gone are taken away by the worker.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.columns import Raw
from pinnacle.backends.sql.schema import output
from pinnacle.backends.sql.session import SqlSession
from pinnacle.backends.sql.source import SqlSource
from pinnacle.backends.sql.target import SqlTarget
from pinnacle.base.encoding import safe_name
from pinnacle.base.errors import RowRejected
from pinnacle.base.rows import Key, OutputBatch, OutputInfo
from pinnacle.base.types import Items

POSITION, VALUE = "position", "value"


def side_table(session: SqlSession, source: SqlSource, info: OutputInfo) -> sa.Table:
    """The side table of an output as pinnacle makes it, in the schema of its source."""
    if not isinstance(info.type, Items):
        raise TypeError(f"{info.name} is a column")
    keys = [source.actual.c[column.name] for column in source.key]
    return sa.Table(
        info.name, sa.MetaData(),
        *(
            sa.Column(safe_name(f"{source.actual.name}_{key.name}"), key.type, primary_key=True, autoincrement=False)
            for key in keys
        ),
        sa.Column(POSITION, sa.Integer, primary_key=True, autoincrement=False),
        sa.Column(VALUE, session.columns.type_of(info.type.item), nullable=False),
        schema=source.actual.schema,
    )  # fmt: skip


class SideTarget(SqlTarget):
    """What the targets of side tables share; mixed in before a database's own target."""

    side: sa.Table

    def _stored_type(self) -> sa.types.TypeEngine[Any]:
        self.side = side_table(self.session, self.source, self.info)
        self.side_key = list(self.side.primary_key.columns)[:-1]
        return self.side.c[VALUE].type

    def _side_of_row(self) -> str:
        """The rows of the side table that belong to a row of the source, as text."""
        quote, base = self.session.quote, self.session.quote_table(self.source.actual)
        same = (
            f"pinnacle_item.{quote(own.name)} = {base}.{quote(key.name)}"
            for own, key in zip(self.side_key, self.source.key, strict=True)
        )
        return f"FROM {self.session.quote_table(self.side)} AS pinnacle_item WHERE {' AND '.join(same)}"

    def prepare(self, batch: OutputBatch) -> OutputBatch:
        return replace(batch, prepared=batch.outputs)

    def _write_chunk(self, batch: OutputBatch, start: int, stop: int) -> tuple[Sequence[int], float | None]:
        try:
            with self.session.writing_as(self.info.id) as connection:
                began = time.perf_counter()
                newest = sa.select(output.c.version).where(output.c.id == self.info.id)
                self._require_newest(connection.scalar(newest))
                unchanged = self._unchanged(connection, batch.keys[start:stop])
                chosen = [i for i in range(start, stop) if unchanged.get(batch.keys[i]) == (batch.witnesses[i],)]
                if chosen:
                    self._replace(connection, [batch.keys[i] for i in chosen], [batch.outputs[i] for i in chosen])
                    self._record(connection, [batch.keys[i] for i in chosen])
                seconds = time.perf_counter() - began
        except (sa.exc.IntegrityError, sa.exc.DataError) as refused:
            raise RowRejected(f"the database refused a value: {refused.orig}") from refused
        written = set(chosen)
        return [i - start for i in range(start, stop) if i not in written], seconds

    def _unchanged(self, connection: sa.Connection, keys: Sequence[Key]) -> dict[Key, tuple[Any]]:
        """What a write compares, read anew under the transaction's locks."""
        found: dict[Key, tuple[Any]] = {}
        for part in self._parts(keys):
            rows = self._fetch(connection, self._locked_select(part))
            page = self._page(rows, 0, with_state=False)
            found.update((key, (witness,)) for key, witness in zip(page.keys, page.witnesses, strict=True))
        return found

    @abstractmethod
    def _locked_select(self, part: Sequence[Key]) -> Any:
        """The inputs of these rows, locked against change where locks are by row."""

    @abstractmethod
    def _record(self, connection: sa.Connection, keys: Sequence[Key]) -> None:
        """Record the fingerprints of rows as they are inside this transaction."""

    @abstractmethod
    def _insert(self, table: sa.Table) -> Any:
        """The dialect's INSERT, which knows ON CONFLICT."""

    def _replace(self, connection: sa.Connection, keys: Sequence[Key], outputs: Sequence[list[Any] | None]) -> None:
        names = [column.name for column in self.side_key]
        rows, ends = [], []
        for key, items in zip(keys, outputs, strict=True):
            own = dict(zip(names, (key,) if self.width == 1 else tuple(key), strict=True))
            ends.append({f"b_{name}": value for name, value in own.items()} | {"b_end": len(items or [])})
            rows += [{**own, POSITION: position, VALUE: item} for position, item in enumerate(items or [])]
        same = [column == sa.bindparam(f"b_{column.name}", type_=Raw()) for column in self.side_key]
        beyond = sa.delete(self.side).where(*same, self.side.c[POSITION] >= sa.bindparam("b_end"))
        connection.execute(beyond, ends)
        if rows:
            kinds = {name: Raw() for name in names} | {POSITION: sa.Integer(), VALUE: self.side.c[VALUE].type}
            as_given = sa.Table(
                self.side.name, sa.MetaData(), *(sa.Column(name, kind) for name, kind in kinds.items()),
                schema=self.side.schema,
            )  # fmt: skip
            insert = self._insert(as_given)
            differs = as_given.c[VALUE].is_distinct_from(insert.excluded[VALUE])
            upsert = insert.on_conflict_do_update(
                index_elements=[*names, POSITION], set_={VALUE: insert.excluded[VALUE]}, where=differs
            )
            connection.execute(upsert, rows)

    def forget(self, keys: Sequence[Key]) -> None:
        with self.session.writing_as(self.info.id) as connection:
            for part in self._parts(keys):
                same = sa.and_(*(a == b for a, b in zip(self.source.key, self.side_key, strict=True)))
                gone = sa.not_(sa.exists().where(same))
                connection.execute(sa.delete(self.side).where(self._among(part, self.side_key), gone))
        super().forget(keys)

    def blank(self, keys: Sequence[Key]) -> list[Key]:
        selected = self._present(keys, self.source)
        unmatched = [key for key in keys if key not in selected]
        with self.session.writing_as(self.info.id) as connection:
            for part in self._parts(unmatched):
                connection.execute(sa.delete(self.side).where(self._among(part, self.side_key)))
                connection.execute(sa.delete(self.state).where(self._among(part, self.state_key)))
        return []
