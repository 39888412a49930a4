"""Who trains a model, and the metrics that training runs log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    op.create_table(
        "pinnacle_training",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        schema=own_schema(),
    )
    op.create_table(
        "pinnacle_metric",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.Text, nullable=False),
        schema=own_schema(),
    )


def downgrade() -> None:
    for table in ("pinnacle_metric", "pinnacle_training"):
        op.drop_table(table, schema=own_schema())
