"""Runs pinnacle's own migrations: online on the connection it is given, or offline as SQL text.

``pinnacle.backends.sql.migrate`` passes what varies through ``config.attributes``:

* ``connection``: an open SQLAlchemy connection; the caller owns its transaction.
* ``schema``: the schema that pinnacle's tables live in, or None (SQLite).
* ``places``: what the registry says of outputs, as ``migrate.places`` reads it.
* ``outboxes``: the names of the listeners' outboxes, which no migration made.
* ``version_table``: where the current revision is kept; ``pinnacle_migration`` by default.

Offline (``sql=True``) there is no connection; the dialect comes from the option ``sqlalchemy.url``.
"""

from __future__ import annotations

from typing import Any

from alembic import context

config = context.config


def options() -> dict[str, Any]:
    """What both modes have in common."""
    return {
        "version_table": config.attributes.get("version_table", "pinnacle_migration"),
        "version_table_schema": config.attributes.get("schema"),
    }


def run_offline() -> None:
    """Print the statements; needs no database."""
    context.configure(url=config.get_main_option("sqlalchemy.url") or "sqlite://", literal_binds=True, **options())
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Run on the caller's connection, inside the caller's transaction."""
    context.configure(connection=config.attributes["connection"], **options())
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
