"""Opens the database behind a URL, an Engine or a driver's Database.

It knows none by itself: installed packages, pinnacle among them, name theirs by entry
points: by the scheme of its URLs, by SQLAlchemy's name for the dialect of an Engine, and
by the package of its driver's objects.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from pinnacle.backends.protocol import Backend
from pinnacle.base.entry_points import entry_points
from pinnacle.base.errors import ConfigError, MissingPlugin
from pinnacle.base.near import near_names
from pinnacle.base.redaction import know_password
from pinnacle.base.settings import Settings
from pinnacle.base.urls import check_url

GROUP = "pinnacle.backends"
DEFAULT_URL = "sqlite:///pinnacle.db"
EXAMPLES = "sqlite:///file.db, postgresql://user@host/db or mongodb://host:27017/db"

SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
ASYNC_OPTIONS = ("ssl", "prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback")
"""What the URL of an AsyncEngine may say to its driver, and no other driver knows."""

Opener = Callable[[Any, Settings], Backend]


def open_backend(target: Any, settings: Settings) -> Backend:
    """The backend for ``target``: a URL, an Engine or a pymongo Database; None for a SQLite file in this directory.

    Only the chosen database's driver is imported. Raises ConfigError for what nobody opens,
    MissingPlugin where the package that would is not installed.
    """
    target = _as_url(DEFAULT_URL if target is None else target)
    if isinstance(target, str):
        check_url(target)
    known = {point.name: point for point in entry_points(group=GROUP)}
    name = _scheme_of(target) if isinstance(target, str) else _kind_of(target)
    chosen = known.get(name) or known.get(name.partition("+")[0])
    if chosen is None:
        raise _unknown(target, name, sorted(known))
    return _opener(chosen)(target, settings)


def _as_url(target: Any) -> Any:
    """A plain path to a SQLite file, one that is there or is called like one, as its URL; an AsyncEngine, whose driver
    works in its own loop alone, as its URL; all else as it is."""
    if isinstance(target, str) and "://" not in target:
        is_file = Path(target).suffix in SQLITE_SUFFIXES or Path(target).is_file()
        return f"sqlite:///{target}" if is_file else target
    if isinstance(target, Path):
        return f"sqlite:///{target}"
    if _package_of(target) == "sqlalchemy" and hasattr(target, "sync_engine"):
        url = target.sync_engine.url.difference_update_query(ASYNC_OPTIONS)
        return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    return target


def _scheme_of(url: str) -> str:
    """Of ``postgresql+psycopg://host/db`` all before the colon. The URL, which may hold a password, is not repeated."""
    scheme, colon, _ = url.partition("://")
    if not colon or not scheme:
        raise ConfigError(f"that is not a database URL; use one like {EXAMPLES}")
    return scheme.lower()


def _kind_of(handle: Any) -> str:
    """What an object is opened as: an Engine by its dialect, all others by the package that they come from."""
    package = _package_of(handle)
    if package != "sqlalchemy":
        return package
    import sqlalchemy as sa

    if not isinstance(handle, sa.Engine):
        raise ConfigError(
            f"pinnacle() takes a SQLAlchemy Engine, not {type(handle).__name__}; a Session has one as .get_bind()"
        )
    know_password(handle.url.password or "")
    return handle.dialect.name


def _package_of(handle: Any) -> str:
    return type(handle).__module__.partition(".")[0]


def _opener(point: EntryPoint) -> Opener:
    try:
        opener: Opener = point.load()
    except ImportError as error:
        raise MissingPlugin(error.name or point.value, error.name or point.value, purpose=point.name) from error
    return opener


def _unknown(target: Any, name: str, known: list[str]) -> ConfigError:
    if not isinstance(target, str) and _package_of(target) == name:
        kind = type(target).__name__
        return ConfigError(f"pinnacle() takes a URL, a SQLAlchemy Engine or a pymongo Database, not {kind}")
    near = near_names(name, known)
    meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return ConfigError(
        f"pinnacle has no backend for {name!r}; {meant}there are {', '.join(known) or 'none'}; "
        f"a package brings others by entry points of the group {GROUP!r}"
    )
