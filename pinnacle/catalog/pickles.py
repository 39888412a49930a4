"""Pickles of code and values that no other process can import; used only where the caller allows it."""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import Any

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import ComponentError, MissingPlugin

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def dump(value: Any, path: str) -> bytes:
    """Pickle ``value`` with cloudpickle, code by value; ComponentError naming ``path`` where that fails."""
    try:
        return bytes(_cloudpickle().dumps(value))
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ComponentError(f"{path} holds a {type(value).__name__}, which cannot be pickled: {error}") from error


def load(content: bytes, python: str | None) -> Any:
    """Unpickle, which runs the code in it; ComponentError for a pickle of another Python version."""
    if python != PYTHON:
        raise ComponentError(
            f"the component was pickled by Python {python} and this is Python {PYTHON}: bytecode differs; "
            f"load it with Python {python}, or move its code to a module and add it again"
        )
    _cloudpickle()
    return pickle.loads(content)


def _cloudpickle() -> Any:
    try:
        return importlib.import_module("cloudpickle")
    except ImportError as error:
        raise MissingPlugin("cloudpickle", with_extra("pickle"), purpose="allow_pickle=True") from error
