"""Artifacts whose chunks are under the key of their upload, and uploads that are under way or were given up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    # NULL for those that are there already: their chunks are under their hash.
    op.add_column("pinnacle_artifact", sa.Column("key", sa.Text), schema=own_schema())
    op.create_table(
        "pinnacle_upload",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        schema=own_schema(),
    )


def downgrade() -> None:
    op.drop_table("pinnacle_upload", schema=own_schema())
    op.drop_column("pinnacle_artifact", "key", schema=own_schema())
