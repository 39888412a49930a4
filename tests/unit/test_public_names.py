"""The front doors: every public name resolves, and importing the package loads next to nothing."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pinnacle
import pinnacle.plugin
import pinnacle.testing

DOORS = {door: importlib.import_module(door) for door in ("pinnacle", "pinnacle.plugin", "pinnacle.testing")}
NAMES = [(door, name) for door, module in DOORS.items() for name in module.__all__]


@pytest.mark.parametrize(("door", "name"), NAMES)
def test_every_public_name_resolves(door, name):
    module = DOORS[door]
    assert getattr(module, name) is getattr(module, name)
    assert name in dir(module)


def test_a_name_is_for_users_or_for_the_authors_of_plugins():
    assert set(pinnacle.__all__) & set(pinnacle.plugin.__all__) == set()


@pytest.mark.parametrize("door", DOORS)
def test_a_type_checker_knows_every_public_name(door):
    tree = ast.parse(Path(DOORS[door].__file__).read_text())
    types = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    known = {alias.asname for node in types.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert known == set(DOORS[door].__all__)


@pytest.mark.parametrize("door", DOORS)
def test_an_unknown_name_is_an_attribute_error(door):
    with pytest.raises(AttributeError, match=f"module '{door}' has no attribute 'Modle'"):
        DOORS[door].Modle  # noqa: B018


def test_declaring_a_model_loads_no_driver_and_no_framework():
    code = (
        "import sys; from pinnacle import Model, Vector, model; "
        "model(lambda x: x, identifier='f', output_type=Vector(3)).predict([1, 2]); "
        "heavy = {'sqlalchemy', 'numpy', 'pymongo', 'psycopg', 'alembic', 'torch', 'click'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=600)
