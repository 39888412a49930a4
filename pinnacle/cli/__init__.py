"""The command line: look at a database that pinnacle works on, steer it, prepare it, clean it, and see the demo.

Each module of this folder adds its commands to `main` as it is imported.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from pinnacle.cli.group import main

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

__all__ = ["main"]
