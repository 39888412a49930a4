"""pinnacle by the name pinnacledb: the same modules and objects, whichever name comes first."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pinnacledb
import pytest

import pinnacle

SOURCE = Path(pinnacle.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if path != SOURCE / "__init__.py" and path.name not in ("__main__.py", "env.py") and "_migrations" not in path.parts
)


def run(folder, code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_the_same(name):
    module = importlib.import_module(f"pinnacledb.{name}")
    assert module is importlib.import_module(f"pinnacle.{name}")
    assert (module.__name__, module.__spec__.name) == (f"pinnacle.{name}", f"pinnacle.{name}")


@pytest.mark.parametrize("name", pinnacle.__all__)
def test_every_public_name_is_the_same(name):
    assert getattr(pinnacledb, name) is getattr(pinnacle, name)
    assert name in pinnacledb.__all__
    assert name in dir(pinnacledb)


def test_scripts_that_import_by_this_name_alone_get_the_same_objects(tmp_path):
    code = """
from pinnacledb import pinnacle, Model
from pinnacledb.backends.mongodb import Collection
from pinnacledb.base.document import Document
from pinnacledb.ext.llm import OpenAI
from pinnacledb.ext.llm.model import LLMTrainingConfiguration
import pinnacledb.backends.mongodb.query as query
from pinnacle import Model as same_model, pinnacle as same_function
from pinnacle.backends.mongodb import Collection as same_collection
from pinnacle.base.document import Document as same_document
import pinnacle_openai, pinnacle_transformers
assert Model is same_model and pinnacle is same_function
assert query.Collection is Collection is same_collection and Document is same_document
assert OpenAI is pinnacle_openai.OpenAI
assert LLMTrainingConfiguration is pinnacle_transformers.LLMTrainingConfiguration
"""
    run(tmp_path, code)


def test_what_one_name_stores_the_other_loads(tmp_path):
    (tmp_path / "shouting.py").write_text(
        "from pinnacledb import model\n\n@model\ndef shout(text: str) -> str:\n    return text.upper()\n"
    )
    (tmp_path / "told.py").write_text(
        "from dataclasses import dataclass\nfrom pinnacledb import Model\n\n"
        "@dataclass\nclass Told(Model):\n    def predict_one(self, x: str) -> str:\n        return x + '!'\n"
    )
    run(
        tmp_path,
        "from pinnacledb import pinnacle; from shouting import shout; from told import Told\n"
        "with pinnacle('sqlite:///stored.db') as db: db.add(shout); db.add(Told('told'))",
    )
    for name in ("pinnacle", "pinnacledb"):
        told = run(
            tmp_path,
            f"from {name} import pinnacle\nwith pinnacle('sqlite:///stored.db') as db:\n"
            "    print(*(db.load('model', name).predict('a') for name in ('shout', 'told')))",
        )
        assert told == "A a!\n"


def test_a_module_that_is_not_there_is_missed_by_the_name_it_was_asked_by():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'pinnacledb\.modle'"):
        importlib.import_module("pinnacledb.modle")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'pinnacledb\.base\.modle'"):
        importlib.import_module("pinnacledb.base.modle")
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        pinnacledb.Modle  # noqa: B018


def test_importing_it_loads_as_little_as_pinnacle_does(tmp_path):
    heavy = "{'sqlalchemy', 'numpy', 'pymongo', 'psycopg', 'alembic', 'torch', 'click'}"
    assert run(tmp_path, f"import sys, pinnacledb; print({heavy} & set(sys.modules))") == "set()\n"
