"""Databases to measure on: each gives the same rows afresh, without outputs and settled on disk."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pymongo
import sqlalchemy as sa

from benchmarks.rows import bodies
from pinnacle.backends.mongodb import Collection
from tests.servers import start_mongod, start_postgres

NAMES = ("sqlite", "postgres", "mongodb")
TABLE = "docs"
INSERT_ROWS = 10_000


class Place(Protocol):
    """One database with ``docs(id, body)``, keys from 1."""

    name: str

    def renew(self) -> str:
        """Fresh rows without outputs; the URL where they are."""

    def settle(self, url: str) -> None:
        """Bring everything to disk, so that no run pays for the one before."""

    def query(self) -> Any:
        """What ``select=`` takes for all rows."""

    def values(self, url: str, name: str) -> Mapping[int, Any]:
        """An output as it is stored now, by key; keys without one are left out."""


def docs(*columns: str) -> sa.Table:
    more = [sa.Column(name, sa.BigInteger) for name in columns]
    return sa.Table(
        TABLE, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text), *more
    )


class SqlPlace:
    """What SQLite and PostgreSQL share."""

    name: str

    def query(self) -> sa.Select[Any]:
        return sa.select(docs())

    def values(self, url: str, name: str) -> Mapping[int, Any]:
        table = docs(name)
        with connected(url) as connection:
            found = connection.execute(sa.select(table.c.id, table.c[name]).where(table.c[name].is_not(None)))
            return {row[0]: row[1] for row in found}


class SqlitePlace(SqlPlace):
    """A file in WAL mode, copied for every run."""

    name = "SQLite"

    def __init__(self, directory: Path, count: int) -> None:
        self._directory, self._numbers = directory, itertools.count()
        self._template = directory / "template.db"
        with connected(f"sqlite:///{self._template}") as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            create(connection, count)

    def renew(self) -> str:
        for old in self._directory.glob("run*"):
            old.unlink()
        path = self._directory / f"run{next(self._numbers)}.db"
        shutil.copyfile(self._template, path)
        self.settle(f"sqlite:///{path}")
        return f"sqlite:///{path}"

    def settle(self, url: str) -> None:
        with connected(url) as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


class PostgresPlace(SqlPlace):
    """A database made from a template for every run."""

    name = "PostgreSQL"

    def __init__(self, server: str, count: int) -> None:
        self._server, self._numbers = sa.make_url(server), itertools.count(1)
        self._run(f"CREATE DATABASE {TABLE}_template")
        with connected(self._url(f"{TABLE}_template")) as connection:
            create(connection, count)
        self._run(f"VACUUM (ANALYZE, FREEZE) {TABLE}", database=f"{TABLE}_template")

    def renew(self) -> str:
        number = next(self._numbers)
        self._run(f"DROP DATABASE IF EXISTS run{number - 1} WITH (FORCE)")
        self._run(f"CREATE DATABASE run{number} TEMPLATE {TABLE}_template")
        self._run("CHECKPOINT")
        return self._url(f"run{number}")

    def settle(self, url: str) -> None:
        self._run(f"VACUUM ANALYZE {TABLE}", database=sa.make_url(url).database)
        self._run("CHECKPOINT")

    def _url(self, database: str) -> str:
        return self._server.set(database=database).render_as_string(hide_password=False)

    def _run(self, statement: str, database: str | None = None) -> None:
        url = self._server.set(database=database) if database else self._server
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


class MongoPlace:
    """A collection of a one-node replica set, copied inside the server for every run."""

    name = "MongoDB"

    def __init__(self, server: str, count: int) -> None:
        base, _, options = server.partition("?")
        self._url = f"{base}run?{options}"
        self._client: pymongo.MongoClient[Any] = pymongo.MongoClient(server)
        self._client.template.create_collection(TABLE)
        if count:
            rows = ({"_id": number, "body": body} for number, body in enumerate(bodies(count), 1))
            self._client.template[TABLE].insert_many(rows)

    def renew(self) -> str:
        self._client.drop_database("run")
        self._client.template[TABLE].aggregate([{"$out": {"db": "run", "coll": TABLE}}])
        self.settle(self._url)
        return self._url

    def settle(self, url: str) -> None:
        self._client.admin.command("fsync")

    def query(self) -> Any:
        return Collection(TABLE).find()

    def values(self, url: str, name: str) -> Mapping[int, Any]:
        return {row["_id"]: row[name] for row in self._client.run[TABLE].find({name: {"$exists": True}}, {name: 1})}


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A connection that commits at the end and leaves no pool behind."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection
        connection.commit()


def create(connection: sa.Connection, count: int) -> None:
    table = docs()
    table.create(connection)
    rows = ({"id": number, "body": body} for number, body in enumerate(bodies(count), 1))
    while part := list(itertools.islice(rows, INSERT_ROWS)):
        connection.execute(sa.insert(table), part)


@contextmanager
def updates(name: str, url: str) -> Iterator[Callable[[int, str], object]]:
    """A function that commits one row's new body, over a connection of its own."""
    if name == "mongodb":
        with pymongo.MongoClient[Any](url) as client:
            collection = client.get_default_database()[TABLE]
            yield lambda key, body: collection.update_one({"_id": key}, {"$set": {"body": body}})
        return
    table = docs()
    statement = sa.update(table).where(table.c.id == sa.bindparam("key")).values(body=sa.bindparam("text"))
    with connected(url) as connection:

        def update(key: int, body: str) -> None:
            with connection.begin():
                connection.execute(statement, {"key": key, "text": body})

        yield update


@contextmanager
def opened(name: str, count: int) -> Iterator[Place]:
    """The database called ``name`` with ``count`` rows; its server lives as long as the context."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
            yield SqlitePlace(Path(directory), count)
    elif name == "postgres":
        with start_postgres() as server:
            yield PostgresPlace(server, count)
    else:
        with start_mongod(replica_set=True) as server:
            yield MongoPlace(server, count)
