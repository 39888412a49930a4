"""pinnacle under another import name: ``pinnacledb.x.y`` is the module ``pinnacle.x.y``, and not a copy of it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinnacle import *  # noqa: F403

_pinnacle = importlib.import_module("pinnacle")


class _SameModules(MetaPathFinder, Loader):
    """Gives for a module's name below this package the module of pinnacle."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != __name__ or importlib.util.find_spec(f"pinnacle.{name}") is None:
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"pinnacle.{spec.name.partition('.')[2]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run under its own name: only give it back its own spec, which the import system replaced."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


sys.meta_path.insert(0, _SameModules())


if not TYPE_CHECKING:
    __all__ = _pinnacle.__all__

    def __getattr__(name: str) -> Any:
        return getattr(_pinnacle, name)


def __dir__() -> list[str]:
    return dir(_pinnacle)
