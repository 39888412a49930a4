"""The name that is installed: it stands once, and nothing anywhere says another, which is somebody else's project."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import pinnacle
from pinnacle.base.distribution import DISTRIBUTION, with_extra

ROOT = Path(__file__).parents[2]
PROJECTS = {path: tomllib.loads(path.read_text()) for path in [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/*.toml")]}
WRITTEN = [
    path
    for pattern in ("*", "alembic/**/*", "docs/**/*", "pinnacle/**/*", "plugins/**/*", "examples/**/*",
                    "benchmarks/**/*", "tests/**/*", ".github/**/*")
    for path in ROOT.glob(pattern)
    if path.suffix in (".py", ".md", ".toml", ".txt", ".yml", "") and path.is_file() and path != Path(__file__)
]  # fmt: skip
ANOTHER = re.compile(
    r"\bpinnacle\[(?=[a-z])"  # pinnacle[postgres]
    r"|pip3? install\b[^\n`]*[ '\"]pinnacle(?![-\w./])"  # pip install pinnacle
    r"|\b(?:version|distribution|requires|metadata|files)\(['\"]pinnacle['\"]"
    r"|package_name=['\"]pinnacle['\"]"
    r"|^ *['\"]?pinnacle *[<>=~!]=",  # pinnacle>=0.1, in lists of requirements
    re.MULTILINE,
)


@pytest.mark.parametrize(
    ("text", "is_another"),
    [
        ("pip install pinnacle", True), ("pip install 'pinnacle[http]'", True), ("pip install -U pinnacle==1", True),
        ("needs pinnacle[plot]", True), ('"pinnacle>=0.1",', True), ('version("pinnacle")', True),
        ("pip install pinnacle-ai", False), ("pip install 'pinnacle-ai[http]' pinnacle-openai", False),
        ("pip install pinnacledb", False), ("pip install ./pinnacle", False), ("then pinnacle status", False),
    ],
)  # fmt: skip
def test_another_name_is_seen(text, is_another):
    assert bool(ANOTHER.search(text)) is is_another


def test_nothing_says_another_name():
    assert len(WRITTEN) > 400
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in WRITTEN
        for match in ANOTHER.finditer(path.read_text(errors="ignore"))
    ]
    assert found == []


def test_the_project_and_what_is_installed_go_by_this_name():
    assert PROJECTS[ROOT / "pyproject.toml"]["project"]["name"] == DISTRIBUTION
    assert pinnacle.__version__ == version(DISTRIBUTION)
    assert with_extra("postgres") == "pinnacle-ai[postgres]"


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_a_project_needs_pinnacle_by_this_name_and_extras_that_it_has(path):
    project, extras = PROJECTS[path]["project"], PROJECTS[ROOT / "pyproject.toml"]["project"]["optional-dependencies"]
    groups = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    needed = [re.fullmatch(rf"{DISTRIBUTION}(?:\[([\w,]+)\])?(>=.*)?", each) for group in groups for each in group]
    own = [match for match in needed if match is not None]
    assert own
    assert {extra for match in own for extra in (match[1] or "").split(",")} <= {"", *extras}
