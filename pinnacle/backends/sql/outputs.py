"""Creates, adopts, lists and forgets outputs; the registry row and state table behind each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from pinnacle.backends.sql import places
from pinnacle.backends.sql.records import BROKEN, broken, output_info, output_infos
from pinnacle.backends.sql.schema import batch, error, lease, state_name, state_table
from pinnacle.backends.sql.schema import output as registry
from pinnacle.backends.sql.session import SqlSession
from pinnacle.backends.sql.side import VALUE, side_table
from pinnacle.backends.sql.source import (
    USUAL_SCHEMAS,
    SqlSource,
    full_name,
    input_columns,
    place_schema,
    schema_of,
    stored_fields,
    table_named,
    table_of,
    usual_schema,
)
from pinnacle.backends.sql.stored import freeze_rows, stored_readings
from pinnacle.base.encoding import safe_name
from pinnacle.base.errors import BackendError, ConfigError
from pinnacle.base.refusals import (
    foreign_side,
    no_output,
    not_proven,
    require_name,
    require_owner,
    require_same_items,
)
from pinnacle.base.rows import Fields, OutputInfo, OutputSpec
from pinnacle.base.told import logger
from pinnacle.base.types import Items

log = logger(__name__)


class SqlOutputs:
    """The outputs of one database."""

    def __init__(self, session: SqlSession) -> None:
        self._session = session

    def all(self) -> list[OutputInfo]:
        return output_infos(self._rows())

    def of(self, model: str) -> list[OutputInfo]:
        return output_infos(self._rows(registry.c.model == model))

    def find(self, entity: Any, fields: Fields, model: str) -> OutputInfo | None:
        table, paths = table_named(table_of(entity)), stored_fields(entity, fields).paths
        with self._session.reading() as connection:
            schema = schema_of(connection, table)
        place = full_name("" if schema == USUAL_SCHEMAS.get(connection.dialect.name) else schema, table.name)
        found = [info for info in self.of(model) if info.table == place and info.fields.paths == paths]
        return found[0] if found else None

    def column(self, entity: Any, info: OutputInfo) -> Any:
        table, name = table_of(entity), info.name
        if isinstance(info.type, Items):
            table, name = sa.table(info.name, schema=table_named(table).schema), VALUE
        return sa.sql.expression.ColumnClause(name, self._session.columns.type_of(info.type.stored), _selectable=table)

    def rows(self, info: OutputInfo) -> dict[str, Any]:
        """As a stored query, whose inputs are read as they were last."""
        place = sa.select(registry.c.table_schema, registry.c.table_name, registry.c.readings)
        with self._session.reading() as connection:
            schema, name, readings = connection.execute(place.where(registry.c.id == info.id)).one()
        try:
            return freeze_rows(schema or None, name, dict(json.loads(readings)))
        except BROKEN as error:
            raise broken(f"output {info.table}.{info.name}", error) from error

    def _recorded(self, *conditions: Any) -> list[OutputInfo]:
        return list(map(output_info, self._rows(*conditions)))

    def _rows(self, *conditions: Any) -> Sequence[Any]:
        if not self._session.is_migrated():
            return []
        with self._session.reading() as connection:
            return connection.execute(sa.select(registry).where(*conditions).order_by(registry.c.id)).all()

    def at(self, source: SqlSource, name: str) -> OutputInfo | None:
        """The output recorded at a column, if any."""
        found = self._recorded(*_place(source.actual), registry.c.name == name)
        return found[0] if found else None

    def check(self, source: SqlSource, spec: OutputSpec) -> OutputInfo | None:
        """Refuse what cannot become an output; return the one that is there already."""
        require_name(spec.name)
        if spec.name in set(input_columns(source)) | {column.name for column in source.key}:
            raise ConfigError(
                f"the output {spec.name!r} would overwrite an input or key of the model; choose another with output="
            )
        is_side = isinstance(spec.type, Items)
        if not is_side and spec.name not in source.actual.c and spec.name.lower() in self._session.own_columns:
            raise ConfigError(
                f"{spec.name!r} is the database's own name for a column of every table; choose another with output="
            )
        if not is_side and self._session.ignores_case and spec.name not in source.actual.c:
            alike = [name for name in source.actual.c.keys() if name.lower() == spec.name.lower()]  # noqa: SIM118
            if alike:
                raise ConfigError(
                    f"the table has a column {alike[0]!r}, and the database takes {spec.name!r} for the same name; "
                    "choose another with output="
                )
        existing = self.at(source, spec.name)
        if existing is not None:
            require_owner(existing, spec)
            if not spec.adopt and not self._is_proven(existing, source, spec):
                raise not_proven(existing)
        if is_side:
            self._check_side(source, spec, existing)
            return existing
        column = source.actual.c.get(spec.name)
        ours = existing is not None and existing.created_column and existing.type == spec.type
        if column is not None and not ours:
            self._session.columns.check_adoptable(spec.type, column, source.table)
        return existing

    def _is_proven(self, existing: OutputInfo, source: SqlSource, spec: OutputSpec) -> bool:
        """Whether pinnacle made the place, or was told to fill it."""
        with self._session.reading() as connection:
            found = places.proven(self._session, connection, existing.id)
        return found is not None and found[0] == places.Place.of(source, spec)

    def _check_side(self, source: SqlSource, spec: OutputSpec, existing: OutputInfo | None) -> None:
        with self._session.reading() as connection:
            kind = None if existing else self._session.relation(connection, source.actual.schema, spec.name)
        if kind is not None:
            raise foreign_side(kind, spec.name)
        if existing is not None:
            require_same_items(existing, spec)
            self._check_side_key(source, existing)

    def _check_side_key(self, source: SqlSource, existing: OutputInfo) -> None:
        """Refuse a side table that has not the columns of the key, which has become another."""
        with self._session.reading() as connection:
            if not (inspector := sa.inspect(connection)).has_table(existing.name, schema=source.actual.schema):
                return
            there = {column["name"] for column in inspector.get_columns(existing.name, schema=source.actual.schema)}
        wanted = [column.name for column in list(side_table(self._session, source, existing).primary_key.columns)[:-1]]
        if not there.issuperset(wanted):
            raise ConfigError(
                f"the items in {existing.name!r} are kept by another key than {source.table} has now, which is "
                f"({', '.join(column.name for column in source.key)}): drop that table, and it is made anew"
            )

    def has_side(self, schema: str | None, name: str) -> bool:
        with self._session.reading() as connection:
            return sa.inspect(connection).has_table(name, schema=schema)

    def has_state(self, output: int) -> bool:
        with self._session.reading() as connection:
            return sa.inspect(connection).has_table(state_name(output), schema=self._session.schema)

    def _is_missing(self, source: SqlSource, spec: OutputSpec) -> bool:
        if isinstance(spec.type, Items):
            return not self.has_side(source.actual.schema, spec.name)
        return spec.name not in source.actual.c

    def foreign(self, source: SqlSource, spec: OutputSpec) -> int:
        column = source.actual.c.get(spec.name)
        if isinstance(spec.type, Items) or column is None:
            return 0
        existing = self.at(source, spec.name)
        has_state = existing is not None and self.has_state(existing.id)
        with self._session.reading() as connection:
            if existing is not None and has_state:
                state = sa.Table(state_name(existing.id), sa.MetaData(schema=registry.schema))
                if connection.scalar(sa.select(sa.literal(1)).select_from(state).limit(1)) is not None:
                    return 0
            values = sa.select(sa.func.count()).select_from(source.actual).where(column.is_not(None))
            return int(connection.scalar(values) or 0)

    def plan(self, source: SqlSource, spec: OutputSpec) -> list[str]:
        existing = self.check(source, spec)
        statements = []
        if existing is None:
            number = (max((info.id for info in self.all()), default=0)) + 1
            made = self._is_missing(source, spec)
            statements.append(create_state(self._session, source, number))
            statements.append(places.creation(self._session, number, places.Place.of(source, spec), made=made))
        if self._is_missing(source, spec):
            statements += [*self._session.columns.prerequisites(spec.type.stored), self._add_column(source, spec)]
        return statements

    def ensure(self, source: SqlSource, spec: OutputSpec) -> OutputInfo:
        """Record the output, make its state table, create or adopt the column, raise its version."""
        existing = self.check(source, spec)
        recorded = existing or self._record(source, spec)
        if existing is not None and not self.has_state(existing.id):  # somebody dropped it: all is computed anew
            with self._session.writing() as connection:
                self._session.run_text(connection, create_state(self._session, source, existing.id, if_lost=True))
        if existing is not None and not self._is_proven(existing, source, spec):
            with self._session.writing() as connection:
                self._say_place(connection, existing.id, source, spec, made=False)
        if self._is_missing(source, spec):
            try:
                self._create_column(source, spec)
            except BackendError:
                if existing is None:
                    self.forget(recorded.id, drop_column=False)
                raise
        if recorded.version < spec.version:
            with self._session.writing() as connection:
                connection.execute(
                    sa.update(registry)
                    .where(registry.c.id == recorded.id, registry.c.version < spec.version)
                    .values(version=spec.version, type=json.dumps(spec.type.to_json()))
                )
        self._note_readings(recorded.id, json.dumps(stored_readings(source)))
        found = self._recorded(registry.c.id == recorded.id)[0]
        require_owner(found, spec)
        return found

    def _note_readings(self, output: int, readings: str) -> None:
        """Keep how the inputs are read, for who computes rows again by the output alone."""
        mine = registry.c.id == output
        with self._session.reading() as connection:
            if connection.scalar(sa.select(registry.c.readings).where(mine)) == readings:
                return
        with self._session.writing() as connection:
            connection.execute(sa.update(registry).where(mine).values(readings=readings))

    def _create_column(self, source: SqlSource, spec: OutputSpec) -> None:
        for statement in self._session.columns.prerequisites(spec.type.stored):
            with self._session.writing() as connection:
                self._session.run_text(connection, statement)
        if isinstance(spec.type, Items):
            with self._session.writing() as connection:
                self._session.run_text(connection, self._add_column(source, spec))
            return
        self._session.alter(source.actual, self._add_column(source, spec), spec.name)

    def _record(self, source: SqlSource, spec: OutputSpec) -> OutputInfo:
        """Before the column is there, so that of two processes the one that records says truly who made it."""
        is_made = self._is_missing(source, spec)
        row = {
            "table_schema": place_schema(source.actual), "table_name": source.actual.name, "name": spec.name,
            "model": spec.model, "version": spec.version, "fields": json.dumps(spec.fields.to_json()),
            "type": json.dumps(spec.type.to_json()), "created_column": is_made,
            "created_at": datetime.now(UTC),
        }  # fmt: skip
        try:
            with self._session.writing() as connection:
                number = connection.scalar(sa.insert(registry).values(row).returning(registry.c.id))
                name = state_name(int(number or 0))
                if sa.inspect(connection).has_table(name, schema=self._session.schema):  # from a plan run by hand
                    self._session.run_text(connection, f"DELETE FROM {self._session.own(name)}")
                else:
                    self._session.run_text(connection, create_state(self._session, source, int(number or 0)))
                self._say_place(connection, int(number or 0), source, spec, made=is_made)
        except sa.exc.IntegrityError:  # another process recorded it first
            found = self.at(source, spec.name)
            if found is None:
                raise
            require_owner(found, spec)
            return found
        return self._recorded(registry.c.id == number)[0]

    def _say_place(
        self, connection: sa.Connection, number: int, source: SqlSource, spec: OutputSpec, *, made: bool
    ) -> None:
        said = places.creation(self._session, number, places.Place.of(source, spec), made=made)
        for statement in (places.dropping(self._session, number), said):
            self._session.run_text(connection, statement)

    def forget(self, output: int, *, drop_column: bool) -> None:
        found = self._recorded(registry.c.id == output)
        if not found:
            raise no_output(output)
        info = found[0]
        if drop_column and self.is_made(info):
            self.drop_column(info)
        with self._session.writing() as connection:
            state = sa.Table(state_name(info.id), sa.MetaData(schema=registry.schema))
            connection.execute(sa.schema.DropTable(state, if_exists=True))
            self._session.run_text(connection, places.dropping(self._session, info.id))
            for table in (lease, error, batch):
                connection.execute(sa.delete(table).where(table.c.output_id == info.id))
            connection.execute(sa.delete(registry).where(registry.c.id == info.id))

    def is_made(self, info: OutputInfo) -> bool:
        """Whether pinnacle made the column or side table of an output, and not only its registry says so."""
        is_made = info.created_column and places.is_made(self._session, info)
        if info.created_column and not is_made:
            log.warning("%s.%s stays: nothing proves that pinnacle made it", info.table, info.name)
        return is_made

    def table_of(self, info: OutputInfo) -> sa.TableClause:
        """The user's table that holds an output."""
        with self._session.reading() as connection:
            query = sa.select(registry.c.table_schema, registry.c.table_name).where(registry.c.id == info.id)
            schema, name = connection.execute(query).one()
            schema = schema or usual_schema(connection, name)
        return sa.table(name, sa.column(info.name), schema=schema)

    def drop_column(self, info: OutputInfo) -> None:
        """Drop an output's column or side table, unless that is done already."""
        if isinstance(info.type, Items):
            with self._session.writing() as connection:
                self._session.run_text(connection, self.drop_column_sql(info))
            return
        self._session.alter(self.table_of(info), self.drop_column_sql(info), info.name, drops=True)

    def drop_column_sql(self, info: OutputInfo) -> str:
        if isinstance(info.type, Items):
            side = sa.table(info.name, schema=self.table_of(info).schema)
            return f"DROP TABLE IF EXISTS {self._session.quote_table(side)}"
        table = self._session.quote_table(self.table_of(info))
        return f"ALTER TABLE {table} DROP COLUMN {self._session.quote(info.name)}"

    def _add_column(self, source: SqlSource, spec: OutputSpec) -> str:
        if isinstance(spec.type, Items):
            info = OutputInfo.unmade(source.table, spec, created_column=True)
            created = CreateTable(side_table(self._session, source, info), if_not_exists=True)
            return self._session.plain(str(created.compile(dialect=self._session.dialect))).strip()
        kind = self._session.columns.declaration(spec.type, source.actual)
        table = self._session.quote_table(source.actual)
        return f"ALTER TABLE {table} ADD COLUMN {self._session.quote(spec.name)} {kind}"


def create_state(session: SqlSession, source: SqlSource, number: int, *, if_lost: bool = False) -> str:
    """The statement that makes an output's state table."""
    table = state_table(number, [source.actual.c[column.name] for column in source.key])
    created = CreateTable(table, if_not_exists=if_lost).compile(
        dialect=session.dialect, schema_translate_map=session.translate, render_schema_translate=True
    )
    return session.plain(str(created)).strip() + session.state_suffix(table)


def outputs_on(connection: sa.Connection, table: sa.Table) -> list[OutputInfo]:
    """The outputs recorded on a table."""
    return output_infos(connection.execute(sa.select(registry).where(*_place(table))))


def side_outputs(connection: sa.Connection, table: sa.Table) -> list[OutputInfo]:
    """The outputs that have ``table`` for their side table."""
    place = registry.c.table_schema == place_schema(table), registry.c.name == table.name
    found = output_infos(connection.execute(sa.select(registry).where(*place)))
    return [info for info in found if info.name == table.name]


def default_name(fields: Fields, identifier: str) -> str:
    """``{X}__{identifier}``, cut to what every database takes."""
    return safe_name(f"{fields.label}__{identifier}")


def _place(table: sa.Table) -> tuple[Any, Any]:
    return registry.c.table_schema == place_schema(table), registry.c.table_name == table.name
