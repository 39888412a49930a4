"""Has each output say how its inputs were read, where a class or table declares other types than the database has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    readings = sa.Column("readings", sa.Text, nullable=False, server_default="{}")
    op.add_column("pinnacle_output", readings, schema=own_schema())


def downgrade() -> None:
    op.drop_column("pinnacle_output", "readings", schema=own_schema())
