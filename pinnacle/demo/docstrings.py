"""The demo's real text: the docstrings of Python's own standard library, read without importing it."""

from __future__ import annotations

import ast
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

Documented: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test"}


@dataclass(frozen=True)
class Docstring:
    """One module, class or function that explains itself; only functions have a signature."""

    module: str
    name: str
    signature: str | None
    doc: str
    summary: str

    def as_row(self) -> dict[str, str | None]:
        return asdict(self)


def read_standard_library(limit: int | None = None) -> list[Docstring]:
    """Docstrings in the order of module and source line; the first ``limit`` of them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: list[Docstring] = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED.isdisjoint(relative.parts):
            found += read_module(path, ".".join(relative.with_suffix("").parts).removesuffix(".__init__"))
        if limit is not None and len(found) >= limit:
            break
    return found[:limit]


def read_module(path: Path, module: str) -> Iterator[Docstring]:
    with tokenize.open(path) as source:
        tree = ast.parse(source.read(), str(path))
    yield from documented(tree, module, module)
    yield from members(tree, module, "")


def members(parent: ast.AST, module: str, prefix: str) -> Iterator[Docstring]:
    """Classes and functions below ``parent``, without those local to a function."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, Documented):
            name = f"{prefix}{node.name}"
            yield from documented(node, module, name)
            if isinstance(node, ast.ClassDef):
                yield from members(node, module, f"{name}.")
        elif isinstance(node, (ast.If, ast.Try)):
            yield from members(node, module, prefix)


def documented(node: Documented | ast.Module, module: str, name: str) -> Iterator[Docstring]:
    """The node's docstring, where it has one that says anything."""
    doc = ast.get_docstring(node)
    if doc and doc.strip():
        signature = ast.unparse(node.args) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else None
        yield Docstring(module, name, signature, doc, first_paragraph(doc))


def first_paragraph(doc: str) -> str:
    return " ".join(doc.strip().split("\n\n")[0].split())
