"""Records tables of the usual schema by their name alone, however the schema was named: they are one place."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    usual = "main" if op.get_context().dialect.name == "sqlite" else "public"
    table = ".".join(f'"{part}"' for part in (own_schema(), "pinnacle_output") if part)
    op.execute(
        f"UPDATE {table} SET table_schema = '' WHERE table_schema = '{usual}' AND NOT EXISTS (SELECT 1 FROM {table} "
        "AS other WHERE other.table_schema = '' AND other.table_name = pinnacle_output.table_name "
        "AND other.name = pinnacle_output.name)"
    )


def downgrade() -> None:
    """What was recorded by its schema before is found by its name alone as well."""
