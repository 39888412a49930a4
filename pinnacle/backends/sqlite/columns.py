"""Output types as columns of SQLite."""

from __future__ import annotations

import sqlalchemy as sa

from pinnacle.backends.sql.columns import SqlColumns
from pinnacle.base.types import OutputType, SqliteColumn


class SqliteColumns(SqlColumns):
    """See `SqlColumns`."""

    def of(self, output: OutputType) -> SqliteColumn:
        return output.on_sqlite()

    def declaration(self, output: OutputType, table: sa.Table) -> str:
        return self.of(output).strict if self._is_strict(table) else super().declaration(output, table)

    def _is_strict(self, table: sa.Table) -> bool:
        """Whether the table takes only SQLite's own type names (CREATE TABLE ... STRICT)."""
        query = "SELECT strict FROM pragma_table_list(?) WHERE schema = ?"
        with self._reading() as connection:
            return bool(connection.exec_driver_sql(query, (table.name, table.schema or "main")).scalar())
