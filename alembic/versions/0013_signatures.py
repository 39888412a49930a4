"""Keeps beside each component what a process with a secret has signed it with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SIGNED = "pinnacle_component"


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    op.add_column(SIGNED, sa.Column("mac", sa.Text), schema=own_schema())


def downgrade() -> None:
    op.drop_column(SIGNED, "mac", schema=own_schema())
