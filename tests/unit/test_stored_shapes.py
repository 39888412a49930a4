"""Stored values of a wrong type or shape: one ComponentError with the component's name, whatever they are."""

from __future__ import annotations

import json
import random

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from pinnacle import ComponentError, ConfigError, Listener, Model, PinnacleError, Run, model, pinnacle
from pinnacle.cli import main
from pinnacle.llm.functions import FunctionLLM


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/rows.db"


@model
def shout(text: str) -> str:
    return text.upper()


def rewrite(url, change, kind="model") -> None:
    """What somebody does who may write pinnacle's tables."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        body = connection.execute(
            sa.text("SELECT body FROM pinnacle_component WHERE kind = :kind"), {"kind": kind}
        ).scalar_one()
        connection.execute(
            sa.text("UPDATE pinnacle_component SET body = :body WHERE kind = :kind"),
            {"body": change(body), "kind": kind},
        )
    engine.dispose()


def with_field(name, value):
    def change(text: str) -> str:
        body = json.loads(text)
        body["fields"][name] = value
        return json.dumps(body)

    return change


BAD = [
    {"@int": 7}, {"@int": "9" * 5000}, {"@int": "x"}, {"@float": "1e"}, {"@float": [1]}, {"@text": "ä"}, {"@text": 3},
    {"@bytes": {}}, {"@date": "2026-13-01"}, {"@date": 5}, {"@datetime": "x"},
    {"@datetime": ["2026-01-01T00:00:00", 9]},
    {"@time": "25:00"}, {"@timedelta": [1e300, 0, 0]}, {"@timedelta": 1}, {"@decimal": "1..2"}, {"@uuid": "x"},
    {"@complex": "x"}, {"@tuple": "ab"}, {"@tuple": 1}, {"@set": [[1]]}, {"@dict": ["ab"]}, {"@dict": [[[1], 2]]},
    {"@dict": {"a": 1}}, {"@path": 1}, {"@output_type": 1}, {"@output_type": {"type": "none_such"}},
    {"@output_type": {"type": "vector", "dim": "x"}}, {"@component": 1}, {"@component": {"kind": "model"}},
    {"@component": {"kind": "model", "identifier": [], "version": 0}}, {"@artifact": {"sha256": "../../x", "size": 1}},
    {"@artifact": 1}, {"@function": {}}, {"@function": {"reference": 7, "digest": "0", "local": False}},
    {"@schema_class": {"reference": "os:path"}}, {"@pickle": 1}, {"@unknown": 1}, {"@int": "1", "b": 2},
]  # fmt: skip


@pytest.mark.parametrize("value", BAD, ids=lambda value: json.dumps(value)[:40])
@pytest.mark.parametrize("field", ["output_type", "function", "max_attempts"])
def test_a_value_of_another_shape_is_one_clear_error(url, field, value):
    with pinnacle(url) as db:
        db.add(shout)
    rewrite(url, with_field(field, value))
    with pinnacle(url) as db, pytest.raises(ComponentError, match="model 'shout'"):
        db.load("model", "shout")


@pytest.mark.parametrize("depth", [300, 900, 100_000])
def test_a_value_that_is_nested_too_deeply_is_one_clear_error(url, depth):
    with pinnacle(url) as db:
        db.add(shout)
    rewrite(
        url, lambda text: text.replace('"fields": {', '"fields": {"parameters": ' + "[" * depth + "]" * depth + ",")
    )
    with pinnacle(url) as db:
        with pytest.raises(ComponentError, match="model 'shout'"):
            db.load("model", "shout")
        db.remove("model", "shout")


def test_no_mutation_of_a_body_is_another_error(url):
    """Of any part of it, by values of all kinds."""
    with pinnacle(url) as db:
        db.add(shout)
    chance, bodies = random.Random(0), []
    rewrite(url, lambda text: bodies.append(text) or text)
    for _ in range(300):
        rewrite(url, lambda _: json.dumps(mutated(json.loads(bodies[0]), chance)))
        with pinnacle(url) as db:
            told = outcome(lambda: db.load("model", "shout"))
        assert told is None or "shout" in told


def outcome(load) -> str | None:
    """What a refusal says; any other error than one of pinnacle's is raised."""
    try:
        assert isinstance(load(), Model)
    except PinnacleError as error:
        return str(error)
    return None


def mutated(body, chance):
    places = []

    def walk(value):
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(body)
    holder, key = chance.choice(places)
    holder[key] = chance.choice([None, 0, -1, 1e308, 2**70, "", "x", [], [[]], {}, {"@x": 1}, True, *BAD])
    return body


SPY = """
from pathlib import Path
from pinnacle import Model

Path(__file__).with_suffix(".imported").write_text("")

class Spy(Model):
    def predict_one(self, text: str) -> str:
        return text
"""


@pytest.fixture
def watched(url, tmp_path, monkeypatch):
    """A database whose components are of a module that would tell of its import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pinnacle(url) as db:
        db.execute(sa.text("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)"))
        db.execute(sa.text("INSERT INTO docs (body) VALUES ('a')"))
        docs = sa.Table("docs", sa.MetaData(), autoload_with=db.engine)
        db.add(Listener("l", model=shout, key="body", select=sa.select(docs)))
        db.add(Run("m", status="done", step=3, max_steps=9, metrics={"loss": 0.25}))
    (tmp_path / "spy_of_test.py").write_text(SPY)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE pinnacle_component SET type = 'spy_of_test:Spy' WHERE kind != 'listener'"))
    engine.dispose()
    return tmp_path / "spy_of_test.imported"


@pytest.mark.parametrize(
    "command",
    [
        ["status"], ["status", "--json"], ["check"], ["errors"], ["usage"], ["show"], ["show", "model", "shout"],
        ["pause", "l"], ["resume", "l"], ["sweep", "l"], ["migrate"], ["plan"], ["retry"],
        ["plan", "--model", "shout", "--table", "docs", "--x", "body", "--output", "again"],
        ["remove", "listener", "l"], ["remove", "run", "m"], ["remove", "--all"], ["remove", "--all", "--yes"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_command_that_computes_nothing_imports_nothing(url, watched, command):
    result = CliRunner().invoke(main, [command[0], url, *command[1:]])
    assert not watched.exists()
    refused = {"check": 1, "remove --all": 1}  # no worker lives; it has to be confirmed
    assert result.exit_code == refused.get(" ".join(command), 0), result.output


def test_status_shows_the_rest_beside_a_body_that_is_broken(url, watched):
    rewrite(url, lambda text: '{"fields": 7}', kind="run")
    rewrite(url, with_field("model", {"@component": 7}), kind="listener")
    result = CliRunner().invoke(main, ["status", url])
    assert result.exit_code == 0, result.output
    assert "broken" in result.output
    assert "docs.body__shout" in result.output or "body__shout" in result.output
    assert not watched.exists()


@pytest.mark.parametrize(
    ("component", "kind"),
    [
        (shout, "TEXT"), (model(lambda text: 1, identifier="shout", output_type=int), "INTEGER"),
        (FunctionLLM("shout", fn=lambda llm, prompt: "x"), "TEXT"),
    ],
    ids=["annotated", "declared", "language model"],
)  # fmt: skip
def test_a_plan_by_name_says_what_the_model_returns(url, component, kind):
    with pinnacle(url) as db:
        db.execute(sa.text("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)"))
        db.add(component)
        docs = sa.select(sa.Table("docs", sa.MetaData(), autoload_with=db.engine))
        planned = db.plan("shout", X="body", select=docs)
        assert any(f'ADD COLUMN "body__shout" {kind}' in each or f"ADD COLUMN body__shout {kind}" in each
                   for each in planned.statements), planned  # fmt: skip
        assert planned.statements == db.plan(component, X="body", select=docs).statements


def test_a_plan_by_name_says_where_only_the_class_tells_what_it_returns(url):
    """As of models that have to be loaded for it, or that a pinnacle of before has stored."""
    with pinnacle(url) as db:
        db.execute(sa.text("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)"))
        db.add(shout)
        rewrite(url, lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "returns"}))
        docs = sa.select(sa.Table("docs", sa.MetaData(), autoload_with=db.engine))
        with pytest.raises(ConfigError, match=r"db\.plan\(db\.load\('model', 'shout'\)"):
            db.plan("shout", X="body", select=docs)
        planned = db.plan(db.load("model", "shout"), X="body", select=docs)
        shout.predict(X="body", db=db, select=docs, progress=False)
        assert planned.statements
        assert db.plan("shout", X="body", select=docs).statements == ()
