"""Databases for the tests: servers start once a run and only when asked for; every test gets a fresh database.

A contract test takes ``backend`` (a `UserDatabase`) and runs on every database. One that needs more says so by
capability, never by name::

    @pytest.mark.requires(Capability.TRANSACTIONS)
    def test_...(backend, db): ...

One needs fewer where two databases could not differ, and says why: ``anywhere`` for what is decided before any
database is asked, ``same_standalone`` for what a mongod does with a replica set and without one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mongomock
import pymongo
import pytest

import pinnacle
from pinnacle import Database, Settings
from pinnacle.backends.protocol import Backend
from tests import shared
from tests.databases import (
    CAPABILITIES,
    DATABASES,
    UserDatabase,
    database_on,
    matching,
    new_name,
    new_postgres,
    run_on,
)

TEMPLATE = "pinnacle_template"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--databases",
        default=",".join(CAPABILITIES),
        help="run contract tests on these databases only, as sqlite,mongomock",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes ``backend`` on the databases with the capabilities it requires."""
    if "backend" in metafunc.fixturenames:
        required = [capability for mark in metafunc.definition.iter_markers("requires") for capability in mark.args]
        able = [name for name in matching(required) if name not in redundant(metafunc.definition)]
        assert able, f"{metafunc.definition.nodeid}: no database has {required}"
        chosen = metafunc.config.getoption("databases").split(",")
        metafunc.parametrize("backend", [name for name in able if name in chosen], indirect=True)


def redundant(definition: pytest.Item) -> set[str]:
    """The databases on which a test would only prove again what it proves on others."""
    if definition.get_closest_marker("anywhere"):
        return {*DATABASES} - {"sqlite", "mongomock"}
    return {"mongodb_standalone"} if definition.get_closest_marker("same_standalone") else set()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what runs on none of the chosen databases."""
    nowhere = [item for item in items if database_of(item) not in (None, *CAPABILITIES)]
    config.hook.pytest_deselected(items=nowhere)
    items[:] = [item for item in items if item not in nowhere]


def database_of(item: pytest.Item) -> Any:
    return item.callspec.params.get("backend") if hasattr(item, "callspec") else None


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that other users may enter, as the one that an embedded PostgreSQL runs as: of its own folders pytest takes
    that right away whenever a session of it starts."""
    with tempfile.TemporaryDirectory(prefix="pinnacle-open-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a running PostgreSQL with pgvector; its database is for administration."""
    return shared.server("postgres")


@pytest.fixture(scope="session")
def replica_set() -> str:
    """The URL of a MongoDB that runs as a one-node replica set, without a database name."""
    return shared.server("mongodb")


@pytest.fixture(scope="session")
def standalone_mongod() -> str:
    """The URL of a MongoDB without a replica set, without a database name."""
    return shared.server("mongodb_standalone")


@pytest.fixture(scope="session")
def sqlite_template() -> Path:
    """A file with pinnacle's own tables."""
    return shared.once("template.db", lambda path: migrate(f"sqlite:///{path}"))


@pytest.fixture(scope="session")
def postgres_template(postgres_server) -> str:
    """The name of a database with pinnacle's own tables, which nobody is connected to."""

    def make(_: Path) -> None:
        run_on(postgres_server, f"CREATE DATABASE {TEMPLATE}")
        migrate(database_on(postgres_server, TEMPLATE))

    shared.once(TEMPLATE, make)
    return TEMPLATE


def migrate(url: str) -> None:
    with pinnacle.pinnacle(url) as db:
        db.migrate()


@pytest.fixture
def sqlite_url(request, tmp_path) -> str:
    """A file with nothing but pinnacle's own tables; not yet there for a test marked ``unmigrated``."""
    if not is_unmigrated(request):
        shutil.copyfile(request.getfixturevalue("sqlite_template"), tmp_path / "user.db")
    return f"sqlite:///{tmp_path / 'user.db'}"


@pytest.fixture
def postgres_url(request, postgres_server) -> Iterator[str]:
    """A new database with nothing but pinnacle's own tables; empty for a test marked ``unmigrated``."""
    template = "template1" if is_unmigrated(request) else request.getfixturevalue("postgres_template")
    with new_postgres(postgres_server, template) as url:
        yield url


def is_unmigrated(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("unmigrated") is not None


@pytest.fixture
def mongodb_url(replica_set) -> Iterator[str]:
    """A new, empty database on the replica set."""
    yield from new_mongodb(replica_set)


@pytest.fixture
def standalone_url(standalone_mongod) -> Iterator[str]:
    """A new, empty database on the standalone server."""
    yield from new_mongodb(standalone_mongod)


def new_mongodb(server: str) -> Iterator[str]:
    name = new_name()
    base, _, options = server.partition("?")
    yield f"{base.rstrip('/')}/{name}{'?' if options else ''}{options}"
    with pymongo.MongoClient[Any](server) as client:
        client.drop_database(name)


@pytest.fixture
def backend(request) -> Iterator[UserDatabase]:
    """A user's database of each kind, changed with the plain driver."""
    listed = DATABASES[request.param]
    database = listed.opened(request.param, request.getfixturevalue(listed.address))
    yield database
    database.close()


@pytest.fixture
def mongomock_database() -> Any:
    """A new, empty database in this process."""
    return mongomock.MongoClient()[new_name()]


@pytest.fixture
def below(backend) -> Iterator[Backend]:
    """The database as the rooms below pinnacle's handle see it: for tests of what each backend owes to them."""
    opened: Backend = backend.below()
    yield opened
    opened.close()


@pytest.fixture
def db(below) -> Iterator[Database]:
    """pinnacle's handle on ``backend``."""
    handle = Database(below, Settings.from_environment())
    yield handle
    handle.close()
