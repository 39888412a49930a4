"""The command line: look at a database that pinnacle works on, steer it, prepare it, clean it, and see the demo."""

from __future__ import annotations

from pinnacle.cli import status, steering, upkeep
from pinnacle.cli.group import main

__all__ = ["main", "status", "steering", "upkeep"]
