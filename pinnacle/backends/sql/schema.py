"""pinnacle's own tables, as SQLAlchemy metadata; `alembic/` holds their migrations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

SCHEMA = "pinnacle"
"""The schema on databases that have schemas; SQLite has none and the prefix alone separates."""

HEAD = "0013"
"""The newest migration; a test checks it against `alembic/`."""

STATE_PREFIX = "pinnacle_state_"
OUTBOX_PREFIX = "pinnacle_outbox_"
WORK_PREFIX = "pinnacle_work_"
PLACE_PREFIX = "pinnacle_place_"

CHANGED_AT = "changed_at"
"""The column of an outbox that says when a change was made; the database fills it, in its cheapest form of a time."""

VERSION_TABLE = "pinnacle_migration"


class Moment(sa.types.TypeDecorator[datetime]):
    """A time of which nothing is made but what people are shown; None where what is stored is none."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        read = super().result_processor(dialect, coltype)

        def moment(value: Any) -> datetime | None:
            try:
                return value if read is None else read(value)
            except (TypeError, ValueError):
                return None

        return moment


metadata = sa.MetaData(schema=SCHEMA)

identity = sa.Table("pinnacle_identity", metadata, sa.Column("id", sa.Text, primary_key=True))

component = sa.Table(
    "pinnacle_component", metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("identifier", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("mac", sa.Text),
)  # fmt: skip

component_artifact = sa.Table(
    "pinnacle_component_artifact", metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("identifier", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sha256", sa.Text, primary_key=True),
)  # fmt: skip

artifact = sa.Table(
    "pinnacle_artifact", metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("key", sa.Text),
)  # fmt: skip

artifact_chunk = sa.Table(
    "pinnacle_artifact_chunk", metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)  # fmt: skip

upload = sa.Table(
    "pinnacle_upload", metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("process", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
)  # fmt: skip

output = sa.Table(
    "pinnacle_output", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("table_schema", sa.Text, nullable=False, server_default=""),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("fields", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("readings", sa.Text, nullable=False, server_default="{}"),
    sa.Column("created_column", sa.Boolean, nullable=False),
    sa.Column("released", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created_at", Moment, nullable=False),
    sa.UniqueConstraint("table_schema", "table_name", "name", name="pinnacle_output_place"),
    sqlite_autoincrement=True,
)  # fmt: skip

lease = sa.Table(
    "pinnacle_lease", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("output_id", sa.Integer, nullable=False, index=True),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column("process", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("keys", sa.Text, nullable=False),
)  # fmt: skip

error = sa.Table(
    "pinnacle_error", metadata,
    sa.Column("output_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("traceback", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failed_at", sa.Double, nullable=False),
)  # fmt: skip


def has_traceback(traceback: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether an error still has its traceback, as the index of those that have one says it."""
    return traceback != sa.literal_column("''")


sa.Index(
    "pinnacle_error_traced", error.c.output_id, error.c.failed_at,
    sqlite_where=has_traceback(error.c.traceback), postgresql_where=has_traceback(error.c.traceback),
)  # fmt: skip

listener = sa.Table(
    "pinnacle_listener", metadata,
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
)  # fmt: skip

usage = sa.Table(
    "pinnacle_usage", metadata,
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
)  # fmt: skip

cache = sa.Table(
    "pinnacle_cache", metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("cached_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False, index=True),
    sa.Column("value", sa.Text, nullable=False),
)  # fmt: skip

batch = sa.Table(
    "pinnacle_batch", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("output_id", sa.Integer, nullable=False, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("parameters", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("items", sa.Text, nullable=False),
)  # fmt: skip

training = sa.Table(
    "pinnacle_training", metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("process", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
)  # fmt: skip

metric = sa.Table(
    "pinnacle_metric", metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("entry", sa.Text, nullable=False),
)  # fmt: skip


def state_name(output_id: int) -> str:
    """The name of one output's state table."""
    return f"{STATE_PREFIX}{output_id}"


def state_table(output_id: int, key: list[sa.Column[object]]) -> sa.Table:
    """One output's bookkeeping: a fingerprint and a model version a row, under the row's own key.

    ``fingerprint`` covers the inputs and the output as stored; for a row that was set
    aside (``failed``) the inputs alone. The key columns k0, k1, ... have the types and
    collations of the user's key, so that both tables join along their indexes.
    """
    parts = [
        sa.Column(f"k{i}", column.type, primary_key=True, autoincrement=False, nullable=False)
        for i, column in enumerate(key)
    ]
    return sa.Table(
        state_name(output_id), sa.MetaData(schema=SCHEMA), *parts,
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
    )  # fmt: skip


def place_name(output_id: int) -> str:
    """The name of the view that says where one output is."""
    return f"{PLACE_PREFIX}{output_id}"


def outbox_name(output_id: int) -> str:
    """The name of the table that one listener's triggers append to."""
    return f"{OUTBOX_PREFIX}{output_id}"


def work_table(output_id: int, key: list[sa.Column[object]]) -> sa.Table:
    """One listener's work: a row a key.

    ``place`` is where it stands in the queue, and stays when the row changes again;
    ``revision`` is then the place that the newest change would have had, and 0 before.
    """
    parts = [sa.Column(f"k{i}", column.type, nullable=False) for i, column in enumerate(key)]
    return sa.Table(
        f"{WORK_PREFIX}{output_id}", sa.MetaData(schema=SCHEMA),
        sa.Column("place", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        *parts,
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.UniqueConstraint(*(part.name for part in parts)),
    )  # fmt: skip
