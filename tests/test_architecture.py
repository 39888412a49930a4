"""The rooms of the house: imports point one way, no cycles, no sprawling modules, and a light front door."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pinnacle"
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pinnacle*/__init__.py"))

# A room may import itself and the rooms of a lower floor; rooms on one floor do not know each other.
FLOORS = {
    "base": 0,
    "components": 1,
    "backends": 1,
    "catalog": 2,
    "runtime": 3,
    "llm": 3,
    "orm": 4,
    "db": 5,
    "": 6,  # the public names, `from pinnacle import ...`
    "plugin": 6,  # the public names for the authors of plug-ins
    "testing": 7,
    "demo": 7,
    "cli": 8,
}
# Within backends/: what differs stands on what is shared, and the two families do not know each other.
BACKEND_FLOORS = {"protocol": 0, "sql": 1, "mongodb": 1, "sqlite": 2, "postgres": 2, "open": 3}
# Within backends/mongodb/: the wire alone speaks to the driver, and knows nothing of what is asked through it.
MONGODB_FLOORS = {
    "query": 0, "wire": 1, "target": 2, "stores": 2, "changes": 3, "migrations": 4, "execution": 4, "outputs": 4,
    "mending": 5, "backend": 6, "connect": 7,
}  # fmt: skip
FACES = {"ext"}  # resolves plug-ins by name, lazily; the one place where the core names them
HEAVY = {"sqlalchemy", "alembic", "numpy", "psycopg", "pgvector", "pymongo", "mongomock", "torch", "click"}
# The import for types that closes a circle: a convenience verb names what it is handed on to.
NAMED_FOR_TYPES = {"pinnacle.components.model": {"pinnacle.db"}}
MAX_LINES = 500
BROAD_EXCEPTS = {
    "pinnacle/backends/mongodb/changes/reader.py": 1,
    "pinnacle/backends/mongodb/target/target.py": 2,
    "pinnacle/backends/mongodb/wire/change_stream.py": 1,
    "pinnacle/backends/mongodb/wire/encoding.py": 2,
    "pinnacle/backends/mongodb/wire/keys.py": 1,
    "pinnacle/backends/mongodb/wire/stored_collection.py": 1,
    "pinnacle/backends/postgres/target.py": 1,
    "pinnacle/backends/postgres/values.py": 3,
    "pinnacle/backends/sql/target.py": 2,
    "pinnacle/backends/sqlite/session.py": 1,
    "pinnacle/base/chunks.py": 1,
    "pinnacle/base/loop.py": 2,
    "pinnacle/base/types/output_type.py": 1,
    "pinnacle/components/calls.py": 1,
    "pinnacle/llm/base.py": 1,
    "pinnacle/llm/hosted.py": 1,
    "pinnacle/llm/sending.py": 4,
    "pinnacle/llm/threads.py": 1,
    "pinnacle/runtime/caller.py": 3,
    "pinnacle/runtime/flight.py": 1,
    "pinnacle/runtime/keeper.py": 1,
    "pinnacle/runtime/local_worker.py": 1,
    "pinnacle/runtime/outcomes.py": 1,
    "pinnacle/runtime/outputs.py": 2,
    "pinnacle/runtime/recorder.py": 1,
    "pinnacle/runtime/training.py": 1,
    "pinnacle/runtime/worker.py": 1,
    "pinnacle/runtime/writer.py": 3,
    "pinnacle/testing/endpoints.py": 1,
    "pinnacle/testing/server.py": 2,
    "plugins/openai/pinnacle_openai/chat.py": 1,
    "plugins/transformers/pinnacle_transformers/bases.py": 1,
    "plugins/transformers/pinnacle_transformers/failures.py": 1,
    "plugins/transformers/pinnacle_transformers/scoring.py": 1,
}
"""How often a file catches whatever comes. Each time is around a unit of work, or cleans up and raises again; which
one, a comment beside it says."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    return {name_of(path): ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, function bodies included, without what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if is_for_types_only(child):
            for alternative in child.orelse:  # type: ignore[attr-defined]
                yield from run_time_nodes(alternative)
        else:
            yield child
            yield from run_time_nodes(child)


def imported_names(module: ast.Module, *, for_types: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, inside functions too; `import_module("literal")` counts too.

    A bare `import pinnacle` does not: Python runs the package's own `__init__` for every module in it.
    ``for_types``: also what only a type checker reads.
    """
    for node in ast.walk(module) if for_types else run_time_nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "pinnacle")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module!r}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def own_imports(module: str, *, for_types: bool = False) -> set[str]:
    """The package's modules that a module imports; `from pinnacle.base.rows import Page` is pinnacle.base.rows."""
    found = set()
    for name in imported_names(modules()[module], for_types=for_types):
        parts = name.split(".")
        if parts[0] == "pinnacle":
            prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
            found.add(next(prefix for prefix in prefixes if prefix in modules()))
    return found - {module}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_floor():
    rooms = {room_of(name) for name in modules()}
    assert rooms - set(FLOORS) - FACES == set()


def test_every_folder_of_backends_has_a_floor():
    folders = {name.split(".")[2] for name in modules() if name.startswith("pinnacle.backends.")}
    assert folders == set(BACKEND_FLOORS), "say in BACKEND_FLOORS what a new one stands on"


def test_imports_point_down():
    for module in sorted(modules()):
        room = room_of(module)
        if room in FACES or not room:
            continue
        for target in own_imports(module):
            assert room_of(target) not in FACES, f"{module} imports the face {target}"
            assert room_of(target) == room or FLOORS[room_of(target)] < FLOORS[room], f"{module} imports {target}"


def test_backends_stand_on_what_they_share():
    for module in sorted(name for name in modules() if name.startswith("pinnacle.backends.")):
        folder = module.split(".")[2]
        for target in own_imports(module):
            if target.startswith("pinnacle.backends."):
                other = target.split(".")[2]
                assert other == folder or BACKEND_FLOORS[other] < BACKEND_FLOORS[folder], f"{module} imports {target}"


MONGODB = sorted(name for name in modules() if name.startswith("pinnacle.backends.mongodb."))
DRIVERS = ("pymongo", "mongomock", "bson.errors")


def test_the_folders_of_mongodb_stand_on_the_wire():
    for module in MONGODB:
        folder = module.split(".")[3]
        for target in own_imports(module):
            if target in MONGODB:
                other = target.split(".")[3]
                assert other == folder or MONGODB_FLOORS[other] < MONGODB_FLOORS[folder], f"{module} imports {target}"


def test_only_the_wire_speaks_to_mongodbs_driver():
    """Its errors become pinnacle's there: what no other module has in its hands cannot raise one."""
    for module in sorted(name for name in modules() if not name.startswith("pinnacle.backends.mongodb.wire")):
        for name in imported_names(modules()[module]):
            assert not f"{name}.".startswith(tuple(f"{driver}." for driver in DRIVERS)), f"{module} imports {name}"
            assert name not in ("bson", "bson.encode", "bson.decode", "bson.decode_all"), f"{module} imports {name}"
        if module in MONGODB:
            taken = {node.attr for node in ast.walk(modules()[module]) if isinstance(node, ast.Attribute)}
            assert not taken & {"_database", "_driver", "database", "client"}, module
            assert "engine" not in taken or module == "pinnacle.backends.mongodb.backend", "it is the user's alone"


def test_no_module_is_in_an_import_cycle():
    """Nor in one of types alone: two modules that name each other cannot be read one after the other."""
    graph = {module: own_imports(module, for_types=True) - NAMED_FOR_TYPES.get(module, set()) for module in modules()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_the_core_imports_no_plugin():
    plugins = {path.name for path in PLUGINS}
    for module in sorted(modules()):
        found = {name.split(".")[0] for name in imported_names(modules()[module])}
        # The demo shows a plug-in at work, and imports it as a user does.
        assert room_of(module) in FACES | {"demo"} or not found & plugins, module


DOORS = ("pinnacle", "pinnacle.plugin", "pinnacle.testing")
"""What plug-ins import of pinnacle: the public names of these modules."""


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_imports_only_public_names(folder):
    names = (name for path in sorted(folder.rglob("*.py")) for name in imported_names(ast.parse(path.read_text())))
    for name in names:
        if name.startswith("pinnacle."):
            door, _, public = name.rpartition(".")
            assert door in DOORS, f"{name} is of no public module"
            assert public in importlib.import_module(door).__all__, f"{door} has no public name {public}"


@pytest.mark.parametrize("folder", [PACKAGE, *PLUGINS], ids=lambda folder: folder.name)
def test_every_package_says_that_it_is_typed(folder):
    assert (folder / "py.typed").is_file()


def test_coverage_is_measured_of_every_package():
    measured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]["run"]["source_pkgs"]
    assert set(measured) == {PACKAGE.name, *(folder.name for folder in PLUGINS)}


def test_a_module_fits_in_one_head():
    for path in sorted(PACKAGE.rglob("*.py")):
        assert len(path.read_text().splitlines()) <= MAX_LINES, path


def test_no_function_nests_deeper_than_three_levels():
    for path in sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("plugins/*/pinnacle*/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, FUNCTIONS):
                assert nesting(node) <= 3, f"{path}: {node.name}"


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LEVELS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def nesting(node: ast.AST) -> int:
    """How many levels stand within each other in a function, those of functions inside it not counted."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        if not isinstance(child, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            deepest = max(deepest, nesting(child) + (isinstance(child, LEVELS) and not is_elif))
    return deepest


def test_whatever_comes_is_caught_around_a_unit_of_work_alone():
    """Every `except Exception` is counted, so that a new one is meant, and says why it stands where it does."""
    found: dict[str, int] = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("plugins/*/pinnacle_*/**/*.py")]):
        lines = path.read_text().splitlines()
        for line in broad_excepts(ast.parse("\n".join(lines))):
            name = str(path.relative_to(ROOT))
            found[name] = found.get(name, 0) + 1
            assert "  # " in lines[line - 1], f"{name}:{line} catches whatever comes, and does not say why"
    assert found == BROAD_EXCEPTS


def broad_excepts(module: ast.Module) -> Iterator[int]:
    """The lines of handlers for all errors, alone or among others."""
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds):
                yield node.lineno


def test_the_front_door_is_light():
    """`import pinnacle`: under 0.3 s of CPU, and no framework, driver, SQLAlchemy or numpy."""
    script = (
        "import os, sys, json; before = os.times(); import pinnacle; after = os.times();"
        "print(json.dumps({'cpu_s': after.user + after.system - before.user - before.system,"
        " 'loaded': sorted({name.split('.')[0] for name in sys.modules})}))"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    seen = json.loads(answer.stdout)
    assert set(seen["loaded"]) & HEAVY == set()
    assert seen["cpu_s"] < 0.3
