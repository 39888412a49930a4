"""The core wheel in a bare environment: it installs with its three dependencies, imports, and stays small."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from pinnacle.base.distribution import DISTRIBUTION

ROOT = Path(__file__).parents[2]
WHEEL = f"{DISTRIBUTION.replace('-', '_')}-0.1.0"
MAX_WHEEL_BYTES = 700_000
MAX_UNPACKED_BYTES = 2_000_000


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without this process's PYTHONPATH; its output, or a failure that shows it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob(f"{WHEEL}*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel):
    """The bin folder of a new environment that holds the core wheel and what it depends on."""
    folder = wheel.parent / "bare"
    venv.create(folder, with_pip=True)
    run(folder / "bin/pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=wheel.parent)
    return folder / "bin"


def test_the_wheel_is_small_and_carries_its_migrations(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        unpacked = sum(entry.file_size for entry in archive.infolist())
    revisions = {path.name for path in (ROOT / "alembic/versions").glob("*.py")}
    assert revisions <= {Path(name).name for name in names if name.startswith("pinnacle/_migrations/versions/")}
    assert {"pinnacle/_migrations/env.py", "pinnacle/_migrations/script.py.mako", "pinnacle/py.typed"} <= set(names)
    assert not [name for name in names if name.endswith(".pyc")]
    assert not [name for name in names if name.split("/")[0] not in ("pinnacle", f"{WHEEL}.dist-info")]
    assert wheel.stat().st_size < MAX_WHEEL_BYTES
    assert unpacked < MAX_UNPACKED_BYTES


@pytest.mark.parametrize("folder", sorted(ROOT.glob("plugins/*/")), ids=lambda folder: folder.name)
def test_a_plugins_wheel_is_its_package_and_says_that_it_is_typed(folder, tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, folder, cwd=tmp_path)
    (built,) = tmp_path.glob("pinnacle*.whl")
    name, version, *_ = built.name.split("-")
    with zipfile.ZipFile(built) as archive:
        files = [Path(each) for each in archive.namelist()]
    package = next(path.parent.name for path in folder.glob("pinnacle*/__init__.py"))
    assert Path(package, "py.typed") in files
    assert {path.parts[0] for path in files} == {package, f"{name}-{version}.dist-info"}


def test_the_core_has_three_dependencies(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = Parser().parsestr(archive.read(f"{WHEEL}.dist-info/METADATA").decode())
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.split("<")[0].split(">")[0].strip() for line in required) == ["alembic", "click", "sqlalchemy"]
    extras = {"postgres", "embedded", "mongodb", "mongomock", "pickle", "http", "structured", "testing", "dev"}
    assert extras <= set(metadata.get_all("Provides-Extra"))


def test_the_core_works_in_a_bare_environment(bare, tmp_path):
    (tmp_path / "job.py").write_text(
        "from pinnacle import model, pinnacle\n"
        "from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select\n"
        "\n"
        "@model\n"
        "def shout(text: str) -> str:\n"
        "    return text.upper()\n"
        "\n"
        "db = pinnacle('sqlite:///docs.db')\n"
        "docs = Table('docs', MetaData(), Column('id', Integer, primary_key=True), Column('body', Text))\n"
        "docs.create(db.engine)\n"
        "with db.engine.begin() as connection:\n"
        "    connection.execute(insert(docs), [{'body': 'hello'}])\n"
        "shout.predict(X='body', db=db, select=select(docs), output='loud')\n"
        "print(db.execute(select(db.output(docs, 'body', 'shout'))).scalar_one())\n"
    )
    assert run(bare / "python", "-W", "error", "job.py", cwd=tmp_path) == "HELLO\n"


def test_the_command_line_works_in_a_bare_environment(bare, tmp_path):
    answer = run(bare / "pinnacle", "--help", cwd=tmp_path)
    for command in ("demo", "status", "plan", "migrate", "remove"):
        assert f"\n  {command} " in answer


def test_the_bare_environment_weighs_little(bare, capsys):
    """What `pip install` of the core adds to an environment, printed; pip and setuptools are not ours."""
    (packages,) = (bare.parent / "lib").glob("python*/site-packages")
    ours = [
        path for path in packages.iterdir() if not path.name.startswith(("pip", "setuptools", "_distutils", "pkg_"))
    ]
    sizes = {path.name: size_of(path) for path in ours}
    with capsys.disabled():
        heaviest = sorted(sizes.items(), key=lambda item: -item[1])[:4]
        listed = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in heaviest)
        print(f"\npip install {DISTRIBUTION}: {sum(sizes.values()) / 1e6:.1f} MB ({listed})")
    assert sum(sizes.values()) < 60e6


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
