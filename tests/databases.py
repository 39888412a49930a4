"""A user's own databases, as the tests see them: changed with the plain driver, never through pinnacle."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pymongo
import sqlalchemy as sa

import pinnacle
from pinnacle import Settings
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.open import open_backend
from pinnacle.backends.protocol import Backend, Capability

COLUMN_TYPES: dict[Any, Any] = {
    str: sa.Text,
    int: sa.BigInteger,
    float: sa.Double,
    bool: sa.Boolean,
    bytes: sa.LargeBinary,
    datetime: sa.DateTime(timezone=True),
    dict: sa.JSON,
}


class UserDatabase(Protocol):
    """One table-and-row face over every database, for tests that hold on all of them.

    Rows are dicts without their key; keys are 1, 2, ... in order of insertion unless
    a row brings its own ``id``.
    """

    name: str
    address: Any
    """What `pinnacle()` takes: a URL, or the database object itself."""

    def open(self) -> pinnacle.Database:
        """A new handle on this database; closed by the test or with the process."""

    def below(self) -> Backend:
        """This database as the rooms below a handle see it; closed by the test."""

    def create(self, table: str, columns: Mapping[str, Any]) -> None:
        """A table with an integer key ``id`` and columns of these Python types."""

    def insert(self, table: str, *rows: Mapping[str, Any]) -> list[Any]:
        """Add rows; their keys."""

    def update(self, table: str, key: Any, changes: Mapping[str, Any]) -> None: ...

    def delete(self, table: str, key: Any) -> None: ...

    def read(self, table: str, key: Any) -> dict[str, Any]:
        """One row as it is stored now, columns that pinnacle added included."""

    def read_all(self, table: str) -> dict[Any, dict[str, Any]]:
        """All rows by key, in key order."""

    def query(self, table: str, **equal: Any) -> Any:
        """What ``select=`` takes for all rows of a table, or those with these values."""

    def entity(self, table: str) -> Any:
        """What ``db.output`` takes for a table."""

    def has(self, table: str) -> bool:
        """Whether there is a table of that name."""

    # A side table has no key ``id``; what follows is for any table.

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """These columns of all rows, sorted; None where a row has no value."""

    def add(self, table: str, row: Mapping[str, Any]) -> None: ...

    def update_where(self, table: str, equal: Mapping[str, Any], changes: Mapping[str, Any]) -> None: ...

    def delete_where(self, table: str, equal: Mapping[str, Any]) -> None: ...


class SqlDatabase:
    """SQLite and PostgreSQL, through an engine of the test's own."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.address = name, url
        self.engine = sa.create_engine(url)
        self.tables: dict[str, sa.Table] = {}

    def open(self) -> pinnacle.Database:
        return pinnacle.pinnacle(self.address)

    def below(self) -> Backend:
        return open_backend(self.address, Settings.from_environment())

    def create(self, table: str, columns: Mapping[str, Any]) -> None:
        key = sa.Column("id", sa.Integer, primary_key=True)
        rest = [sa.Column(name, COLUMN_TYPES.get(kind, kind)) for name, kind in columns.items()]
        self.tables[table] = sa.Table(table, sa.MetaData(), key, *rest)
        self.tables[table].create(self.engine)

    def insert(self, table: str, *rows: Mapping[str, Any]) -> list[Any]:
        target = self.tables[table]
        with self.engine.begin() as connection:
            statement = sa.insert(target).returning(target.c.id, sort_by_parameter_order=True)
            return list(connection.execute(statement, [dict(row) for row in rows]).scalars())

    def update(self, table: str, key: Any, changes: Mapping[str, Any]) -> None:
        target = self.reflected(table)
        with self.engine.begin() as connection:
            connection.execute(sa.update(target).where(target.c.id == key).values(dict(changes)))

    def delete(self, table: str, key: Any) -> None:
        target = self.tables[table]
        with self.engine.begin() as connection:
            connection.execute(sa.delete(target).where(target.c.id == key))

    def read(self, table: str, key: Any) -> dict[str, Any]:
        return self.read_all(table)[key]

    def read_all(self, table: str) -> dict[Any, dict[str, Any]]:
        target = self.reflected(table)
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(target).order_by(target.c.id)).mappings().all()
        return {row["id"]: {name: value for name, value in row.items() if name != "id"} for row in found}

    def query(self, table: str, **equal: Any) -> sa.Select[Any]:
        target = self.tables[table] if table in self.tables else self.reflected(table)
        return sa.select(target).where(*(target.c[name] == value for name, value in equal.items()))

    def entity(self, table: str) -> sa.Table:
        return self.tables[table]

    def has(self, table: str) -> bool:
        return sa.inspect(self.engine).has_table(table)

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        target = self.reflected(table)
        chosen = [target.c[name] for name in columns]
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.select(*chosen).order_by(*chosen))]

    def add(self, table: str, row: Mapping[str, Any]) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.insert(self.reflected(table)).values(dict(row)))

    def update_where(self, table: str, equal: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        target = self.reflected(table)
        with self.engine.begin() as connection:
            connection.execute(sa.update(target).filter_by(**equal).values(dict(changes)))

    def delete_where(self, table: str, equal: Mapping[str, Any]) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.delete(self.reflected(table)).filter_by(**equal))

    def reflected(self, table: str) -> sa.Table:
        """The table with the columns it has now."""
        return sa.Table(table, sa.MetaData(), autoload_with=self.engine)

    def close(self) -> None:
        self.engine.dispose()


class DocumentDatabase:
    """MongoDB and mongomock, through a client of the test's own."""

    def __init__(self, name: str, address: Any, database: Any) -> None:
        self.name, self.address, self.database = name, address, database
        self.keys: dict[str, itertools.count[int]] = {}

    @classmethod
    def connect(cls, name: str, url: str) -> DocumentDatabase:
        """On a server; ``url`` names the database."""
        client: pymongo.MongoClient[Any] = pymongo.MongoClient(url)
        return cls(name, url, client.get_default_database())

    @classmethod
    def around(cls, name: str, database: Any) -> DocumentDatabase:
        """In this process; ``database`` is the object itself."""
        return cls(name, database, database)

    def open(self) -> pinnacle.Database:
        return pinnacle.pinnacle(self.address)

    def below(self) -> Backend:
        return open_backend(self.address, Settings.from_environment())

    def create(self, table: str, columns: Mapping[str, Any]) -> None:
        self.database.create_collection(table)

    def insert(self, table: str, *rows: Mapping[str, Any]) -> list[Any]:
        counter = self.keys.setdefault(table, itertools.count(1))
        documents = [{"_id": row["id"] if "id" in row else next(counter), **without(row, "id")} for row in rows]
        return list(self.database[table].insert_many(documents).inserted_ids)

    def update(self, table: str, key: Any, changes: Mapping[str, Any]) -> None:
        self.database[table].update_one({"_id": key}, {"$set": dict(changes)})

    def delete(self, table: str, key: Any) -> None:
        self.database[table].delete_one({"_id": key})

    def read(self, table: str, key: Any) -> dict[str, Any]:
        return self.read_all(table)[key]

    def read_all(self, table: str) -> dict[Any, dict[str, Any]]:
        return {row["_id"]: without(row, "_id") for row in self.database[table].find().sort("_id")}

    def query(self, table: str, **equal: Any) -> Any:
        return Collection(table).find(equal)

    def entity(self, table: str) -> str:
        return table

    def has(self, table: str) -> bool:
        return table in self.database.list_collection_names()

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        return sorted(tuple(row.get(name) for name in columns) for row in self.database[table].find())

    def add(self, table: str, row: Mapping[str, Any]) -> None:
        self.database[table].insert_one(dict(row))

    def update_where(self, table: str, equal: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        self.database[table].update_many(dict(equal), {"$set": dict(changes)})

    def delete_where(self, table: str, equal: Mapping[str, Any]) -> None:
        self.database[table].delete_many(dict(equal))

    def close(self) -> None:
        client = self.database.client
        client.drop_database(self.database.name)
        client.close()


@dataclass(frozen=True)
class Listed:
    """A kind of database that contract tests run on: what it can do, the fixture that gives its address, and how a
    test gets at it, given its name and that."""

    capabilities: frozenset[Capability]
    address: str
    opened: Callable[[str, Any], Any]


SQL = frozenset({Capability.SQL, Capability.TRANSACTIONS})
SERVER = frozenset({Capability.DOCUMENTS, Capability.MANY_PROCESSES})
DATABASES = {
    "sqlite": Listed(SQL, "sqlite_url", SqlDatabase),
    "postgres": Listed(SQL | {Capability.MANY_PROCESSES, Capability.NATIVE_VECTORS}, "postgres_url", SqlDatabase),
    "mongodb": Listed(SERVER | {Capability.TRANSACTIONS}, "mongodb_url", DocumentDatabase.connect),
    "mongodb_standalone": Listed(SERVER, "standalone_url", DocumentDatabase.connect),
    "mongomock": Listed(frozenset({Capability.DOCUMENTS}), "mongomock_database", DocumentDatabase.around),
}
CAPABILITIES = {name: listed.capabilities for name, listed in DATABASES.items()}
"""What each can do; a contract test compares it with what its backend says."""


def without(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def matching(required: Sequence[Capability]) -> list[str]:
    """The databases that have all of these capabilities."""
    return [name for name, has in CAPABILITIES.items() if has.issuperset(required)]


_numbers = itertools.count(1)


def new_name() -> str:
    """A name that no other database of the run has, on servers that its processes share."""
    return f"test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{next(_numbers)}"


@contextmanager
def new_postgres(server: str, template: str = "template1") -> Iterator[str]:
    """The URL of a new database, a copy of ``template``."""
    name = new_name()
    run_on(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield database_on(server, name)
    run_on(server, f"DROP DATABASE {name} WITH (FORCE)")


def database_on(server: str, name: str) -> str:
    """The URL of a database of a PostgreSQL server."""
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


def run_on(server: str, statement: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
