"""A Pydantic class in a field is stored by its name, its schema and its source, and is the same class when it loads."""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pydantic
import pytest
import sqlalchemy as sa

from pinnacle import ComponentError, ConfigError, InvalidAnswer, Settings, UntrustedReference, pinnacle
from pinnacle.base.rows import Record
from pinnacle.catalog.catalog import Catalog
from tests.unit.catalog_store import MemoryStore

FORMS = """
import json
import pydantic
from pydantic import BaseModel, Field, create_model
from pinnacle import Model

class Tag(BaseModel):
    name: str

    @pydantic.field_validator("name")
    @classmethod
    def is_lower(cls, name):
        return name.lower()

class Review(BaseModel):
    stars: int = Field(ge=1)
    mood: str = "calm"
    words: list[str] = Field(default_factory=lambda: ["none"])
    tags: list[Tag] = []

    @pydantic.field_validator("mood")
    @classmethod
    def is_known(cls, mood):
        if mood not in ("calm", "angry"):
            raise ValueError("no such mood")
        return mood

class Outer:
    class Inner(BaseModel):
        stars: int

Renamed = create_model("Made", stars=(int, 1))

class NoSchema:
    def __init__(self, *args):
        raise AssertionError("a class that is no Pydantic model was called")

def plain(*args):
    raise AssertionError("a function was called")

def echo(model, prompt, **parameters):
    return prompt.splitlines()[0]

def reviewer(schema=Review, **options):
    return Model.from_function("reviewer", fn=echo, output_schema=schema, max_reasks=0, **options)

judge = reviewer()

"""
ANSWERS = ['{"stars": 3}', '{"stars": 3, "mood": "odd"}', '{"stars": "4"}', '{"stars": 5, "extra": 1}', '{"stars": 0}']


@pytest.fixture
def forms(tmp_path, monkeypatch):
    """A user's module ``forms_of_test`` on this process's path."""
    (tmp_path / "forms_of_test.py").write_text(FORMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("forms_of_test")
    sys.modules.pop("forms_of_test", None)


@pytest.fixture
def catalog(tmp_path):
    return Catalog(MemoryStore(), Settings(cache_dir=tmp_path / "cache"))


def edit(forms, old: str, new: str) -> Any:
    """The module as it is after its file was edited."""
    path = Path(forms.__file__)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new) + "\n# edited\n")
    sys.modules.pop(forms.__name__)
    importlib.invalidate_caches()
    return importlib.import_module(forms.__name__)


def stored(catalog: Catalog) -> Any:
    record = catalog.store.get("model", "reviewer")
    assert record is not None
    return record.body["fields"]["output_schema"]["@schema_class"]


def forge(catalog: Catalog, **changes: Any) -> None:
    """The stored model with another class, as someone would write it who can write to the database."""
    record = catalog.store.get("model", "reviewer")
    schema_class = {"@schema_class": {**stored(catalog), **changes}}
    fields = {**record.body["fields"], "output_schema": schema_class}
    catalog.store.save(
        Record(
            kind="model",
            identifier="reviewer",
            version=1,
            type=record.type,
            body={**record.body, "fields": fields},
            digest="forged",
        )
    )


def outcomes(model: Any) -> list[Any]:
    """What a model makes of each answer; for one that does not fit, that it does not."""
    found = []
    for answer in ANSWERS:
        try:
            found.append(model.predict(answer))
        except InvalidAnswer:
            found.append("invalid")
    return found


def test_the_field_keeps_the_class(forms):
    assert forms.judge.output_schema is forms.Review
    assert forms.judge.form.schema == forms.Review.model_json_schema()


def test_a_class_goes_by_its_import_reference_with_its_schema(catalog, forms):
    catalog.add(forms.judge)
    assert stored(catalog)["reference"] == "forms_of_test:Review"
    assert stored(catalog)["local"] is False
    sys.modules.pop("forms_of_test")
    loaded: Any = catalog.load("model", "reviewer")
    assert loaded.output_schema is importlib.import_module("forms_of_test").Review
    assert loaded.predict('{"stars": "4"}') == {"stars": 4, "mood": "calm", "words": ["none"], "tags": []}
    assert catalog.add(loaded).version == 0


@pytest.mark.parametrize("name", ["Outer.Inner", "Renamed"])
def test_a_class_is_found_inside_another_and_under_another_name(catalog, forms, name):
    schema = forms.Outer.Inner if name == "Outer.Inner" else forms.Renamed
    forms.judge.output_schema = schema
    catalog.add(forms.judge)
    assert stored(catalog)["reference"] == f"forms_of_test:{name}"
    assert catalog.load("model", "reviewer").output_schema is schema


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('mood: str = "calm"', 'mood: str = "angry"'),
        ('("calm", "angry")', '("calm", "angry", "odd")'),
        ('["none"]', '["some"]'),
        ("name.lower()", "name.upper()"),
        ("class Review(BaseModel):\n", 'class Review(BaseModel):\n    model_config = {"extra": "allow"}\n'),
    ],
    ids=["default", "validator", "default_factory", "nested validator", "config"],
)
def test_a_changed_class_is_a_new_version_and_never_loads_under_the_old_one(catalog, forms, old, new):
    catalog.add(forms.judge)
    changed = edit(forms, old, new)
    with pytest.raises(ComponentError, match=r"forms_of_test:Review is not what this version was made from; run db"):
        catalog.load("model", "reviewer")
    assert catalog.add(changed.judge).version == 1
    assert catalog.load("model", "reviewer").output_schema is changed.Review
    with pytest.raises(ComponentError, match="is not what this version was made from"):
        catalog.load("model", "reviewer", 0)


def test_an_edit_elsewhere_in_the_module_does_not_matter(catalog, forms):
    catalog.add(forms.judge)
    changed = edit(forms, "class NoSchema", "class NoSchemaAtAll")
    assert catalog.load("model", "reviewer").output_schema is changed.Review
    assert catalog.add(changed.judge).version == 0


def test_a_class_that_is_gone_says_so(catalog, forms):
    catalog.add(forms.judge)
    edit(forms, "Review", "Report")
    with pytest.raises(ComponentError, match="forms_of_test has no Review"):
        catalog.load("model", "reviewer")


@pytest.mark.parametrize("name", ["NoSchema", "plain", "judge", "BaseModel", "Model"])
def test_what_is_no_pydantic_model_is_neither_called_nor_loaded(catalog, forms, name):
    catalog.add(forms.judge)
    forge(catalog, reference=f"forms_of_test:{name}")
    with pytest.raises(UntrustedReference, match=r"no Pydantic model; only subclasses of pydantic\.BaseModel"):
        catalog.load("model", "reviewer")


@pytest.mark.parametrize("change", [{"schema": {"type": "object"}}, {"digest": "0"}, {"digest": None}])
def test_a_class_with_another_schema_or_source_is_refused(catalog, forms, change):
    catalog.add(forms.judge)
    forge(catalog, **change)
    with pytest.raises(ComponentError, match="the source or the schema of forms_of_test:Review is not what"):
        catalog.load("model", "reviewer")


@pytest.mark.parametrize("reference", ["os:system", "antigravity:fly", "builtins:eval", "../evil:f", ":f"])
def test_the_standard_library_and_what_is_no_module_are_refused(catalog, forms, reference):
    catalog.add(forms.judge)
    forge(catalog, reference=reference)
    with pytest.raises(UntrustedReference):
        catalog.load("model", "reviewer")
    assert "antigravity" not in sys.modules


def test_trusted_modules_hold_for_schema_classes(catalog, forms, tmp_path):
    (tmp_path / "trap_of_test.py").write_text("raise AssertionError('imported')")
    trusting = Catalog(catalog.store, Settings(trusted_modules=("forms_of_test",), cache_dir=tmp_path))
    catalog.add(forms.judge)
    assert trusting.load("model", "reviewer").output_schema is forms.Review
    forge(catalog, reference="trap_of_test:Review")
    with pytest.raises(UntrustedReference, match="outside of trusted_modules"):
        trusting.load("model", "reviewer")


def local_class(floor: int) -> type[pydantic.BaseModel]:
    class Local(pydantic.BaseModel):
        stars: int

        @pydantic.field_validator("stars")
        @classmethod
        def is_enough(cls, stars: int) -> int:
            if stars < floor:
                raise ValueError("too few")
            return stars

    return Local


def test_a_local_class_loads_in_this_process_alone_and_as_itself(catalog, forms, monkeypatch):
    low, high = local_class(1), local_class(4)
    assert catalog.add(forms.reviewer(low)).version == 0
    assert catalog.add(forms.reviewer(high)).version == 1
    assert catalog.load("model", "reviewer", 0).output_schema is low
    assert catalog.load("model", "reviewer", 1).output_schema is high
    monkeypatch.setattr("pinnacle.catalog.references._live", {})  # as another process has it
    with pytest.raises(ComponentError, match=r"<locals>\.Local, which lives only in the process.*move it to a module"):
        catalog.load("model", "reviewer")


def test_a_class_that_only_looks_like_pydantics_is_refused(forms):
    class Duck:
        @classmethod
        def model_json_schema(cls) -> dict[str, Any]:
            return {"type": "object"}

    with pytest.raises(ConfigError, match="output_schema is a Pydantic model"):
        forms.reviewer(Duck)


LOADER = """
import json, sys
from pinnacle import pinnacle, Settings
from tests.unit.test_schema_classes import outcomes

with pinnacle(sys.argv[1], settings=Settings()) as db:
    print(json.dumps(outcomes(db.load("model", "reviewer"))))
"""

SCRIPT = """
import sys, pydantic
from pinnacle import pinnacle, Settings
from forms_of_test import reviewer

class Review(pydantic.BaseModel):
    stars: int

with pinnacle(sys.argv[1], settings=Settings()) as db:
    db.add(reviewer(Review), allow_pickle="pickle" in sys.argv)
    assert db.load("model", "reviewer").predict('{"stars": "4"}') == {"stars": 4}
"""


def run(directory: Path, text: str, *arguments: str) -> str:
    script = directory / "script.py"
    script.write_text(text)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script, *arguments], env=env, timeout=600, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_process_makes_the_same_of_every_answer(forms, tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with pinnacle(url, settings=Settings()) as db:
        db.add(forms.judge)
    calm = {"mood": "calm", "words": ["none"], "tags": []}
    expected = [{"stars": 3, **calm}, "invalid", {"stars": 4, **calm}, {"stars": 5, **calm}, "invalid"]
    assert outcomes(forms.judge) == expected
    assert json.loads(run(tmp_path, LOADER, url)) == expected


def test_a_scripts_own_class_is_a_clear_error_elsewhere(forms, tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    run(tmp_path, SCRIPT, url)
    with (
        pinnacle(url, settings=Settings()) as db,
        pytest.raises(ComponentError, match=r"__main__:Review, which lives only in the process.*move it to a module"),
    ):
        db.load("model", "reviewer")


def test_a_scripts_own_class_loads_where_both_sides_allowed_pickles(forms, tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    run(tmp_path, SCRIPT, url, "pickle")
    with pinnacle(url, settings=Settings()) as db:
        with pytest.raises(ComponentError, match="pass allow_pickle=True to load"):
            db.load("model", "reviewer")
        loaded = db.load("model", "reviewer", allow_pickle=True)
        assert outcomes(loaded)[2:4] == [{"stars": 4}, {"stars": 5}]
        assert db.add(loaded, allow_pickle=True).version == 0


def test_one_output_is_spread_over_the_fields_of_a_class(forms, tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)")
        connection.execute("INSERT INTO notes VALUES (1, ?)", ['{"stars": "3"}'])
        connection.commit()
    notes = sa.table("notes", sa.column("id"), sa.column("body"))
    with pinnacle(f"sqlite:///{tmp_path / 'a.db'}", settings=Settings()) as db:
        spread = {"stars": "rating", "mood": "mood"}
        forms.judge.predict(X="body", db=db, select=sa.select(notes), output=spread)
        with pytest.raises(ConfigError, match="the schema has no field 'town'; it has 'stars', 'mood'"):
            forms.judge.predict(X="body", db=db, select=sa.select(notes), output={"town": "town"})
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT rating, mood FROM notes").fetchall() == [(3, "calm")]


def test_the_core_does_not_import_pydantic():
    code = "import sys, pinnacle, pinnacle.llm.base, pinnacle.catalog.catalog; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
