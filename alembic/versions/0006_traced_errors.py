"""An index of the errors that have a traceback, of which only the newest keep it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    has_traceback = sa.text("traceback != ''")
    op.create_index(
        "pinnacle_error_traced", "pinnacle_error", ["output_id", "failed_at"], schema=own_schema(),
        sqlite_where=has_traceback, postgresql_where=has_traceback,
    )  # fmt: skip


def downgrade() -> None:
    op.drop_index("pinnacle_error_traced", "pinnacle_error", schema=own_schema())
