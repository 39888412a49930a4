"""Folders of weights that users name, and what fits leave in their output folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pinnacle import ConfigError, ModelUnavailable
from pinnacle.plugin import folder_fingerprint

MARK = "pinnacle.json"
"""A file in an output folder that names the model whose fits write there, and the run that did so last."""
STATE = "trainer_state.json"
"""The last file that the library writes into a checkpoint's folder."""
_PATH_STARTS = ("/", ".", "~")


def require_folder(model: str, name: str, known: str | None) -> None:
    """ModelUnavailable for a path where no folder is, or one with other content than the ``known`` fingerprint.

    What may be a name on the hub, "a" or "a/b", passes, and so does a folder that was known and is not here.
    """
    if known is not None:
        if folder_fingerprint(name) not in (None, known):
            raise ModelUnavailable(
                f"model {model!r}: the files in {name!r} are not those of this version any more, they were written "
                "since; a new LLM of that folder is a version of its own"
            )
        return
    is_path = name.startswith(_PATH_STARTS) or name.count("/") > 1 or "\\" in name
    if is_path and not Path(name).is_dir():
        raise ModelUnavailable(f"model {model!r}: {name!r} cannot be loaded: there is no such folder")


def mark_of(folder: Path) -> dict[str, Any]:
    """The model and the run that an output folder is of; nothing where it is of none."""
    mark = folder / MARK
    found: dict[str, Any] = json.loads(mark.read_text()) if mark.is_file() else {}
    return found


def check_output_dir(output_dir: str | None, model: str, *, may_overwrite: bool) -> None:
    """ConfigError for an output folder that cannot be made, or with files that are not of this model's fits."""
    if output_dir is None:
        return
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir={output_dir!r} cannot be made: {error}; name another folder") from error
    if not may_overwrite and mark_of(folder).get("model") != model and any(folder.iterdir()):
        raise ConfigError(
            f"output_dir={output_dir!r} has files in it; name another folder, or pass overwrite_output_dir=True to "
            "write among them (its checkpoint-* folders are deleted)"
        )


def series_in(folder: Path, run: str) -> list[dict[str, Any]]:
    """What a run logged, as of its end or of its last checkpoint there; nothing where the folder is of another run."""
    if mark_of(folder).get("run") != run:
        return []
    states = [json.loads(path.read_text()) for path in [*folder.glob(f"checkpoint-*/{STATE}"), *folder.glob(STATE)]]
    longest: list[dict[str, Any]] = max((state["log_history"] for state in states), key=len, default=[])
    return [{name: float(value) if name != "step" else value for name, value in entry.items()} for entry in longest]
