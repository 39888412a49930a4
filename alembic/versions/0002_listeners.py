"""The registry of listeners."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    op.create_table(
        "pinnacle_listener",
        sa.Column("output_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("identifier", sa.Text, nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("shape", sa.Text, nullable=False),
        sa.Column("position", sa.Text, nullable=False, server_default=""),
        sa.Column("paused", sa.Text),
        sa.Column("sweep", sa.Text),
        sa.Column("swept_at", sa.Double, nullable=False, server_default="0"),
        sa.Column("folded_at", sa.Double, nullable=False, server_default="0"),
        sa.Column("processed", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        sa.Column("error_at", sa.Double),
        sa.Column("is_writing", sa.Boolean, nullable=False, server_default=sa.false()),
        schema=own_schema(),
    )


def downgrade() -> None:
    op.drop_table("pinnacle_listener", schema=own_schema())
