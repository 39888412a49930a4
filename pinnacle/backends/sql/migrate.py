"""Brings pinnacle's own tables to this version, by the migrations carried with the package."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pinnacle.backends.sql.schema import HEAD, OUTBOX_PREFIX, VERSION_TABLE, output, place_name
from pinnacle.base import forks
from pinnacle.base.errors import ConfigError

if TYPE_CHECKING:
    from alembic.config import Config

_one_at_a_time = forks.lock()
"""Alembic's environment is global to a process: two databases opened from two threads would run each other's."""


def migrations_path() -> Path:
    """Where the migrations are: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    carried = package / "_migrations"
    return carried if carried.is_dir() else package.parent / "alembic"


def current_revision(connection: sa.Connection, schema: str | None) -> str | None:
    """The revision the database is at; None when it has none of pinnacle's tables. ConfigError for what is none."""
    if not sa.inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"), schema=schema)
    found = connection.scalar(sa.select(table.c.version_num))
    if found is not None and not re.fullmatch("(?!0000)[0-9]{4}", str(found)):
        raise ConfigError(f"the database's pinnacle tables are at revision {found!r}, which is none of pinnacle's")
    return found


def check_revision(revision: str | None) -> bool:
    """Whether the tables are there and current; ConfigError when they belong to another version."""
    if revision is None or revision == HEAD:
        return revision == HEAD
    if revision > HEAD:
        raise ConfigError(
            f"the database's pinnacle tables are at revision {revision}, made by a newer pinnacle (this one knows "
            f"{HEAD}); upgrade the package"
        )
    raise ConfigError(
        f"the database's pinnacle tables are at revision {revision} and this pinnacle needs {HEAD}; "
        "run: pinnacle migrate URL"
    )


def is_behind(revision: str | None) -> bool:
    """Whether migrations are missing; ConfigError for tables of a newer version."""
    return revision is None or (revision != HEAD and (revision < HEAD or check_revision(revision)))


def upgrade(connection: sa.Connection, schema: str | None) -> None:
    """Run the missing migrations on ``connection``, inside its transaction."""
    from alembic import command

    with _one_at_a_time:
        command.upgrade(
            _config(
                schema, outboxes=outboxes(connection, schema), places=places(connection, schema), connection=connection
            ),
            "head",
        )


def upgrade_sql(
    dialect_url: str, schema: str | None, current: str | None, outboxes: Sequence[str],
    places: Sequence[Any] | None = (),
) -> list[str]:  # fmt: skip
    """The statements `upgrade` would run, without a connection."""
    from alembic import command

    if current == HEAD:
        return []
    buffer = io.StringIO()
    config = _config(schema, outboxes=outboxes, places=places, url=dialect_url, output=buffer)
    with _one_at_a_time:
        command.upgrade(config, f"{current}:head" if current else "head", sql=True)
    statements = (part.strip() for part in buffer.getvalue().split(";\n"))
    wanted = (
        "\n".join(line for line in part.splitlines() if line and not line.startswith("--")) for part in statements
    )
    plain = (part.replace("%%", "%") if dialect_url.startswith("postgresql") else part for part in wanted)
    return [part for part in plain if part and part not in ("BEGIN", "COMMIT")]


def outboxes(connection: sa.Connection, schema: str | None) -> list[str]:
    """The names of the tables that listeners' triggers append to."""
    found = sa.inspect(connection).get_table_names(schema=schema)
    return [name for name in found if re.fullmatch(f"{OUTBOX_PREFIX}[0-9]+", name)]


def places(connection: sa.Connection, schema: str | None) -> list[tuple[Any, ...]] | None:
    """Of each output what the registry says: number, schema, table, name, type, model, fields, whether it was made.

    None where that was taken for proven before, and is not a second time: rows tell of the revision, too.
    """
    if sa.inspect(connection).has_table(place_name(0), schema=schema):
        return None
    if not sa.inspect(connection).has_table(output.name, schema=schema):
        return []
    names = ("id", "table_schema", "table_name", "name", "type", "model", "fields", "created_column")
    registry = sa.table(output.name, *map(sa.column, names), schema=schema)
    return [(*row[:-1], bool(row[-1])) for row in connection.execute(sa.select(registry).order_by(registry.c.id))]


def _config(
    schema: str | None, *, outboxes: Sequence[str] = (), places: Sequence[Any] | None = (),
    connection: sa.Connection | None = None, url: str = "",
    output: io.StringIO | None = None,
) -> Config:  # fmt: skip
    from alembic.config import Config

    config = Config(output_buffer=output) if output is not None else Config()
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    if url:
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    config.attributes.update(
        connection=connection, schema=schema, version_table=VERSION_TABLE, outboxes=outboxes, places=places
    )
    return config
