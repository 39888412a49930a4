"""The catalog: versions, nesting, loading, showing, removing; over the memory store."""

from __future__ import annotations

import dataclasses
import threading
from datetime import datetime
from typing import Any, ClassVar

import pytest

from pinnacle import Component, ComponentError, Conflict, Model, NotFound, Settings, Vector, model
from pinnacle.base.rows import Record
from pinnacle.base.types import Integer
from pinnacle.catalog.catalog import Catalog
from pinnacle.components.component import keep_secrets
from pinnacle.plugin import Artifact, secret
from tests.unit.catalog_store import MemoryStore


@model
def word_count(body: str) -> int:
    return len(body.split())


@dataclasses.dataclass
class Suffix(Model):
    suffix: str = "!"
    options: Any = None
    inner: Any = None
    api_key: str | None = secret()

    def predict_one(self, text: str) -> str:
        return text + self.suffix


@dataclasses.dataclass
class Prefix(Model):
    prefix: str = ">"

    def predict_one(self, text: str) -> str:
        return self.prefix + text


@dataclasses.dataclass
class Listener(Component):
    kind: ClassVar[str] = "listener"
    model: Model | None = None


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def catalog(store, tmp_path):
    return Catalog(store, Settings(cache_dir=tmp_path))


def test_the_same_content_again_is_a_no_op(catalog):
    assert catalog.add(Suffix("s")).version == 0
    assert catalog.add(Suffix("s")).version == 0
    assert len(catalog.show("model", "s")["versions"]) == 1


def test_changed_content_is_the_next_version_and_old_ones_load_by_number(catalog):
    catalog.add(Suffix("s"))
    assert catalog.add(Suffix("s", suffix="?")).version == 1
    assert catalog.load("model", "s").predict("a") == "a?"
    assert catalog.load("model", "s", 0).predict("a") == "a!"
    assert catalog.load("model", "s").version == 1
    assert catalog.add(Suffix("s")).version == 2


def test_load_gives_a_new_equal_object(catalog):
    added = catalog.add(Suffix("s", options={"a": (1, 2.5), "when": datetime(2024, 1, 2)}, output_type=Vector(3)))
    loaded = catalog.load("model", "s")
    assert loaded == added
    assert loaded is not added
    assert loaded.output_type == Vector(3)


def test_a_function_model_loads_with_its_options(catalog):
    catalog.add(model(word_count.function, batch_size=7))
    loaded = catalog.load("model", "word_count")
    assert (loaded.batch_size, loaded.predict("a b c")) == (7, 3)
    assert loaded.resolved_output_type() == Integer()


def test_a_changed_function_source_is_the_next_version(catalog):
    def counted(text: str) -> int:
        return len(text)

    first = counted

    def counted(text: str) -> int:
        return len(text) + 1

    assert catalog.add(model(first)).version == 0
    assert catalog.add(model(counted)).version == 1
    assert catalog.add(model(counted)).version == 1
    assert catalog.load("model", "counted", 0).predict("ab") == 2
    assert catalog.load("model", "counted").predict("ab") == 3


def test_what_a_function_closes_over_is_part_of_its_source(catalog):
    def made(bonus: int) -> Model:
        return model(lambda text: len(text) + bonus, identifier="bonus", output_type=int)

    assert [catalog.add(made(bonus)).version for bonus in (1, 1, 2)] == [0, 0, 1]
    assert catalog.load("model", "bonus", 0).predict("") == 1


def test_two_lambdas_on_one_line_are_two_versions(catalog):
    both = [model(f, identifier="f", output_type=int) for f in (lambda x: x + 1, lambda x: x + 2)]
    assert [catalog.add(each).version for each in both] == [0, 1]


def test_changed_methods_of_a_class_are_the_next_version(catalog):
    def make(mark: str) -> type[Model]:
        class Local(Model):
            sign = mark

            def predict_one(self, text: str) -> str:
                return text + self.sign

        return Local

    assert [catalog.add(make(mark)("local")).version for mark in ("!", "!", "?")] == [0, 0, 1]
    assert catalog.load("model", "local", 0).predict("a") == "a!"
    assert catalog.load("model", "local", 1).predict("a") == "a?"


def test_another_class_needs_replace(catalog):
    catalog.add(Suffix("s"))
    with pytest.raises(Conflict, match=r"use db\.replace"):
        catalog.add(Prefix("s"))
    assert catalog.replace(Prefix("s")).version == 1
    assert catalog.load("model", "s").predict("a") == ">a"
    assert catalog.load("model", "s", 0).predict("a") == "a!"


def test_replace_needs_something_to_replace(catalog):
    with pytest.raises(NotFound, match="there is none yet"):
        catalog.replace(Suffix("s"))


def test_nested_components_are_added_first_and_pinned(catalog):
    inner = Prefix("inner")
    outer = catalog.add(Suffix("outer", inner=inner, options=[inner, {"again": inner}]))
    assert (inner.version, outer.version) == (0, 0)
    catalog.add(Prefix("inner", prefix="#"))
    loaded = catalog.load("model", "outer")
    assert loaded.inner == inner
    assert loaded.inner.version == 0
    assert loaded.options[1]["again"].predict("a") == ">a"
    assert catalog.add(Suffix("outer", inner=Prefix("inner", prefix="#"))).version == 1


def test_a_component_that_is_kept_stays_in_the_version_that_it_carries(catalog):
    catalog.add(Suffix("outer", inner=Prefix("inner")))
    catalog.add(Prefix("inner", prefix="#"))
    older = catalog.load("model", "inner", 0)
    assert catalog.add(Suffix("outer", inner=older), keeps=older).version == 0
    assert len(catalog.show("model", "inner")["versions"]) == 2
    older.max_attempts = 7
    assert catalog.add(Suffix("outer", inner=older), keeps=older).version == 0
    assert catalog.load("model", "inner", 0).max_attempts == 7
    assert catalog.add(Suffix("outer", inner=older)).inner.version == 2


def test_a_component_is_loaded_with_another_version_of_what_is_in_it(catalog):
    catalog.add(Suffix("outer", inner=Prefix("inner")))
    newer = catalog.add(Prefix("inner", prefix="#"))
    found = catalog.load_with(newer, catalog.record("model", "outer"))
    assert (found.inner is newer, found.version) == (True, 0)


def test_the_newest_versions_are_told_of_those_that_are_there(catalog):
    for suffix in "!?":
        catalog.add(Suffix("s", suffix=suffix))
    catalog.add(Prefix("p"))
    assert catalog.newest("model", {"s", "p", "none"}) == {"s": 1, "p": 0}


def test_the_version_of_a_component_is_the_newest_with_its_content(catalog):
    for suffix in ("!", "?", "!"):
        catalog.add(Suffix("s", suffix=suffix))
    assert [catalog.version_of(Suffix("s", suffix=suffix)) for suffix in "!?."] == [2, 1, None]
    assert catalog.version_of(Suffix("s", inner=Prefix("never stored"))) is None
    assert catalog.version_of(Suffix("s", options=object())) is None


def test_literal_secrets_are_kept_and_others_left_alone():
    newer, named, other = Suffix("s"), Suffix("s", api_key="env:KEY"), Prefix("s")
    for component in (newer, named, other):
        keep_secrets(component, Suffix("s", api_key="sk-1"))
    assert (newer.api_key, named.api_key) == ("sk-1", "env:KEY")
    keep_secrets(newer, Suffix("s", api_key="env:KEY"))
    assert newer.api_key == "sk-1"


def test_circular_references_are_refused(catalog, store):
    first, second = Suffix("first"), Suffix("second")
    first.inner, second.options = second, [first]
    with pytest.raises(ComponentError, match="first -> second -> first"):
        catalog.add(first)
    assert store.identifiers() == []


def test_a_value_that_holds_itself_is_refused(catalog):
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ComponentError, match="'options' holds itself"):
        catalog.add(Suffix("s", options=loop))


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (threading.Lock(), r"keep it out of the fields.*allow_pickle=True"),
        (object(), "cannot be stored"),
        (Settings(), "make it a Component"),
        (b"x" * 100_000, "Artifact"),
    ],
)
def test_what_cannot_be_stored_names_the_field_and_the_remedy(catalog, store, value, remedy):
    with pytest.raises(ComponentError, match=f"model 's': field 'options'.*{remedy}"):
        catalog.add(Suffix("s", options={"deep": value}))
    assert store.identifiers() == []


def test_an_open_file_cannot_be_stored(catalog, tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(ComponentError, match="holds a TextIOWrapper"):
        catalog.add(Suffix("s", options=file))


def test_something_else_than_a_component_is_refused(catalog):
    with pytest.raises(ComponentError, match="only components can be stored"):
        catalog.add(len)


def test_secrets_are_stored_by_name_or_not_at_all(catalog, store):
    catalog.add(Suffix("named", api_key="env:API_KEY"))
    catalog.add(Suffix("literal", api_key="sk-very-secret"))
    assert catalog.load("model", "named").api_key == "env:API_KEY"
    assert catalog.load("model", "literal").api_key is None
    assert "very-secret" not in repr(store.records) + repr(Suffix("literal", api_key="sk-very-secret"))


def test_a_required_secret_that_was_not_stored_says_so(catalog):
    @dataclasses.dataclass
    class Keyed(Model):
        key: str = dataclasses.field(metadata={"secret": True}, kw_only=True)

        def predict_one(self, text: str) -> str:
            return text

    catalog.add(Keyed("keyed", key="sk-1"))
    assert "sk-1" not in repr(Keyed("keyed", key="sk-1"))
    with pytest.raises(ComponentError, match=r'stored without key.*"env:NAME"'):
        catalog.load("model", "keyed")


def test_misspelt_identifiers_get_near_names(catalog):
    catalog.add(word_count)
    with pytest.raises(NotFound, match="did you mean 'word_count'"):
        catalog.load("model", "word_cont")
    with pytest.raises(NotFound, match="has no version 3; it has 0"):
        catalog.load("model", "word_count", 3)
    with pytest.raises(NotFound, match="but a model of that name"):
        catalog.load("listener", "word_count")
    with pytest.raises(NotFound, match="did you mean 'model'"):
        catalog.show("models")


def test_show_lists_kinds_identifiers_and_versions(catalog):
    catalog.add(Listener("l", model=word_count))
    assert catalog.show() == [("listener", "l"), ("model", "word_count")]
    assert "word_count" in catalog.show("model")
    assert catalog.show("tool") == []
    shown = catalog.show("model", "word_count")
    (version,) = shown["versions"]
    assert (version["version"], version["type"]) == (0, "FunctionModel")
    assert version["created_at"].tzinfo is not None
    assert "len(body.split())" in version["fields"]["function"]["@function"]["text"]


def test_removing_is_refused_while_another_component_uses_it(catalog):
    catalog.add(Listener("l", model=word_count))
    with pytest.raises(Conflict, match="part of listener 'l' version 0"):
        catalog.remove("model", "word_count")
    assert catalog.remove("listener", "l") == 1
    assert catalog.remove("model", "word_count") == 1
    assert catalog.show() == []
    with pytest.raises(NotFound):
        catalog.remove("model", "word_count")


def test_one_version_can_be_removed(catalog):
    catalog.add(Suffix("s"))
    catalog.add(Suffix("s", suffix="?"))
    assert catalog.remove("model", "s", 0) == 1
    assert [v["version"] for v in catalog.show("model", "s")["versions"]] == [1]


def test_a_lost_race_is_read_again(catalog, store, tmp_path):
    class Racing(MemoryStore):
        """Another process saves the very version that is about to be saved here."""

        def __init__(self, others: Suffix) -> None:
            super().__init__()
            self.others: Suffix | None = others

        def save(self, record: Record) -> bool:
            if (others := self.others) is not None:
                self.others = None
                Catalog(self, Settings(cache_dir=tmp_path)).add(others)
            return super().save(record)

    same = Catalog(Racing(Suffix("s")), Settings(cache_dir=tmp_path))
    assert same.add(Suffix("s")).version == 0
    different = Catalog(Racing(Suffix("s", suffix="?")), Settings(cache_dir=tmp_path))
    assert different.add(Suffix("s")).version == 1


def test_many_threads_adding_at_once_all_end_well(catalog):
    start = threading.Barrier(8)
    versions: list[int | None] = []

    def add(number: int) -> None:
        start.wait(timeout=600)
        versions.append(catalog.add(Suffix("s", suffix=str(number % 4))).version)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert len(versions) == 8
    stored = [v["version"] for v in catalog.show("model", "s")["versions"]]
    assert stored == list(range(len(stored)))


def test_a_field_that_is_new_and_at_its_default_makes_no_new_version(catalog, store):
    catalog.add(Suffix("s"))
    (record,) = store.versions("model", "s")
    del record.body["fields"]["retry_delay_s"], record.body["fields"]["suffix"]
    older = dataclasses.replace(record, digest="of an older release")
    store.records["model", "s"][0] = older
    assert catalog.add(Suffix("s", suffix="?")).version == 1
    store.records["model", "s"] = {0: older}
    del older.body["fields"]["skip_null"]
    assert catalog.add(Suffix("s", suffix="!")).version == 0


def test_a_field_that_is_gone_says_so(catalog, store):
    catalog.add(Suffix("s"))
    store.versions("model", "s")[0].body["fields"]["colour"] = "red"
    with pytest.raises(ComponentError, match="stored with colour, which Suffix no longer has"):
        catalog.load("model", "s")


def test_artifacts_go_beside_the_record(catalog, store):
    weights = Artifact(b"w" * 3_000_000)
    catalog.add(Suffix("s", options={"weights.bin": weights}))
    assert catalog.show("model", "s")["versions"][0]["artifacts"] == [weights.sha256]
    assert max(map(len, store.artifacts[weights.sha256])) <= 1 << 20
    assert catalog.load("model", "s").options["weights.bin"].read() == b"w" * 3_000_000
    assert catalog.add(Suffix("s", options={"weights.bin": Artifact(b"other")})).version == 1


def test_an_artifact_that_another_process_removes_meanwhile_is_put_again(catalog, store, monkeypatch):
    weights, save = Artifact(b"w" * 3_000_000), store.save

    def save_late(record):
        monkeypatch.setattr(store, "save", save)
        store.artifacts.clear()
        return save(record)

    monkeypatch.setattr(store, "save", save_late)
    assert catalog.add(Suffix("s", options={"weights.bin": weights})).version == 0
    assert catalog.load("model", "s").options["weights.bin"].read() == b"w" * 3_000_000


@pytest.mark.parametrize("identifier", ["", "  ", None, 7, "a\x00b", "\ud800", "x" * 256])
def test_identifiers_no_database_keeps_are_refused(identifier):
    with pytest.raises(Exception, match="identifier"):
        Suffix(identifier)


@pytest.mark.parametrize("identifier", ['quo"te', "dot.ted", "space d", "naïve ☃", "'; drop table t; --", "@x", "$y"])
def test_odd_identifiers_are_kept(catalog, identifier):
    catalog.add(Suffix("outer", inner=Prefix(identifier)))
    assert catalog.load("model", identifier).identifier == identifier
    assert catalog.load("model", "outer").inner.identifier == identifier
