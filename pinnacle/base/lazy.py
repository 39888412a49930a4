"""Names of a front door that are imported when they are first used, so that importing the door loads nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any


class LazyNames:
    """The public names of one module, each kept in a module of its own until somebody asks for it."""

    def __init__(self, module: str, names_by_module: Mapping[str, tuple[str, ...]]) -> None:
        self._module = module
        self._module_of = {name: holder for holder, names in names_by_module.items() for name in names}

    def resolve(self, name: str) -> Any:
        """What a name stands for, kept from now on; AttributeError for an unknown one."""
        if name not in self._module_of:
            raise AttributeError(f"module {self._module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(self._module_of[name]), name)
        setattr(sys.modules[self._module], name, value)
        return value

    def public(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self._module_of)

    def listed(self) -> list[str]:
        """What ``dir()`` of the module shows."""
        return sorted({*vars(sys.modules[self._module]), *self._module_of})
