"""Every example runs, and prints what its last lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(path, open_folder):
    source = path.read_text()
    promised = [line.removeprefix("# ") for line in source.partition("# Prints:\n")[2].splitlines()]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:XDG_RUNTIME_DIR", path],
        cwd=open_folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.splitlines() == promised != []
    assert len(source.splitlines()) <= 80
