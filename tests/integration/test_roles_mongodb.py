"""What each user may do on a MongoDB that asks who calls, with the roles of the guide."""

from __future__ import annotations

import ast
import re

import pymongo
import pytest
from pymongo.errors import OperationFailure

from pinnacle import Listener, pinnacle
from pinnacle.backends.mongodb import Collection
from pinnacle.components.side import Side
from tests.models import CALLS, shout
from tests.pages import page
from tests.servers import start_mongod_with_users

ROLES = re.compile(r'db\.createRole\({role: ("\w+"), roles: \[\], privileges: \[\s*(.*?)\]}\)', re.DOTALL)


def roles_of_the_guide():
    """The privileges of each role that the guide makes."""
    text = "".join(page("docs/guide/production.md").blocks("text"))
    quoted = {name: re.sub(r"(\w+):", r'"\1":', privilege) for name, privilege in ROLES.findall(text)}
    return {ast.literal_eval(name): [ast.literal_eval(privilege)] for name, privilege in quoted.items()}


@pytest.fixture(scope="module")
def server():
    with start_mongod_with_users() as url:
        with pymongo.MongoClient(url) as client:
            client.app.command("createUser", "pinnacle", pwd="pw", roles=["readWrite"])
            for name, privileges in roles_of_the_guide().items():
                client.app.command("createRole", name, privileges=privileges, roles=[])
                client.app.command("createUser", name, pwd="pw", roles=[name])
        yield url


def url_of(server, user):
    named = server.replace("root:root@", f"{user}:pw@").replace("/?", "/app?")
    return named.replace("authSource=admin", "authSource=app")


def refused_to_all_but_pinnacle(database):
    for call in (
        lambda: database.pinnacle_component.find_one(),
        lambda: database.pinnacle_output.update_one({}, {"$set": {"path": "body"}}),
        lambda: database.pinnacle_place_1.create_index("x"),
        lambda: database.louder.find_one(),
    ):
        with pytest.raises(OperationFailure, match="not authorized"):
            call()


def test_each_user_does_its_part_with_the_rights_that_the_guide_gives_it(server, impatient_workers):
    CALLS.clear()
    own, find = url_of(server, "pinnacle"), Collection("docs").find()
    with (
        pymongo.MongoClient(url_of(server, "docs_writer")) as writing,
        pymongo.MongoClient(url_of(server, "docs_reader")) as reading,
    ):
        writing.app.docs.insert_one({"_id": 1, "body": "a"})
        with pinnacle(own) as db:
            listener = db.add(Listener(model=shout, key="body", select=find, output="loud"))
            shout.predict(X="body", db=db, select=find, output=Side("louder"))
            db.listen()
            writing.app.docs.update_one({"_id": 1}, {"$set": {"body": "z"}})
            writing.app.docs.insert_one({"_id": 2, "body": "b"})
            db.drain()
            assert [document["loud"] for document in reading.app.docs.find().sort("_id")] == ["Z", "B"]
            assert (db.fresh(listener).fresh, db.listeners()[0].last_error, db.errors()) == (2, None, [])
        for stranger in (writing, reading):
            refused_to_all_but_pinnacle(stranger.app)
        with pytest.raises(OperationFailure, match="not authorized"):
            reading.app.docs.update_one({}, {"$set": {"loud": "mine"}})
        with pinnacle(own) as db:
            db.remove_all(outputs=True)
        assert [document.get("loud") for document in reading.app.docs.find()] == [None, None]
