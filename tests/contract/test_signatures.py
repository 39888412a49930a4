"""What somebody puts there who may write pinnacle's tables, and has not the secret, is refused by its name; all else
goes on."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from pinnacle import ConfigError, Conflict, NotAuthenticated, pinnacle
from pinnacle.backends.protocol import Capability
from pinnacle.cli import main
from tests.contract.documents import has
from tests.models import shout, word_count

SECRET, ANOTHER = "the-secret-of-the-operator", "a-secret-of-somebody-else"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("PINNACLE_SECRET", SECRET)


def stored(backend, name):
    """A table of pinnacle's own, as whoever may write it has it."""
    schema = "pinnacle" if has(backend, Capability.MANY_PROCESSES) else None
    return sa.Table(name, sa.MetaData(), autoload_with=backend.engine, schema=schema)


def records(backend, name, equal):
    """Records as the plain driver reads them."""
    if has(backend, Capability.DOCUMENTS):
        return list(backend.database[name].find(equal))
    with backend.engine.connect() as connection:
        found = connection.execute(sa.select(stored(backend, name)).filter_by(**equal)).mappings()
        return [dict(row) for row in found]


def put(backend, name, row):
    """One more record by the plain driver."""
    if has(backend, Capability.DOCUMENTS):
        backend.database[name].insert_one({**row, "_id": f"{row}"})
        return
    with backend.engine.begin() as connection:
        connection.execute(sa.insert(stored(backend, name)).values(row))


def forge(backend, name, equal, changes):
    """Change records by the plain driver; ``changes`` may be a function of a record."""
    if has(backend, Capability.DOCUMENTS):
        for row in records(backend, name, equal):
            changed = changes(row) if callable(changes) else changes
            backend.database[name].update_one({"_id": row["_id"]}, {"$set": changed})
        return
    table = stored(backend, name)
    with backend.engine.begin() as connection:
        for row in connection.execute(sa.select(table).filter_by(**equal)).mappings().all():
            changed = changes(dict(row)) if callable(changes) else changes
            this = [column == row[column.name] for column in table.primary_key.columns]
            connection.execute(sa.update(table).where(*this).values(changed))


def with_description(row):
    body = json.loads(row["body"])
    body["fields"]["description"] = "another"
    return {"body": json.dumps(body)}


def models(backend):
    with closing(backend.open()) as db:
        db.add(shout)
        db.add(word_count)


@pytest.mark.parametrize(
    "changes",
    [
        with_description, {"type": "tests.models:Evil"}, {"digest": "0"}, {"mac": None}, {"mac": "1:0:0"},
        {"body": "{"}, {"version": 7},
    ],
    ids=["body", "type", "digest", "unsigned", "another signature", "no JSON", "version"],
)  # fmt: skip
def test_a_component_that_was_changed_is_refused_by_its_name_and_others_load(backend, changes):
    models(backend)
    forge(backend, "pinnacle_component", {"identifier": "shout"}, changes)
    with closing(backend.open()) as db:
        with pytest.raises(
            NotAuthenticated, match=r"model 'shout' version .* is not authenticated.*pinnacle trust URL"
        ):
            db.load("model", "shout")
        assert db.load("model", "word_count").predict("one two") == 2
        assert [info.id for info in db.models()] == ["word_count"]
        assert "not authenticated" in db.show("model", "shout")["versions"][0]["error"]
        db.remove("model", "shout")
        assert db.show("model") == ["word_count"]


def test_a_body_under_another_name_is_refused(backend):
    models(backend)
    (row,) = records(backend, "pinnacle_component", {"identifier": "shout"})
    put(backend, "pinnacle_component", {**row, "identifier": "twin"})
    put(backend, "pinnacle_component", {**row, "version": 1})
    with closing(backend.open()) as db:
        for identifier, version in (("twin", 0), ("shout", 1)):
            with pytest.raises(NotAuthenticated, match=rf"model '{identifier}' version {version} .* moved from"):
                db.load("model", identifier)
        assert db.load("model", "shout", 0).predict("a") == "A"


def test_what_another_secret_signed_is_refused_until_both_are_known(backend, monkeypatch):
    monkeypatch.setenv("PINNACLE_SECRET", ANOTHER)
    models(backend)
    monkeypatch.setenv("PINNACLE_SECRET", SECRET)
    with closing(backend.open()) as db, pytest.raises(NotAuthenticated, match="with another secret"):
        db.load("model", "shout")
    monkeypatch.setenv("PINNACLE_SECRET", f"{SECRET},{ANOTHER}")
    with closing(backend.open()) as db:
        assert db.load("model", "shout").predict("a") == "A"


def test_without_a_secret_what_is_signed_can_be_read_and_not_written(backend, monkeypatch):
    with closing(backend.open()) as db:
        db.add(shout)
    monkeypatch.delenv("PINNACLE_SECRET")
    with closing(backend.open()) as db:
        assert db.add(shout).version == 0
        assert db.load("model", "shout").predict("a") == "A"
        with pytest.raises(ConfigError, match=r"has no secret to sign with.*PINNACLE_SECRET"):
            db.add(word_count)


def test_without_a_secret_all_is_as_it_was(backend, monkeypatch):
    monkeypatch.delenv("PINNACLE_SECRET")
    models(backend)
    assert {row["mac"] for row in records(backend, "pinnacle_component", {})} == {None}
    forge(backend, "pinnacle_component", {"identifier": "shout"}, with_description)
    with closing(backend.open()) as db:
        assert db.load("model", "shout").description == "another"
    monkeypatch.setenv("PINNACLE_SECRET", SECRET)
    with closing(backend.open()) as db, pytest.raises(NotAuthenticated, match="it is not signed"):
        db.load("model", "shout")


def test_what_was_looked_at_is_signed_and_what_was_changed_meanwhile_is_not(backend):
    models(backend)
    forge(backend, "pinnacle_component", {"identifier": "shout"}, with_description)
    with closing(backend.open()) as db:
        (doubt,) = db.doubts()
        assert (doubt.name, doubt.why) == (
            "model 'shout' version 0", "it has been changed, or moved from elsewhere, since it was signed",
        )  # fmt: skip
        assert any("another" in line for line in doubt.shown())
        forge(backend, "pinnacle_component", {"identifier": "shout"}, {"type": "tests.models:Evil"})
        with pytest.raises(Conflict, match="not signed: model 'shout' version 0: changed while it was looked at"):
            db.trust([doubt])
        forge(backend, "pinnacle_component", {"identifier": "shout"}, {"type": doubt.record.fields["type"]})
        with pytest.raises(Conflict, match="no definition that pinnacle made"):
            db.trust([replace(doubt, record=replace(doubt.record, fields={**doubt.record.fields, "body": b"{}"}))])
        db.trust([doubt])
        assert (db.doubts(), db.load("model", "shout").description) == ([], "another")


def test_a_new_secret_signs_what_the_old_one_signed(backend, monkeypatch):
    models(backend)
    monkeypatch.setenv("PINNACLE_SECRET", f"{ANOTHER},{SECRET}")
    with closing(backend.open()) as db:
        db.trust(db.doubts())
    monkeypatch.setenv("PINNACLE_SECRET", ANOTHER)
    with closing(backend.open()) as db:
        assert db.load("model", "shout").predict("a") == "A"


@pytest.mark.anywhere
def test_without_a_secret_nothing_can_be_doubted(backend, monkeypatch):
    monkeypatch.delenv("PINNACLE_SECRET")
    with closing(backend.open()) as db, pytest.raises(ConfigError, match="no secret to know signatures by"):
        db.doubts()


def test_the_command_shows_what_it_signs(sqlite_url, monkeypatch):
    monkeypatch.delenv("PINNACLE_SECRET")
    with pinnacle(sqlite_url) as db:
        db.add(replace(shout, version=None, description="loud\x1b[2J"))
    monkeypatch.setenv("PINNACLE_SECRET", SECRET)
    run = partial(CliRunner().invoke, main)
    checked, refused = run(["trust", sqlite_url, "--check"]), run(["trust", sqlite_url], input="n\n")
    assert (checked.exit_code, refused.exit_code) == (1, 1)
    assert "model 'shout' version 0: it is not signed" in checked.output
    assert '"description": "loud' in checked.output
    assert "\x1b" not in checked.output
    assert "nothing was signed" in refused.output
    assert "Signed 1 definitions" in run(["trust", sqlite_url], input="y\n").output
    assert "All definitions are signed" in run(["trust", sqlite_url, "--check"]).output


@pytest.mark.anywhere
@pytest.mark.parametrize("is_set", [True, False])
def test_a_worker_says_once_where_nothing_is_authenticated(backend, monkeypatch, caplog, is_set):
    if not is_set:
        monkeypatch.delenv("PINNACLE_SECRET")
    stop = threading.Event()
    stop.set()
    with closing(backend.open()) as db:
        db.worker().run(stop)
    assert caplog.text.count("definitions are not authenticated") == (0 if is_set else 1)
