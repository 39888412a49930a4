"""Names leases by the words of the glossary: ``owner`` is who holds one (a token), ``process`` where it runs."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

RENAMED = (
    ("pinnacle_lease", "owner", "process"),
    ("pinnacle_lease", "run", "owner"),
    ("pinnacle_upload", "owner", "process"),
    ("pinnacle_training", "owner", "process"),
)


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    for table, old, new in RENAMED:
        op.alter_column(table, old, new_column_name=new, schema=own_schema())
    op.drop_index("pinnacle_lease_run", "pinnacle_lease", schema=own_schema())
    op.create_index("pinnacle_lease_owner", "pinnacle_lease", ["owner"], schema=own_schema())


def downgrade() -> None:
    op.drop_index("pinnacle_lease_owner", "pinnacle_lease", schema=own_schema())
    for table, old, new in reversed(RENAMED):
        op.alter_column(table, new, new_column_name=old, schema=own_schema())
    op.create_index("pinnacle_lease_run", "pinnacle_lease", ["run"], schema=own_schema())
