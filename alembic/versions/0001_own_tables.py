"""The catalog, outputs, leases and row errors: pinnacle's own tables, first form."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def upgrade() -> None:
    create_catalog()
    create_outputs()
    create_leases()
    create_errors()


def create_catalog() -> None:
    op.create_table(
        "pinnacle_component",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("identifier", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        schema=own_schema(),
    )
    op.create_table(
        "pinnacle_component_artifact",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("identifier", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sha256", sa.Text, primary_key=True),
        schema=own_schema(),
    )
    op.create_table(
        "pinnacle_artifact",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        schema=own_schema(),
    )
    op.create_table(
        "pinnacle_artifact_chunk",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        schema=own_schema(),
    )


def create_outputs() -> None:
    # AUTOINCREMENT: without it SQLite gives a removed output's id, and so its state table's name, to the next one.
    op.create_table(
        "pinnacle_output",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("table_schema", sa.Text, nullable=False, server_default=""),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("created_column", sa.Boolean, nullable=False),
        sa.Column("released", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("table_schema", "table_name", "name", name="pinnacle_output_place"),
        schema=own_schema(),
        sqlite_autoincrement=True,
    )


def create_leases() -> None:
    op.create_table(
        "pinnacle_lease",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("output_id", sa.Integer, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("keys", sa.Text, nullable=False),
        schema=own_schema(),
    )
    op.create_index("pinnacle_lease_output", "pinnacle_lease", ["output_id"], schema=own_schema())
    op.create_index("pinnacle_lease_run", "pinnacle_lease", ["run"], schema=own_schema())


def create_errors() -> None:
    op.create_table(
        "pinnacle_error",
        sa.Column("output_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.Double, nullable=False),
        schema=own_schema(),
    )


TABLES = (
    "pinnacle_error",
    "pinnacle_lease",
    "pinnacle_output",
    "pinnacle_artifact_chunk",
    "pinnacle_artifact",
    "pinnacle_component_artifact",
    "pinnacle_component",
)


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table, schema=own_schema())
