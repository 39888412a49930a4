"""The README walked: every Python block runs, prints what it says it prints, and every command exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pinnacle.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISE = re.compile(r"^print\(.*\)\s+# (.*)$", re.MULTILINE)
MONGODB = "mongodb://127.0.0.1:27017/app"


def scripts() -> dict[str, str]:
    """The Python blocks under each heading, joined: later blocks of a section build on earlier ones."""
    found = {}
    for section in re.split(r"^(?=##+ )", README, flags=re.MULTILINE):
        blocks = PYTHON.findall(section)
        if blocks:
            found[section.splitlines()[0].lstrip("# ")] = "\n".join(blocks)
    return found


@pytest.mark.parametrize("title", scripts())
def test_a_section_runs_and_prints_what_its_comments_say(title, tmp_path, request):
    code = scripts()[title]
    if MONGODB in code:
        code = code.replace(MONGODB, request.getfixturevalue("mongodb_url"))
    (tmp_path / "quickstart.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:XDG_RUNTIME_DIR", "quickstart.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.splitlines() == PROMISE.findall(code)


def test_every_print_of_the_readme_says_what_it_prints():
    code = "\n".join(scripts().values())
    assert len(re.findall(r"\bprint\(", code)) == len(PROMISE.findall(code)) > 0


def test_the_readme_names_all_commands_and_no_others():
    shell = "\n".join(SHELL.findall(README))
    assert set(re.findall(r"^pinnacle (\w+)", shell, flags=re.MULTILINE)) == set(main.commands)
    targets = set(re.findall(r"\bmake (\w+)", shell))
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
