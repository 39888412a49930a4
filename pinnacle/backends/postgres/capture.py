"""The triggers of one listener on PostgreSQL, and the functions that they run, as SQL text.

Inserts, deletes and truncates are captured by statement. An update is captured by row, where
the trigger's WHEN says so: an expression that the database has parsed knows columns by number
and survives their renaming. A function looks first whether the key is called as it was, as its
text would make the user's update fail. The same way serves all row changes of partitioned
tables and of replication.

The functions run with the rights of pinnacle's role, whoever writes. So each works for its own
table alone, nobody else may make a trigger of it, and nothing that a stranger defined runs in
it: no cast, no operator, no check of a domain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pinnacle.backends.postgres.session import PostgresSession
from pinnacle.backends.postgres.statements import Kind, quoted
from pinnacle.backends.postgres.wake import CHANNEL
from pinnacle.backends.sql.schema import outbox_name
from pinnacle.backends.sql.source import USUAL_SCHEMAS
from pinnacle.base.rows import OutputInfo

SETTINGS = "SET search_path = pg_catalog, pg_temp"
BYTEWISE = frozenset(
    {
        "smallint", "integer", "bigint", "boolean", "text", "character varying", "uuid", "bytea", "date",
        "timestamp without time zone", "timestamp with time zone",
    }
)  # fmt: skip
"""Types whose values are equal only where their bytes are, unless a column has a collation of its own."""
AS_TEXT = frozenset({"smallint", "integer", "bigint", "numeric", "boolean", "text", "character varying", "uuid"})
"""Types of keys that the outbox holds as text, which is the same under all settings of a session: a value of any type
has one, so that a key of another type than it was makes no statement of the user's fail."""
FUNCTIONS = ("row", "insert", "delete", "truncate", "clear", "never", "change", "side_change")
"""Those that any version made: "row", which everybody may call, and "never" are of triggers that older ones made."""
NAMES = "(pg_identify_object_as_address('pg_class'::regclass, {}, {})).object_names"
"""The names of a table's schema, its own and a column's, by numbers, as they are now: a query would see them as the
user's snapshot does."""
BASE = "pinnacle_base"
"""The variable of a function that holds which table it works for."""


def capture_function(number: int, kind: str) -> str:
    """The name of one of the functions that a listener's triggers run."""
    return f"pinnacle_capture_{number}_{kind}"


def capture_drops(session: PostgresSession, number: int) -> list[str]:
    """The functions, and with them the triggers that run them, whether or not they are there."""
    return [
        f"DROP FUNCTION IF EXISTS {session.own(capture_function(number, kind))} CASCADE" for kind in reversed(FUNCTIONS)
    ]


def kept_as(kind: Kind) -> str:
    """How the outbox holds a part of the key."""
    return "text" if kind.bare in AS_TEXT else kind.with_collation


@dataclass(frozen=True, kw_only=True)
class Capture:
    """What is captured, and how.

    ``side_key``: the columns of the ``side`` table that hold the key. ``family_owner``: who owns the table, where rows
    also change through other tables: partitions have a parent, and children may. ``clears``: an update of the inputs
    takes the output away. ``always``: what replication applies is captured too.
    """

    session: PostgresSession
    info: OutputInfo
    table: sa.Table
    key: Sequence[str]
    kinds: Mapping[str | None, Kind]
    inputs: Sequence[str]
    watched: Sequence[str]
    side: sa.Table | None
    side_key: Sequence[str]
    family_owner: str | None
    notifies: bool
    clears: bool
    always: bool

    def triggers(self) -> dict[str, list[str]]:
        """The statements that make each trigger, by the trigger's name, in order."""
        by_row = self.always or self.family_owner is not None
        made = {**self._truncate(), **self._update_by_row()}
        made |= self._all_by_row() if by_row else self._by_statement()
        made |= self._side_triggers()
        if self.clears:
            made |= self._clear()
        if self.always:
            table = self.session.quote_table(self.table)
            for name, statements in made.items():
                is_side = self.side is not None and name.startswith(self._name("side_"))
                on = self.session.quote_table(self.side) if is_side and self.side is not None else table
                statements.append(f"ALTER TABLE {on} ENABLE ALWAYS TRIGGER {self.session.quote(name)}")
        first = next(iter(made))
        made[first] = [*self._row_functions(), *made[first]]
        return made

    def _name(self, kind: str) -> str:
        return f"pinnacle_{self.info.id}_{kind}"

    def _clear_name(self) -> str:
        """After all others in the alphabet, by which triggers fire: those of the user may change an input."""
        return f"~{self._name('clear')}"

    def _function(self, kind: str) -> str:
        return f"{self.session.own(capture_function(self.info.id, kind))}()"

    @property
    def _outbox(self) -> str:
        return self.session.own(outbox_name(self.info.id))

    @property
    def _keys(self) -> str:
        return ", ".join(f"k{i}" for i in range(len(self.key)))

    @property
    def _numbers(self) -> list[int]:
        return [self.kinds[name].number for name in self.key]

    def _is_text(self, i: int) -> bool:
        return kept_as(self.kinds[self.key[i]]) == "text"

    # -- the functions ---------------------------------------------------------------------------------

    def _row_functions(self) -> list[str]:
        """Those that record one row's change, of the table and of the side table."""
        made = self._row_function("change", self.table, self.key, self._numbers)
        if self.side is not None:  # which has its key first
            made += self._row_function("side_change", self.side, self.side_key, range(1, len(self.key) + 1))
        return made

    def _row_function(self, kind: str, table: sa.Table, key: Sequence[str], numbers: Sequence[int]) -> list[str]:
        parts = {row: [f"{row}.{self.session.quote(name)}" for name in key] for row in ("OLD", "NEW")}
        put = {
            row: f"INSERT INTO {self._outbox} ({self._keys}) VALUES ({self._put(values)});"
            for row, values in parts.items()
        }
        is_other = f"record_image_ne(row({', '.join(parts['OLD'])}), row({', '.join(parts['NEW'])}))"
        body = (
            f"IF TG_OP <> 'DELETE' THEN {put['NEW']} END IF; IF TG_OP = 'DELETE' THEN {put['OLD']} "
            f"ELSIF TG_OP = 'UPDATE' THEN IF {is_other} THEN {put['OLD']} END IF; END IF; {self._wake()}RETURN NULL; "
        )
        return self._definer(kind, [table], f"{self._unless_moved(key, numbers)}{body}")

    def _definer(self, kind: str, tables: Sequence[sa.Table], body: str) -> list[str]:
        """A function with the rights of pinnacle's role, for triggers of these tables alone; nothing is done where the
        outbox was taken away under its triggers."""
        places = [tuple(map(quoted, _place(table))) for table in tables]
        is_it = " OR ".join(f"TG_TABLE_SCHEMA = {schema} AND TG_TABLE_NAME = {name}" for schema, name in places)
        wanted = ", ".join(f"ARRAY[{schema}, {name}]" for schema, name in places)
        found, else_found = f"CASE WHEN {is_it} THEN TG_RELID END", ""
        if self.family_owner is not None:  # a query costs more than all else, and is for partitions of partitions
            root = "pg_partition_root(TG_RELID)"
            found = f"coalesce({found}, CASE WHEN {NAMES.format(root, 0)} IN ({wanted}) THEN CAST({root} AS oid) END)"
            else_found = (
                f"IF {BASE} IS NULL THEN {BASE} := (SELECT CAST(relid AS oid) FROM pg_partition_ancestors(TG_RELID) "
                f"WHERE {NAMES.format('relid', 0)} IN ({wanted}) LIMIT 1); END IF; "
            )
        text = (
            f"DECLARE {BASE} oid := {found}; BEGIN {else_found}"
            f"IF {BASE} IS NULL OR to_regclass({quoted(self._outbox)}) IS NULL THEN RETURN NULL; END IF; {body}END"
        )
        return self._made(kind, f"SECURITY DEFINER {SETTINGS}", text)

    def _made(self, kind: str, settings: str, text: str) -> list[str]:
        """A function of which nobody else may make a trigger, but for who owns a table of partitions: new ones get the
        triggers of their parent with that role's rights."""
        function = self._function(kind)
        made = [
            f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql {settings} "
            f"AS $pinnacle$ {text} $pinnacle$",
            f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC",
        ]
        if self.family_owner is not None:
            made.append(f"GRANT EXECUTE ON FUNCTION {function} TO {self.session.quote(self.family_owner)}")
        return made

    def _unless_moved(self, key: Sequence[str], numbers: Sequence[int]) -> str:
        """What has a function ask for a sweep where the key is not where it was, and a statement that names its
        columns would fail. To look first takes no subtransaction, as to catch the error would."""
        tests = []
        for i, (name, number) in enumerate(zip(key, numbers, strict=True)):
            tests.append(f"({NAMES.format(BASE, number)})[3] IS DISTINCT FROM {quoted(name)}")
            if not self._is_text(i):
                tests.append(
                    "NOT EXISTS (SELECT FROM pg_attribute AS a JOIN pg_attribute AS b USING (atttypid, atttypmod) "
                    f"WHERE a.attrelid = {BASE} AND a.attnum = {number} "
                    f"AND b.attrelid = to_regclass({quoted(self._outbox)}) AND b.attname = 'k{i}')"
                )
        return f"IF {' OR '.join(tests)} THEN INSERT INTO {self._outbox} (k0) VALUES (NULL); RETURN NULL; END IF; "

    def _put(self, values: Sequence[str]) -> str:
        """The parts of a key as the outbox takes them. Text is made by the type's own output function: a cast may be
        one that a stranger has made for a type of theirs."""
        return ", ".join(
            f"CASE WHEN {value} IS NOT NULL THEN format('%s', {value}) END" if self._is_text(i) else value
            for i, value in enumerate(values)
        )

    def _wake(self) -> str:
        return f"PERFORM pg_notify('{CHANNEL}', ''); " if self.notifies else ""

    # -- the triggers ------------------------------------------------------------------------------------

    def _trigger(self, kind: str, function: str, event: str) -> dict[str, list[str]]:
        name = self._name(kind)
        return {
            name: [f"CREATE TRIGGER {self.session.quote(name)} {event} EXECUTE FUNCTION {self._function(function)}"]
        }

    def _by_statement(self) -> dict[str, list[str]]:
        made: dict[str, list[str]] = {}
        on, unless_moved = self.session.quote_table(self.table), self._unless_moved(self.key, self._numbers)
        chosen = self._put([f"r.{self.session.quote(name)}" for name in self.key])
        for kind, rows in (("insert", "NEW"), ("delete", "OLD")):
            body = (
                f"{unless_moved}INSERT INTO {self._outbox} ({self._keys}) SELECT {chosen} FROM pinnacle_rows AS r; "
                f"IF FOUND THEN {self._wake()}END IF; RETURN NULL; "
            )
            event = f"AFTER {kind.upper()} ON {on} REFERENCING {rows} TABLE AS pinnacle_rows FOR EACH STATEMENT"
            for name, statements in self._trigger(kind, kind, event).items():
                made[name] = [*self._definer(kind, [self.table], body), *statements]
        return made

    def _truncate(self) -> dict[str, list[str]]:
        body = f"INSERT INTO {self._outbox} (k0) VALUES (NULL); {self._wake()}RETURN NULL; "
        tables = [table for table in (self.table, self.side) if table is not None]
        made = self._trigger("truncate", "truncate", self._truncate_of(self.table))
        return {name: [*self._definer("truncate", tables, body), *statements] for name, statements in made.items()}

    def _truncate_of(self, table: sa.Table) -> str:
        return f"AFTER TRUNCATE ON {self.session.quote_table(table)} FOR EACH STATEMENT"

    def _by_others(self) -> str:
        writer = "coalesce(pg_catalog.current_setting('pinnacle.writer', true), '')"
        return f"{writer} OPERATOR(pg_catalog.<>) '{self.info.id}'"

    def _update_by_row(self) -> dict[str, list[str]]:
        changed = f"({' OR '.join(self._differences())}) AND {self._by_others()}"
        on = self.session.quote_table(self.table)
        return self._trigger("update", "change", f"AFTER UPDATE ON {on} FOR EACH ROW WHEN ({changed})")

    def _all_by_row(self) -> dict[str, list[str]]:
        on = self.session.quote_table(self.table)
        return {
            **self._trigger("insert", "change", f"AFTER INSERT ON {on} FOR EACH ROW"),
            **self._trigger("delete", "change", f"AFTER DELETE ON {on} FOR EACH ROW"),
        }

    def _side_triggers(self) -> dict[str, list[str]]:
        """Changes of the side rows by others count as changes of their source row."""
        if self.side is None:
            return {}
        on, made = self.session.quote_table(self.side), dict[str, list[str]]()
        for kind in ("insert", "update", "delete"):
            event = f"AFTER {kind.upper()} ON {on} FOR EACH ROW WHEN ({self._by_others()})"
            made |= self._trigger(f"side_{kind}", "side_change", event)
        return made | self._trigger("side_truncate", "truncate", self._truncate_of(self.side))

    def _clear(self) -> dict[str, list[str]]:
        """By a JSON object, which ignores a name that the row no longer has."""
        blank = json.dumps({self.info.name: None}).replace("'", "''")
        text = f"BEGIN NEW := jsonb_populate_record(NEW, '{blank}'::jsonb); RETURN NEW; END"
        changed = f"pg_catalog.record_image_ne({self._record('old', self.inputs)}, {self._record('new', self.inputs)})"
        return {
            self._clear_name(): [
                *self._made("clear", SETTINGS, text),
                f"CREATE TRIGGER {self.session.quote(self._clear_name())} BEFORE UPDATE ON "
                f"{self.session.quote_table(self.table)} FOR EACH ROW WHEN ({changed}) "
                f"EXECUTE FUNCTION {self._function('clear')}",
            ]
        }

    def _differences(self) -> list[str]:
        """Tests of the watched columns' bytes. To make records of them takes longer than to compare what can be."""
        by_image = [column for column in self.watched if not self._is_bytewise(column)]
        tests = [
            f"{self._compared('old', column)} IS DISTINCT FROM {self._compared('new', column)}"
            for column in self.watched
            if column not in by_image
        ]
        if by_image:
            images = ", ".join(self._record(side, by_image) for side in ("old", "new"))
            tests.append(f"pg_catalog.record_image_ne({images})")
        return tests

    def _is_bytewise(self, column: str) -> bool:
        kind = self.kinds.get(column)
        if kind is None:  # an output that is only planned yet
            return self.session.columns.declaration(self.info.type, self.table).lower() in BYTEWISE
        return kind.bare in BYTEWISE and kind.with_collation == kind.declared

    def _compared(self, side: str, column: str) -> str:
        """As a type that the database has an operator of its own for; of another, somebody's may be the nearest."""
        value, kind = f"{side}.{self.session.quote(column)}", self.kinds.get(column)
        return f"CAST({value} AS text)" if kind is not None and kind.bare == "character varying" else value

    def _record(self, side: str, columns: Sequence[str]) -> str:
        return f"row({', '.join(f'{side}.{self.session.quote(column)}' for column in columns)})"


def _place(table: sa.Table) -> tuple[str, str]:
    return str(table.schema or USUAL_SCHEMAS["postgresql"]), str(table.name)
