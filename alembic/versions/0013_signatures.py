"""Keeps beside each definition what a process with a secret has signed it with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SIGNED = ("pinnacle_component", "pinnacle_output", "pinnacle_listener", "pinnacle_batch")


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    for table in SIGNED:
        op.add_column(table, sa.Column("mac", sa.Text), schema=own_schema())


def downgrade() -> None:
    for table in SIGNED:
        op.drop_column(table, "mac", schema=own_schema())
