"""The documentation walked: Python runs and prints what it says, and all else that it names is there.

Where the code has more or other than a page says, the page is what is wrong: mend it.
"""

from __future__ import annotations

import ast
import configparser
import dataclasses
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import click
import psycopg
import pytest
from sqlalchemy.dialects import postgresql, sqlite

import pinnacle
from pinnacle import Database, Listener, Model, Settings
from pinnacle.base import errors
from pinnacle.base.distribution import DISTRIBUTION
from pinnacle.base.types import OutputType
from pinnacle.base.types.registry import _TYPES as KINDS
from pinnacle.cli import main
from pinnacle.components.component import content_fields
from pinnacle.testing.__main__ import main as serve
from tests.pages import ROOT, SITE, Page, help_of, page, pages, plugin_pages

PROMISE = re.compile(r"^ *print\(.*\)\s+# (.*)$", re.MULTILINE)
MONGODB = "mongodb://127.0.0.1:27017/app"
PROJECT, *OTHERS = (
    tomllib.loads(path.read_text())["project"]
    for path in [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
)
PLUGINS = {project["name"]: project for project in OTHERS}
README_LINES = 150
RENEWS = bool(os.environ.get("PINNACLE_RENEW_GOLDEN"))


def named(found: list[Page]) -> list[object]:
    return [pytest.param(each, id=each.name) for each in found]


# -- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", named([page for page in pages() if page.program]))
def test_the_python_of_a_page_runs_and_prints_what_its_comments_say(page, open_folder, request):
    code = page.program
    if MONGODB in code:
        code = code.replace(MONGODB, request.getfixturevalue("mongodb_url"))
    (open_folder / "program.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:XDG_RUNTIME_DIR", "program.py"],
        cwd=open_folder, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.splitlines() == PROMISE.findall(code)


def test_every_print_says_what_it_prints():
    code = "\n".join(page.program for page in pages())
    assert len(re.findall(r"\bprint\(", code)) == len(PROMISE.findall(code)) > 0


@pytest.mark.parametrize("page", named(plugin_pages()))
def test_the_python_of_a_plugin_names_what_there_is(page):
    """Classes, and the keywords that they are made with; what needs weights, a key or a GPU is not run."""
    known: dict[str, object] = {}
    for node in ast.walk(ast.parse(page.program)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            known |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    for node in ast.walk(ast.parse(page.program)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            inspect.signature(known[node.func.id]).bind(
                *[None for _ in node.args], **{keyword.arg: None for keyword in node.keywords if keyword.arg}
            )
    assert known


def test_all_other_blocks_are_of_kinds_that_are_checked():
    kinds = {kind for page in pages() + plugin_pages() for kind in re.findall(r"^ *```(.+)$", page.text, re.MULTILINE)}
    assert kinds <= {"python", "sh", "text", "toml", "mermaid", "ini", "dockerfile", "sql"}


def test_units_and_images_start_commands_that_there_are():
    production = page("docs/guide/production.md")
    (unit,) = production.blocks("ini")
    parser = configparser.ConfigParser()
    parser.read_string(unit)
    path, *words = shlex.split(parser["Service"]["ExecStart"])
    check_command([Path(path).name, *words])
    (image,) = production.blocks("dockerfile")
    for command in re.findall(r"CMD (\[.*\])$", image, re.MULTILINE):
        check_command(json.loads(command))


def test_the_grants_are_taken_by_a_server(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE ROLE app_owner; CREATE TABLE docs (id integer PRIMARY KEY, loud text)")
        blocks = page("docs/guide/production.md").blocks("sql")
        assert len(blocks) == 4
        for block in blocks:
            connection.execute(block.replace("DATABASE app", f'DATABASE "{connection.info.dbname}"'))
        connection.rollback()


def test_tables_of_toml_can_be_read():
    for block in (block for each in pages() for block in each.blocks("toml")):
        assert tomllib.loads(block)


# -- the shell ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", named([page for page in pages() if page.commands]))
def test_every_shell_line_can_be_said(page):
    for line in page.commands:
        check_command(shlex.split(line))


def check_command(words: list[str]) -> None:
    """A command line is one that the program named in it takes."""
    if words[0] == "pinnacle":
        context = click.Context(main, **main.context_settings)
        name, command, rest = main.resolve_command(context, words[1:])
        command.make_context(name, rest, parent=context)
    elif words[:3] == ["python", "-m", "pinnacle.testing"]:
        serve.make_context("serve", words[3:])
    elif words[0] == "make":
        targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
        assert set(words[1:]) <= targets, words
    elif words[:2] == ["pip", "install"]:
        for requirement in " ".join(words[2:]).removeprefix("--find-links dist ").split():
            check_requirement(requirement)
    else:
        assert words[0] in {"git", "cd"}, f"who checks {words}?"


def check_requirement(requirement: str) -> None:
    """What `pip install` names is pinnacle, with extras that it has, or one of its plug-ins."""
    name, _, extras = requirement.rstrip("]").partition("[")
    project = PROJECT if name == DISTRIBUTION else PLUGINS[name]
    assert set(filter(None, extras.split(","))) <= set(project.get("optional-dependencies", {})), requirement


@pytest.mark.parametrize("page", named(pages() + plugin_pages()))
def test_every_pip_install_in_the_prose_names_what_there_is(page):
    for line in re.findall(r"pip install ([^`\n]+)`", page.prose):
        for requirement in shlex.split(line):
            check_requirement(requirement)
    for extra in re.findall(rf"{DISTRIBUTION}\[(\w+)\]", page.text):
        assert extra in PROJECT["optional-dependencies"]


def test_the_table_of_what_to_install_names_all_extras_of_users_and_all_plugins():
    listed = [name.strip("`'") for name in page("docs/index.md").table("`pip install`")]
    for requirement in listed:
        check_requirement(requirement)
    extras = {name.partition("[")[2].rstrip("]") for name in listed} - {""}
    assert extras == set(PROJECT["optional-dependencies"]) - {"dev", "docs", "http"}
    assert {name for name in listed if "[" not in name} == set(PLUGINS)


# -- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", named(pages() + plugin_pages()))
def test_every_link_leads_somewhere(page):
    for link in page.links:
        if link.startswith(f"{SITE}/blob/main/"):
            assert (ROOT / link.removeprefix(f"{SITE}/blob/main/").partition("#")[0]).exists(), link
        elif not link.startswith(("http://", "https://")):
            check_local_link(page, link)


def check_local_link(page: Page, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = Page((page.path.parent / path).resolve()) if path else page
    assert target.path.exists(), f"{page.name} links to {link}"
    is_of_the_site = ROOT / "docs" in page.path.parents
    assert not is_of_the_site or ROOT / "docs" in target.path.parents, f"{link} leads out of the site of {page.name}"
    assert not anchor or anchor in target.anchors, f"{page.name} links to {link}; it has {sorted(target.anchors)}"


# -- lists that the code has too ------------------------------------------------------------------


def test_the_readme_is_a_front_page():
    assert len(page("README.md").text.splitlines()) < README_LINES


def test_the_types_of_outputs_are_those_there_are():
    """Which annotations mean one, and which columns SQL databases keep it in."""
    told = page("docs/guide/columns.md").table("return annotation")
    dialects = (sqlite.dialect(), postgresql.dialect())
    names: set[str] = set()
    for means, cells in told.items():
        meant = [kind for kind in KINDS.values() if set(re.findall(r"`(\w+)`", means)) & names_of(kind)]
        names |= set(re.findall(r"`(\w+)`", means))
        for dialect, cell in zip(dialects, cells, strict=False):
            kept = [(kind().on_sqlite() if dialect is dialects[0] else kind().on_postgres()).type for kind in meant]
            columns = [column.compile(dialect=dialect).removesuffix(" WITHOUT TIME ZONE") for column in kept]
            assert not meant or cell.split(", ") == columns, means
    assert names == {name for kind in KINDS.values() for name in names_of(kind)}
    assert "`Vector(dim)`" in told


def names_of(kind: type[OutputType]) -> set[str]:
    return {python.__name__ for python in kind.annotations}


def test_the_options_of_a_listener_are_those_it_has():
    told = page("docs/guide/listeners.md").table("option")
    fields = {field.name: field for field in content_fields(Listener)}
    assert {name.strip("`") for name in told} == set(fields)
    for name, (default, _) in told.items():
        if default and default != "`{key}__{model}`":
            field = fields[name.strip("`")]
            has = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            assert repr(has).replace("'", '"') == default.strip("`"), name


def test_the_options_of_predict_are_those_it_has():
    told = page("docs/guide/columns.md").table("option", occurrence=1)
    taken = inspect.signature(Model.predict).parameters
    assert {name.strip("`") for name in told} == set(taken) - {"self", "value", "args", "X", "db", "select", "kwargs"}
    for name, (default, _) in told.items():
        if default and name != "`output`":
            assert repr(taken[name.strip("`")].default).replace("'", '"') == default.strip("`"), name


def test_the_options_of_the_decorator_are_those_it_has():
    told = page("docs/guide/columns.md").table("option")
    taken = inspect.signature(pinnacle.model).parameters
    assert {name.strip("`") for name in told} == set(taken) - {"function"}
    for name, (default, _) in told.items():
        if default.startswith("`"):
            assert repr(taken[name.strip("`")].default) == default.strip("`"), name


def test_every_setting_is_listed_with_its_default(monkeypatch):
    for name in ("PINNACLE_SECRET", "PINNACLE_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)
    told = page("docs/reference/settings.md").table("variable")
    has = Settings()
    fields = {f"`PINNACLE_{field.name.upper()}`": getattr(has, field.name) for field in dataclasses.fields(Settings)}
    assert set(told) == set(fields)
    for name, (default, _) in told.items():
        value = fields[name]
        shown = "" if value is None else str(value).replace(str(Path.home()), "~")
        assert default.strip("`") == shown, name


def test_every_variable_that_a_page_names_is_a_setting():
    """Or one of the tests', where it is said to contributors."""
    settings = {f"PINNACLE_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    read_by_tests = set(re.findall(r'environ\W+(?:get\()?"(PINNACLE_[A-Z_]+)"', read_all(ROOT / "tests")))
    for each in pages():
        known = settings | read_by_tests if each.name == "CONTRIBUTING.md" else settings
        assert set(re.findall(r"\bPINNACLE_[A-Z_]+\b", each.text)) <= known, each.name


def read_all(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.rglob("*.py")))


def test_the_table_of_the_handle_names_all_its_verbs_and_no_others():
    told = page("docs/reference/python.md").table("call")
    names = {name for cell in told for name in re.findall(r"`db\.(\w+)", cell)}
    assert names == {name for name in vars(Database) if not name.startswith("_")}


def test_every_verb_that_a_page_names_is_one_of_the_handle():
    verbs = {name for name in vars(Database) if not name.startswith("_")}
    for each in pages():
        assert set(re.findall(r"`db\.(\w+)", each.prose)) <= verbs, each.name


def test_the_help_of_every_command_is_as_it_is_printed():
    """`make renew` writes it anew."""
    told = page("docs/reference/cli.md")
    head, _, _ = told.text.partition("```text\n")
    printed = [f"```text\n{help_of(main, main, 'pinnacle').strip()}\n```\n"]
    for name, command in sorted(main.commands.items()):
        printed.append(f"## pinnacle {name}\n\n```text\n{help_of(main, command, f'pinnacle {name}').strip()}\n```\n")
    renewed = head + "\n".join(printed)
    if RENEWS:
        told.path.write_text(renewed)
    assert told.path.read_text() == renewed


def test_the_tree_of_errors_is_that_of_the_code():
    (told,) = page("docs/reference/errors.md").blocks("text")
    documented = re.search(r"::\n\n(.*)", inspect.cleandoc(errors.__doc__ or ""), re.DOTALL)
    assert documented is not None
    assert told.strip() == inspect.cleandoc(documented[1]).strip()
    drawn = set(re.findall(r"[A-Z]\w+(?= )|^PinnacleError", told, re.MULTILINE))
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert classes <= drawn


def test_what_the_reference_shows_is_there():
    for each in pages():
        for name in re.findall(r"^::: (\S+)$", each.text, re.MULTILINE):
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


def test_every_model_of_a_plugin_is_named_in_the_docs():
    text = "\n".join(page.text for page in pages())
    for found in entry_points(group="pinnacle.models"):
        if found.module.partition(".")[0].startswith("pinnacle_"):
            assert f"`{found.name}" in text, found.name


def test_every_plugin_is_told_of():
    """Its README, its classes in the reference, and the folder that the site reads them from."""
    assert {each.path.parent for each in plugin_pages()} == {
        path.parent for path in ROOT.glob("plugins/*/pyproject.toml")
    }
    shown = re.findall(r"^::: (pinnacle_\w+)\.(?:\w+\.)*(\w+)$", page("docs/reference/python.md").text, re.MULTILINE)
    models = [point for point in entry_points(group="pinnacle.models") if point.module.startswith("pinnacle_")]
    assert {(point.module.partition(".")[0], point.attr) for point in models} <= set(shown)
    site = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    read = {ROOT / path for path in site["plugins"]["mkdocstrings"]["handlers"]["python"]["paths"]}
    assert {path.parent for path in ROOT.glob("plugins/*/pinnacle_*/")} <= read


@pytest.mark.parametrize("page", named(pages()))
def test_every_path_that_a_page_names_is_there(page):
    for path in re.findall(r"`((?:pinnacle|plugins|tests|docs|examples|alembic|benchmarks)/[\w./*-]*)`", page.prose):
        assert list(ROOT.glob(path)), path
    for path in re.findall(r"`((?:sql|sqlite|postgres|mongodb)/[\w./*-]*)`", page.prose):
        assert list((ROOT / "pinnacle/backends").glob(path)), path


def test_the_parts_of_a_prediction_are_where_the_design_says():
    for part, (modules, _) in page("docs/design.md").table("part").items():
        for module in re.findall(r"`(\w+\.py)`", modules):
            code = (ROOT / "pinnacle/runtime" / module).read_text()
            assert not part or re.search(rf"^class {part}\b", code, re.MULTILINE), f"{module} has no {part}"


def test_the_rooms_that_the_design_draws_are_those_there_are():
    (drawn,) = [block for block in page("docs/design.md").blocks("text") if block.startswith("pinnacle/\n")]
    rooms = set(re.findall(r"^  (\w+)/ ", drawn, re.MULTILINE))
    assert rooms == {path.parent.name for path in ROOT.glob("pinnacle/*/__init__.py")}
