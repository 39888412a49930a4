"""Gives each database an identity, by which one is told from another that takes its place in the same file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    op.create_table("pinnacle_identity", sa.Column("id", sa.Text, primary_key=True), schema=own_schema())
    is_sqlite = op.get_context().dialect.name == "sqlite"
    unique = "lower(hex(randomblob(16)))" if is_sqlite else "replace(CAST(gen_random_uuid() AS text), '-', '')"
    place = ".".join(f'"{part}"' for part in (own_schema(), "pinnacle_identity") if part)
    op.execute(f"INSERT INTO {place} (id) VALUES ({unique})")


def downgrade() -> None:
    op.drop_table("pinnacle_identity", schema=own_schema())
