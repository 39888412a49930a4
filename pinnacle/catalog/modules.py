"""Which modules a stored reference may have this process import: its program's own, and none that only lie on its path.

Anything that is installed can be imported, and much of it does something when it is. So what is not
imported yet, and not named in ``trusted_modules``, has to lie in the directory that the process was
started in, or beside its script. That is looked up without importing anything.
"""

from __future__ import annotations

import importlib
import re
import sys
import sysconfig
import types
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from pinnacle.base.errors import ComponentError, UntrustedReference

SCRIPTS = frozenset({
    "__init__", "__main__", "asgi", "conftest", "dodo", "fabfile", "gunicorn_conf", "manage", "noxfile", "setup",
    "sitecustomize", "usercustomize", "wsgi",
})  # fmt: skip
"""Modules that a tool runs, and that do what they are for when they are imported."""
INSTALLED = ("site-packages", "dist-packages")

_MODULE_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def import_module(name: str, reference: str, *, is_trusted: bool) -> types.ModuleType:
    """The module that a stored ``reference`` names, imported only where that is meant.

    ``is_trusted``: the process names it itself, wherever it lies. UntrustedReference, before any import, for what is
    not the program's own; ComponentError for what is not there.
    """
    if not _MODULE_NAME.fullmatch(name):
        raise UntrustedReference(f"{reference!r} is not an import reference, module:name")
    if (module := sys.modules.get(name)) is not None:
        return module
    specs = list(_specs(name, reference))
    if any(map(_is_standard_library, specs)):
        raise UntrustedReference(f"{reference} is in Python's standard library, where no component lives")
    if not is_trusted:
        _check_own(name, reference, specs)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ComponentError(f"{reference} could not be imported: {error}") from error


def _specs(name: str, reference: str) -> Iterator[ModuleSpec]:
    """Where a module and its packages are that are not imported yet, from the outermost on."""
    path: Sequence[str] | None = None
    parts = name.split(".")
    for number in range(1, len(parts) + 1):
        full = ".".join(parts[:number])
        if (loaded := sys.modules.get(full)) is not None:
            path = getattr(loaded, "__path__", ())
            continue
        spec = _found(full) if path is None else PathFinder.find_spec(parts[number - 1], path)
        if spec is None:
            raise ComponentError(
                f"{reference} needs module {full!r}, which is not on this process's path; "
                "start from the folder that holds it"
            )
        yield spec
        path = list(spec.submodule_search_locations or ())


def _found(name: str) -> ModuleSpec | None:
    """A module or package that is in no other, as an import would find it; runs none of its code.

    One in a package is looked for by its own name in the package's folders: what a namespace package has is else
    asked of its parent, which is not imported.
    """
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return next((spec for finder in finders if (spec := finder.find_spec(name, None)) is not None), None)


def _check_own(name: str, reference: str, specs: Sequence[ModuleSpec]) -> None:
    """UntrustedReference unless all that the import would run is of the program's own, and no script."""
    if script := next((part for part in name.split(".") if part in SCRIPTS), None):
        raise UntrustedReference(
            f"{reference} is in {script}.py, which is run and not imported; keep components in a module of their own"
        )
    roots = program_folders()
    for spec in specs:
        if spec.origin is not None and not _is_below(Path(spec.origin), roots):
            raise UntrustedReference(
                f"{reference} would import {spec.name!r} from {spec.origin}, which is not in "
                f"{' or '.join(map(str, roots))}, where this process's own modules are; if it is meant, import it "
                f"first (pinnacle --import {name} ...), or name it in PINNACLE_TRUSTED_MODULES"
            )


def program_folders() -> list[Path]:
    """Where the program's own modules are: the working directory, and that of the script that runs."""
    found = [Path.cwd().resolve()]
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is not None and getattr(main, "__spec__", None) is None:  # else it was run as an installed module
        folder = Path(file).resolve().parent
        if folder.name not in ("bin", "Scripts"):  # where installed commands are
            found.append(folder)
    return list(dict.fromkeys(found))


def _is_below(file: Path, roots: Sequence[Path]) -> bool:
    """Whether a file lies in one of the folders, by no link that leads out, and was not installed there."""
    file = file.resolve()
    if any(part in INSTALLED for part in file.parts):
        return False
    prefix = Path(sys.prefix).resolve()
    return any(
        file.is_relative_to(root) and not (prefix.is_relative_to(root) and file.is_relative_to(prefix))
        for root in roots
    )


def _is_standard_library(spec: ModuleSpec) -> bool:
    if spec.origin in ("built-in", "frozen"):
        return True
    if spec.name.partition(".")[0] not in sys.stdlib_module_names or not spec.origin:
        return False
    return Path(sysconfig.get_path("stdlib")) in Path(spec.origin).parents
