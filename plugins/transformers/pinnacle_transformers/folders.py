"""Refuses a path where no folder of weights is."""

from __future__ import annotations

from pathlib import Path

from pinnacle import ModelUnavailable

_PATH_STARTS = ("/", ".", "~")


def require_folder(model: str, name: str) -> None:
    """ModelUnavailable for a path where no folder is. What may be a name on the hub, "a" or "a/b", passes."""
    is_path = name.startswith(_PATH_STARTS) or name.count("/") > 1 or "\\" in name
    if is_path and not Path(name).is_dir():
        raise ModelUnavailable(f"model {model!r}: {name!r} cannot be loaded: there is no such folder")
