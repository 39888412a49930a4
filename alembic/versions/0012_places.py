"""Says by a view of each output where it is and whether pinnacle made that place, as the registry has it now; and takes
the functions of capture from everybody else. Who may write the registry alone cannot point it elsewhere any more.

Once: one more view says that this was done, as the revision is a row that they may write, too.

The functions that a trigger's WHEN calls stay open until a worker makes the triggers anew: writers need them.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = ("table_schema", "table_name", "name", "kind", "model", "fields", "made")


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def own(name: str) -> str:
    return ".".join(f'"{part}"' for part in (own_schema(), name) if part)


def upgrade() -> None:
    config = op.get_context().config
    known = [] if config is None else config.attributes["places"]
    if known is not None:
        op.execute(f"CREATE VIEW {own('pinnacle_place_0')} AS SELECT 'the views beside this one are proof' AS said")
    for number, schema, table, name, stored, model, fields, made in known or []:
        usual = "main" if op.get_context().dialect.name == "sqlite" else "public"
        is_side = isinstance(kind := json.loads(stored), dict) and kind.get("type") == "items"
        read = json.dumps(json.loads(fields), sort_keys=True)
        values = ("" if schema == usual else schema, table, name, "table" if is_side else "column", model, read)
        said = zip(COLUMNS, (*values, "made" if made else "adopted"), strict=True)
        text = ", ".join(f"{literal(value)} AS {column}" for column, value in said)
        op.execute(sa.text(f"CREATE VIEW {own(f'pinnacle_place_{number}')} AS SELECT {text}".replace(":", r"\:")))
    if op.get_context().dialect.name == "postgresql":
        op.execute(f'REVOKE ALL ON SCHEMA "{own_schema()}" FROM PUBLIC')
        op.execute(close_functions(str(own_schema())).replace(":", r"\:"))


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def close_functions(schema: str) -> str:
    return (
        "DO $pinnacle$ DECLARE name text; BEGIN FOR name IN SELECT CAST(CAST(oid AS regprocedure) AS text) "
        f"FROM pg_proc WHERE pronamespace = to_regnamespace('\"{schema}\"') "
        "AND starts_with(proname, 'pinnacle_capture_') AND prosecdef AND prorettype = CAST('trigger' AS regtype) "
        "LOOP EXECUTE 'REVOKE ALL ON FUNCTION ' || name || ' FROM PUBLIC'; END LOOP; END $pinnacle$"
    )


def downgrade() -> None:
    """The views stay: what they say is not to be said anew of rows that somebody may have changed meanwhile."""
