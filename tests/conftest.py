"""Databases for the tests: servers start once a session and only when asked for; every test gets a fresh database.

A contract test takes ``backend`` (a `UserDatabase`) and runs on every database. One that needs more says so by
capability, never by name::

    @pytest.mark.requires(Capability.TRANSACTIONS)
    def test_...(backend, db): ...
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import mongomock
import pymongo
import pytest
import sqlalchemy as sa

from tests.databases import DocumentDatabase, SqlDatabase, UserDatabase, matching
from tests.servers import start_mongod, start_postgres

numbers = itertools.count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes ``backend`` on the databases with the capabilities it requires."""
    if "backend" in metafunc.fixturenames:
        required = [capability for mark in metafunc.definition.iter_markers("requires") for capability in mark.args]
        metafunc.parametrize("backend", matching(required), indirect=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running PostgreSQL with pgvector; its database is for administration."""
    with start_postgres() as url:
        # The tests kill clients and never the machine: without fsync a new database takes a tenth of the time.
        with sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
            for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def replica_set() -> Iterator[str]:
    """The URL of a MongoDB that runs as a one-node replica set, without a database name."""
    with start_mongod(replica_set=True) as url:
        yield url


@pytest.fixture(scope="session")
def standalone_mongod() -> Iterator[str]:
    """The URL of a MongoDB without a replica set, without a database name."""
    with start_mongod(replica_set=False) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'user.db'}"


@pytest.fixture
def postgres_url(postgres_server) -> Iterator[str]:
    """A new, empty database."""
    admin = sa.create_engine(sa.make_url(postgres_server), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    name = f"test_{next(numbers)}"
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
    yield sa.make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def mongodb_url(replica_set) -> Iterator[str]:
    """A new, empty database on the replica set."""
    yield from new_mongodb(replica_set)


@pytest.fixture
def standalone_url(standalone_mongod) -> Iterator[str]:
    """A new, empty database on the standalone server."""
    yield from new_mongodb(standalone_mongod)


def new_mongodb(server: str) -> Iterator[str]:
    name = f"test_{next(numbers)}"
    base, _, options = server.partition("?")
    yield f"{base.rstrip('/')}/{name}{'?' if options else ''}{options}"
    with pymongo.MongoClient[Any](server) as client:
        client.drop_database(name)


@pytest.fixture
def backend(request) -> Iterator[UserDatabase]:
    """A user's database of each kind, changed with the plain driver."""
    makers: dict[str, Callable[[], Any]] = {
        "sqlite": lambda: SqlDatabase("sqlite", request.getfixturevalue("sqlite_url")),
        "postgres": lambda: SqlDatabase("postgres", request.getfixturevalue("postgres_url")),
        "mongodb": lambda: DocumentDatabase.connect("mongodb", request.getfixturevalue("mongodb_url")),
        "mongodb_standalone": lambda: DocumentDatabase.connect(
            "mongodb_standalone", request.getfixturevalue("standalone_url")
        ),
        "mongomock": lambda: new_mongomock(f"test_{next(numbers)}"),
    }
    database = makers[request.param]()
    yield database
    database.close()


def new_mongomock(name: str) -> DocumentDatabase:
    database = mongomock.MongoClient()[name]
    return DocumentDatabase("mongomock", database, database)


@pytest.fixture
def db(backend) -> Iterator[Any]:
    """pinnacle's handle on ``backend``."""
    handle = backend.open()
    yield handle
    handle.close()
