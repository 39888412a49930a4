"""Opens the database behind a URL, an Engine or a pymongo Database."""

from __future__ import annotations

from typing import Any

from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import ConfigError
from pinnacle.base.settings import Settings

DEFAULT_URL = "sqlite:///pinnacle.db"
URLS = "sqlite:///file.db, postgresql+embedded:///dir, postgresql://user@host/db, mongodb://host:27017/db or mongomock://name"


def open_backend(target: Any, settings: Settings) -> Backend:
    """The backend for ``target``; ConfigError for what none of them opens.

    Only the chosen database's driver is imported.
    """
    if target is None:
        target = DEFAULT_URL
    if isinstance(target, str):
        if target.startswith(("mongodb://", "mongodb+srv://", "mongomock://")):
            return _open_mongo(target, settings)
        return _open_sql_url(target, settings)
    module = type(target).__module__.partition(".")[0]
    if module in ("pymongo", "mongomock"):
        return _open_mongo(target, settings)
    if module == "sqlalchemy":
        return _open_engine(target, settings)
    raise ConfigError(f"pinnacle() takes a URL, a SQLAlchemy Engine or a pymongo Database, not {type(target).__name__}")


def _open_mongo(target: Any, settings: Settings) -> Backend:
    from pinnacle.backends.mongodb.connect import connect

    return connect(target, settings)


def _open_sql_url(text: str, settings: Settings) -> Backend:
    import sqlalchemy as sa

    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise ConfigError(f"that is not a database URL; use {URLS}") from None
    if url.get_backend_name() == "sqlite":
        from pinnacle.backends.sqlite.backend import open_sqlite

        return open_sqlite(url, settings)
    if url.get_backend_name() in ("postgresql", "postgres"):
        from pinnacle.backends.postgres.backend import open_embedded, open_postgres

        return open_embedded(url, settings) if url.drivername.endswith("+embedded") else open_postgres(url, settings)
    raise ConfigError(f"pinnacle has no backend for {url.drivername!r}; use {URLS}")


def _open_engine(engine: Any, settings: Settings) -> Backend:
    import sqlalchemy as sa

    if not isinstance(engine, sa.Engine):
        raise ConfigError(
            f"pinnacle() takes a SQLAlchemy Engine, not {type(engine).__name__}; "
            "an AsyncEngine has one as .sync_engine, a Session as .get_bind()"
        )
    if engine.dialect.name == "sqlite":
        from pinnacle.backends.sqlite.backend import open_sqlite

        return open_sqlite(engine, settings)
    if engine.dialect.name == "postgresql":
        from pinnacle.backends.postgres.backend import open_postgres

        return open_postgres(engine, settings)
    raise ConfigError(f"pinnacle has no backend for {engine.dialect.name!r}; use {URLS}")
