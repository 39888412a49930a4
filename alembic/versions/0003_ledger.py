"""Usage, the cache of paid results, and batches that providers work on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    create_usage()
    create_cache()
    create_batches()


def create_usage() -> None:
    op.create_table(
        "pinnacle_usage",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("output", sa.Text, primary_key=True),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("retried", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        schema=own_schema(),
    )


def create_cache() -> None:
    op.create_table(
        "pinnacle_cache",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("cached_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        schema=own_schema(),
    )
    op.create_index("pinnacle_cache_age", "pinnacle_cache", ["cached_at", "digest"], schema=own_schema())
    op.create_index("pinnacle_cache_expiry", "pinnacle_cache", ["expires_at"], schema=own_schema())


def create_batches() -> None:
    op.create_table(
        "pinnacle_batch",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("output_id", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("items", sa.Text, nullable=False),
        schema=own_schema(),
    )
    op.create_index("pinnacle_batch_output", "pinnacle_batch", ["output_id"], schema=own_schema())


def downgrade() -> None:
    for table in ("pinnacle_batch", "pinnacle_cache", "pinnacle_usage"):
        op.drop_table(table, schema=own_schema())
