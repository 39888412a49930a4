"""What a server's own lists say of pinnacle's connections: what they are called, and that they are few."""

from __future__ import annotations

from typing import Any

import psutil
import psycopg
import pymongo
import pytest
import sqlalchemy as sa

from pinnacle import Listener, Settings, pinnacle
from tests.databases import DocumentDatabase, SqlDatabase
from tests.models import shout

LISTENERS = 3


def named_on_postgres(url: str) -> list[str]:
    with psycopg.connect(url, application_name="the test") as connection:
        query = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        return [name for (name,) in connection.execute(query) if name != "the test"]


def named_on_mongodb(url: str) -> list[str]:
    """Of this process alone: other tests use the server meanwhile."""
    mine = {connection.laddr.port for connection in psutil.Process().net_connections("tcp")}
    with pymongo.MongoClient[Any](url) as client:
        operations = client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}])
        found = [each for each in operations if each.get("appName", "").startswith("pinnacle")]
    return [each["appName"] for each in found if int(each["client"].rpartition(":")[2]) in mine]


@pytest.fixture(params=["postgres_url", "mongodb_url"])
def served(request):
    url = request.getfixturevalue(request.param)
    user = SqlDatabase("postgres", url) if url.startswith("postgres") else DocumentDatabase.connect("mongodb", url)
    user.create("docs", {"body": str})
    user.insert("docs", *({"body": f"text {n}"} for n in range(50)))
    if isinstance(user, SqlDatabase):
        user.engine.dispose()
        user.engine = sa.create_engine(user.address, poolclass=sa.NullPool)
    yield user
    user.close()


def test_a_workers_connections_have_its_name_and_are_few(served):
    named = named_on_postgres if isinstance(served, SqlDatabase) else named_on_mongodb
    with pinnacle(served.address, settings=Settings(application="pinnacle worker")) as db:
        for number in range(LISTENERS):
            query = served.query("docs")
            db.add(Listener(model=shout, key="body", select=query, output=f"loud{number}"))
        db.listen()
        db.drain()
        names = named(served.address)
    assert set(names) == {"pinnacle worker"}
    assert len(names) <= 4 + 2 * LISTENERS


def test_a_name_in_the_url_stays(postgres_url):
    with pinnacle(f"{postgres_url}{'&' if '?' in postgres_url else '?'}application_name=mine") as db:
        assert db.show() == []
        assert set(named_on_postgres(postgres_url)) == {"mine"}
