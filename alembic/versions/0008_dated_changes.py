"""Has each listener's outbox say when a change was made. Triggers that are there go on: the database fills it in."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def own_schema() -> str | None:
    """The schema of pinnacle's tables: the one that the revision is kept in."""
    return op.get_context().version_table_schema


def outboxes() -> list[str]:
    """The outboxes, quoted: listeners make them, and only the database knows how many there are."""
    config = op.get_context().config
    names = [] if config is None else config.attributes["outboxes"]
    return [".".join(f'"{part}"' for part in (own_schema(), name) if part) for name in names]


def upgrade() -> None:
    for outbox in outboxes():
        if op.get_context().dialect.name == "sqlite":
            date_in_sqlite(outbox)
        else:
            # A fixed default first: the table is not written anew, and its lock is held for a moment only.
            op.execute(f"ALTER TABLE {outbox} ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now()")
            op.execute(f"ALTER TABLE {outbox} ALTER COLUMN changed_at SET DEFAULT clock_timestamp()")
            op.execute(keep_keys_as_text(outbox))


def keep_keys_as_text(outbox: str) -> str:
    """As outboxes are made now, so that a key that is widened later fits. The older triggers' values are assigned."""
    kinds = "smallint, integer, bigint, numeric, boolean, character varying, uuid"
    return (
        "DO $pinnacle$ DECLARE part text; BEGIN FOR part IN SELECT attname FROM pg_attribute "
        f"WHERE attrelid = CAST('{outbox}' AS regclass) AND attname ~ '^k[0-9]+$' AND NOT attisdropped "
        f"AND format_type(atttypid, NULL) = ANY(string_to_array('{kinds}', ', ')) "
        f"LOOP EXECUTE 'ALTER TABLE {outbox} ALTER COLUMN ' || quote_ident(part) || ' TYPE text'; END LOOP; "
        "END $pinnacle$"
    )


def date_in_sqlite(outbox: str) -> None:
    """SQLite adds a column with such a default to an empty table only."""
    kept = "pinnacle_kept_changes"
    op.execute(f"CREATE TABLE {kept} AS SELECT * FROM {outbox}")
    op.execute(f"DELETE FROM {outbox}")
    op.execute(f"ALTER TABLE {outbox} ADD COLUMN changed_at REAL NOT NULL DEFAULT (julianday('now'))")
    op.execute(f"INSERT INTO {outbox} SELECT *, julianday('now') FROM {kept}")
    op.execute(f"DROP TABLE {kept}")


def downgrade() -> None:
    for outbox in outboxes():
        op.execute(f"ALTER TABLE {outbox} DROP COLUMN changed_at")
