"""Databases are found by entry points: a new one needs no change of pinnacle, and a misspelt one says so."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest
import sqlalchemy as sa

from pinnacle.backends import open as opening
from pinnacle.base.errors import ConfigError, MissingPlugin
from pinnacle.base.settings import Settings


class Handle:
    """An object of some driver's."""


def open_handle(target, settings):
    return ("opened", target)


@pytest.fixture
def installed(monkeypatch):
    """Adds an entry point to those that are installed."""

    def add(name, value):
        known = opening.entry_points(group=opening.GROUP)
        every = EntryPoints([*known, EntryPoint(name, value, opening.GROUP)])
        monkeypatch.setattr(opening, "entry_points", lambda group: every.select(group=group))

    return add


def opened(target):
    return opening.open_backend(target, Settings())


@pytest.mark.parametrize("url", ["ducks://pond/db", "ducks+driver://pond/db", "DUCKS://pond/db"])
def test_a_package_opens_the_urls_that_it_names(installed, url):
    installed("ducks", f"{__name__}:open_handle")
    assert opened(url) == ("opened", url)


def test_a_name_with_a_driver_comes_before_the_one_without(installed):
    installed("sqlite+pond", f"{__name__}:open_handle")
    assert opened("sqlite+pond:///a.db") == ("opened", "sqlite+pond:///a.db")


def test_a_package_opens_its_drivers_objects(installed):
    handle = Handle()
    installed(Handle.__module__.partition(".")[0], f"{__name__}:open_handle")
    assert opened(handle) == ("opened", handle)


def test_a_misspelt_scheme_is_told_the_near_ones():
    with pytest.raises(ConfigError, match="no backend for 'postgress'; did you mean 'postgres' or 'postgresql'"):
        opened("postgress://me:secret@host/db")


def test_an_unknown_scheme_is_told_what_there_is():
    with pytest.raises(ConfigError, match=r"no backend for 'xyz'; there are .*mongodb, .*sqlite.*pinnacle\.backends"):
        opened("xyz://host/db")


def test_a_plain_path_is_that_sqlite_file(tmp_path):
    backend = opened(str(tmp_path / "docs.db"))
    assert backend.engine.url.database == str(tmp_path / "docs.db")
    backend.close()


@pytest.mark.parametrize("text", ["docs", "", "://host/db", "me:secret@host/db", "sqlite:/secret"])
def test_what_is_no_url_is_refused_and_not_repeated(text):
    with pytest.raises(ConfigError, match="not a database URL") as caught:
        opened(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["postgresql://me:secret@host:port/db", "sqlite://secret@@:x"])
def test_a_url_that_sqlalchemy_cannot_read_is_not_repeated(text):
    with pytest.raises(ConfigError) as caught:
        opened(text)
    assert "secret" not in str(caught.value)


def test_an_object_of_nobody_is_refused():
    with pytest.raises(ConfigError, match="takes a URL, a SQLAlchemy Engine or a pymongo Database, not int"):
        opened(7)


def test_an_engine_of_another_database_is_refused():
    engine = sa.create_engine("sqlite://")
    engine.dialect.name = "mysql"
    with pytest.raises(ConfigError, match="no backend for 'mysql'"):
        opened(engine)


def test_a_connection_is_told_to_be_an_engine(tmp_path):
    told = pytest.raises(ConfigError, match="takes a SQLAlchemy Engine, not Connection")
    with sa.create_engine(f"sqlite:///{tmp_path}/a.db").connect() as connection, told:
        opened(connection)


def test_a_package_whose_driver_is_missing_says_which(installed):
    installed("ducks", "no_such_driver.opening:open")
    with pytest.raises(MissingPlugin, match="no_such_driver is needed for ducks"):
        opened("ducks://pond/db")


@pytest.mark.parametrize(("raw", "meant"), [("0", False), ("false", False), ("1", True), ("True", True)])
def test_the_environment_may_forbid_to_make_a_database(raw, meant):
    assert Settings.from_environment({"PINNACLE_MAY_CREATE": raw}).may_create is meant
    assert Settings.from_environment({}).may_create


def test_what_is_neither_yes_nor_no_is_refused():
    with pytest.raises(ConfigError, match="PINNACLE_MAY_CREATE is True or False, not 'maybe'"):
        Settings.from_environment({"PINNACLE_MAY_CREATE": "maybe"})
