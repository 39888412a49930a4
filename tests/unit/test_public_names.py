"""The front door: every public name resolves, and importing the package loads next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pinnacle


@pytest.mark.parametrize("name", pinnacle.__all__)
def test_every_public_name_resolves(name):
    assert getattr(pinnacle, name) is getattr(pinnacle, name)
    assert name in dir(pinnacle)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        pinnacle.Modle  # noqa: B018


def test_declaring_a_model_loads_no_driver_and_no_framework():
    code = (
        "import sys; from pinnacle import Model, Vector, model; "
        "model(lambda x: x, identifier='f', output_type=Vector(3)).predict([1, 2]); "
        "heavy = {'sqlalchemy', 'numpy', 'pymongo', 'psycopg', 'alembic', 'torch', 'click'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=60)
