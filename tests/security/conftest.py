"""The town of the attacks, and an operator who does not wait."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.security.attacks import elsewhere
from tests.security.scene import SECRET, Town, build, hurry, in_town


@pytest.fixture(autouse=True)
def brisk(monkeypatch) -> None:
    """Workers and commands look sooner than they need to."""
    hurry(monkeypatch.setattr)


@pytest.fixture(scope="session")
def towns(tmp_path_factory) -> dict[bool, Path]:
    """The town as its people left it: not signed, and signed."""
    found = {}
    for is_signed in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            folder = tmp_path_factory.mktemp("town")
            in_town(folder, patch.setenv, SECRET if is_signed else None)
            build(folder / "town.db")
            found[is_signed] = folder / "town.db"
    return found


@pytest.fixture
def is_signed() -> bool:
    """Whether the processes of a test have a secret; a test says so by a parameter of that name."""
    return False


@pytest.fixture
def town(tmp_path, towns, monkeypatch, is_signed) -> Town:
    """A copy of the town of one's own."""
    shutil.copyfile(towns[is_signed], tmp_path / "town.db")
    in_town(tmp_path, monkeypatch.setenv, SECRET if is_signed else None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(elsewhere(tmp_path))])
    return Town(tmp_path)
