"""Which edits of a model's code make a new version of it, and `version=`, which decides alone."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from pinnacle import ComponentError, ConfigError, Model, Settings, model
from pinnacle.catalog.catalog import Catalog
from tests.unit.catalog_store import MemoryStore

MODULE = """
from dataclasses import dataclass
from pinnacle import Model, model
LIMIT = 3
def cut(text):
    return text[:LIMIT]  # as many

@model
def short(text: str) -> str:
    return cut(text)

class Short(Model):
    def predict_one(self, text: str) -> str:
        return cut(text)

@model(version="1")
def named(text: str) -> str:
    return cut(text)

@dataclass
class Named(Model):
    version = "1"
    end: str = "!"

    def predict_one(self, text: str) -> str:
        return cut(text) + self.end
"""


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def catalog(store, tmp_path):
    return Catalog(store, Settings(cache_dir=tmp_path / "cache"))


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Imports the module anew with replacements made in it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def imported(*edits: tuple[str, str]) -> Any:
        text = MODULE
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        Path(tmp_path / "versions_of_test.py").write_text(text + "#" * len(edits))
        sys.modules.pop("versions_of_test", None)
        importlib.invalidate_caches()
        return importlib.import_module("versions_of_test")

    yield imported
    sys.modules.pop("versions_of_test", None)


def made(module: Any) -> list[Model]:
    return [module.short, module.Short("class"), module.named, module.Named("named_class")]


COMMENT, CODE = ("# as many", "# not more"), ("LIMIT = 3", "LIMIT = 4")


def test_a_comment_makes_no_version_and_a_constant_does_unless_the_version_is_given(catalog, imported):
    assert [catalog.add(each).version for each in made(imported())] == [0, 0, 0, 0]
    assert [catalog.add(each).version for each in made(imported(COMMENT))] == [0, 0, 0, 0]
    assert [catalog.changes(each) for each in made(imported(CODE))[:2]] == [(1, ["LIMIT"]), (1, ["LIMIT"])]
    assert [catalog.add(each).version for each in made(imported(CODE))] == [1, 1, 0, 0]
    assert [catalog.load("model", name).predict("abcdef") for name in ("short", "class", "named")] == ["abcd"] * 3


def test_another_version_is_a_new_version_whatever_the_code(catalog, imported):
    for each in made(imported()):
        catalog.add(each)
    newer = made(imported(('version="1"', 'version="2"'), ('version = "1"', 'version = "2"')))
    assert [catalog.changes(each) for each in newer[2:]] == [(1, ["code_version"])] * 2
    assert [catalog.add(each).version for each in newer] == [0, 0, 1, 1]
    with pytest.raises(ComponentError, match="is not what this version was made from"):
        catalog.load("model", "named", 0)
    with pytest.raises(ComponentError, match="is not of version '2', which Named has"):
        catalog.load("model", "named_class", 0)


def test_with_a_version_changed_fields_take_the_place_of_the_stored_ones(catalog, imported):
    module = imported()
    catalog.add(module.Named("n"))
    assert catalog.add(module.Named("n", end="?")).version == 0
    assert catalog.load("model", "n").end == "?"
    assert catalog.add(module.Named("n", version="1")).version == 0
    assert catalog.add(module.Short("s", version="7")).version == 0
    assert catalog.add(module.Short("s", version="7", skip_null=False)).version == 0
    assert catalog.load("model", "s").code_version == "7"
    assert catalog.add(module.Short("s", version="8")).version == 1
    with pytest.raises(ConfigError, match="Named has '1' itself"):
        module.Named("n", version="7")


@pytest.mark.parametrize("version", [2, "", True])
def test_a_version_that_is_no_text_is_refused(version):
    with pytest.raises(ConfigError, match="version= is a text"):
        model(lambda text: text, identifier="m", version=version)


def test_a_function_that_was_stored_with_its_text_alone_stays_what_it_is(catalog, store, imported):
    catalog.add(imported().short)
    record = store.get("model", "short")
    function = record.body["fields"]["function"]["@function"]
    del function["parts"]
    function["digest"] = "of its text"
    store.records["model", "short"][0] = dataclasses.replace(record, digest="of its text")
    imported(COMMENT)
    assert catalog.load("model", "short").predict("abcdef") == "abc"
    assert catalog.add(imported(COMMENT).short).version == 0
    assert "parts" in store.get("model", "short").body["fields"]["function"]["@function"]
    assert catalog.add(imported(("return cut(text)", "return 2 * cut(text)")).short).version == 1


EFFECTS = ("LIMIT = 3\n", "LIMIT = 3\nWORDS = list()\nWORDS.append(1)\n")
READS = ("return text[:LIMIT]", "return text[:LIMIT + len(WORDS)]")


def test_code_that_was_stored_before_influences_counted_stays_what_it_is(catalog, store, imported):
    added = [catalog.add(each) for each in made(imported(EFFECTS, READS))[:2]]
    for each in added:
        record = store.get("model", each.identifier)
        earlier = earlier_form(record, each)
        assert earlier.body != record.body
        store.records["model", each.identifier][0] = earlier
        assert catalog.load("model", each.identifier).predict("abcdef") == "abcd"
    again = imported(EFFECTS, READS, COMMENT)
    assert [catalog.changes(each) for each in made(again)[:2]] == [(0, [])] * 2
    assert [catalog.add(each).version for each in made(again)[:2]] == [0, 0]
    assert [catalog.load("model", each.identifier).predict("abcdef") for each in added] == ["abcd"] * 2
    other = imported(EFFECTS, READS, ("append(1)", "append(2)"))
    assert [catalog.changes(each) for each in made(other)[:2]] == [(1, ["what changes WORDS"])] * 2
    assert [catalog.add(each).version for each in made(other)[:2]] == [1, 1]


def test_code_of_an_earlier_form_that_changed_is_a_new_version(catalog, store, imported):
    for each in [catalog.add(each) for each in made(imported(EFFECTS, READS))[:2]]:
        store.records["model", each.identifier][0] = earlier_form(store.get("model", each.identifier), each)
    assert [catalog.add(each).version for each in made(imported(EFFECTS, READS, CODE))[:2]] == [1, 1]


def earlier_form(record: Any, component: Model) -> Any:
    """The record as a pinnacle wrote it that did not count what has an influence on code."""
    body = {name: value for name, value in record.body.items() if name != "form"}
    if "source" in body:
        body["source"] = type(component).class_source.earlier_digest
    fields = dict(body["fields"])
    if "function" in fields:
        kept = {name: value for name, value in fields["function"]["@function"].items() if name != "form"}
        fields["function"] = {"@function": kept | {"digest": component.source.earlier_digest}}
    return dataclasses.replace(record, body=body | {"fields": fields}, digest="of an earlier form")


def test_a_class_that_was_stored_without_its_parts_is_a_new_version_and_said_so(catalog, store, imported, caplog):
    catalog.add(imported().Short("class"))
    record = store.get("model", "class")
    body = {name: value for name, value in record.body.items() if name != "parts"} | {"source": "of its text"}
    store.records["model", "class"][0] = dataclasses.replace(record, body=body, digest="of its text")
    assert catalog.add(imported().Short("class")).version == 1
    assert "an earlier pinnacle compared by its text" in caplog.text
