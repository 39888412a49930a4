"""The code of a module as trees: what a function or a name of it is made of, whatever its layout and comments.

Trees are compared without comments, docstrings, positions and what a Python release adds to
them, so that they are the same for every reader of the file.
"""

from __future__ import annotations

import ast
import functools
import linecache
import os
import symtable
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pinnacle.base import forks
from pinnacle.components.acts import EVERYTHING
from pinnacle.components.effects import Effects
from pinnacle.components.statements import Statement, bound, statements_of

_SKIPPED = frozenset({"ctx", "kind", "type_comment", "type_ignores", "decorator_list"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_CONTAINERS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
# What reading, parsing or walking source of the user's may raise.
_SOURCE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OSError)

T = TypeVar("T")
_modules: dict[str, tuple[Any, ModuleCode]] = {}
_modules_lock = forks.lock()


class ModuleCode:
    """The source of one module, as it was when its first function or class was looked at."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._told: dict[tuple[str, int], tuple[ast.AST, Any]] = {}

    def __reduce__(self) -> tuple[type[ModuleCode], tuple[str]]:
        return ModuleCode, (self._text,)

    @classmethod
    def of(cls, function: types.FunctionType) -> ModuleCode:
        """That of the module a function was made in; empty where there is none to read (a prompt)."""
        return cls.of_file(function.__code__.co_filename, function.__globals__)

    @classmethod
    def of_file(cls, name: str, values: dict[str, Any]) -> ModuleCode:
        """That of a file, whose module has these globals."""
        with _modules_lock:
            stamp = _stamp(name, values)
            known = _modules.get(name)
            if known is None or not _is_same(known[0], stamp):
                linecache.checkcache(name)
                known = _modules[name] = stamp, cls("".join(linecache.getlines(name, values)))
            return known[1]

    @functools.cached_property
    def tree(self) -> ast.Module:
        try:
            return ast.parse(self._text)
        except _SOURCE_ERRORS:
            return ast.Module([], [])

    @functools.cached_property
    def _functions(self) -> dict[tuple[str, int], list[Any]]:
        """Functions and lambdas by their name and first line, decorators included."""
        found: dict[tuple[str, int], list[Any]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, _FUNCTIONS):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found.setdefault((node.name, first), []).append(node)
            elif isinstance(node, ast.Lambda):
                found.setdefault(("<lambda>", node.lineno), []).append(node)
        return found

    def function(self, code: types.CodeType) -> ast.AST | None:
        """The function that was compiled to ``code``; None where it cannot be told."""
        found = self._functions.get((code.co_name, code.co_firstlineno), [])
        if len(found) > 1:
            found = _holding(found, code)
        return found[0] if len(found) == 1 else None

    @functools.cached_property
    def _definitions(self) -> dict[str, list[ast.AST]]:
        found: dict[str, list[ast.AST]] = {}
        for statement in self._statements:
            for name, part in bound(statement.node):
                found.setdefault(name, []).append(part)
        for statement in self._statements:
            parts = found.get(_changed_by_call(statement.node), [])
            if any(isinstance(getattr(part, "value", None), _CONTAINERS) for part in parts):
                parts.append(statement.node)
        return found

    def once(self, what: str, node: ast.AST, tell: Callable[[], T]) -> T:
        """What is told of a node that lives as long as this: told once, for all code of the module."""
        if (what, id(node)) not in self._told:
            self._told[what, id(node)] = node, tell()
        found: T = self._told[what, id(node)][1]
        return found

    def plain(self, node: ast.AST, values: Mapping[str, Any]) -> Any:
        """See `plain`; of a node of this module, whose globals are ``values``."""
        return self.once("plain", node, lambda: plain(node, values))

    def names_in(self, node: ast.AST, values: Mapping[str, Any]) -> set[str]:
        """See `names_in`; of a node of this module, whose globals are ``values``."""
        return self.once("names", node, lambda: names_in(node, values))

    @functools.cached_property
    def _statements(self) -> list[Statement]:
        return list(statements_of(self.tree.body))

    @functools.cached_property
    def effects(self) -> Effects:
        """What the statements of this module may change."""
        return Effects(self._statements, self._definitions)

    def definitions(self, name: str) -> list[ast.AST]:
        """What gives a global name its value in this module, in order: assignments, functions, classes, imports."""
        return self._definitions.get(name, [])

    def deciding(self, name: str) -> list[ast.AST]:
        """What decides which of the statements that bind or change a name are run: flags, loops, ``try``."""
        statements = [*self._binding.get(name, ()), *self.changing(name)]
        return list({id(part): part for each in statements for part in each.conditions}.values())

    @functools.cached_property
    def _binding(self) -> dict[str, list[Statement]]:
        """The statements that bind each name."""
        found: dict[str, list[Statement]] = {}
        for statement in self._statements:
            for name in dict.fromkeys(name for name, _ in bound(statement.node)):
                found.setdefault(name, []).append(statement)
        return found

    def changing(self, name: str) -> list[Statement]:
        """The statements that may change what a name stands for, and are not among its definitions."""
        own = {id(each) for each in self.definitions(name)}
        found = [*self.effects.of.get(name, ()), *self.effects.of.get(EVERYTHING, ())]
        if not own:
            found += self.effects.star_imports
        return [each for each in dict.fromkeys(found) if id(each.node) not in own]

    def classes(self, qualname: str) -> list[ast.ClassDef]:
        """The classes of this name; none where several are nested somewhere."""
        path = qualname.split(".")
        if len(path) == 1:
            return [each for each in self.definitions(qualname) if isinstance(each, ast.ClassDef)]
        found = [each for each in ast.walk(self.tree) if isinstance(each, ast.ClassDef) and each.name == path[-1]]
        return found if len(found) == 1 else []


def parsed(text: str) -> ast.AST | None:
    """The first statement of a piece of source; None where it is none by itself."""
    try:
        return next(iter(ast.parse(text).body), None)
    except _SOURCE_ERRORS:
        return None


def plain(node: ast.AST, values: Mapping[str, Any]) -> Any:
    """A tree as a JSON value that is equal where the code is; ``values`` are the module's globals.

    Decorators of pinnacle's do not count: what they are given is in the component's fields.
    """
    return _plain(node, values, is_local=False)


def names_in(node: ast.AST, values: Mapping[str, Any]) -> set[str]:
    """The global names that a tree reads, annotations and decorators (but pinnacle's own) included."""
    bare = _without_decorators(node, values)
    try:
        return set(_global_names(symtable.symtable(ast.unparse(bare), "code", "exec"), is_top=True))
    except _SOURCE_ERRORS:
        return {each.id for each in ast.walk(bare) if isinstance(each, ast.Name)}


def _stamp(name: str, values: Mapping[str, Any]) -> Any:
    """What is another when the file was imported again, and the same while an import stands."""
    main = sys.modules.get("__main__")
    if (spec := values.get("__spec__")) is not None or (main is not None and vars(main) is values):
        return spec
    try:
        status = os.stat(name)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size


def _is_same(one: Any, other: Any) -> bool:
    """Whether two stamps are of one import; the specs of two imports are equal, and two objects."""
    return one is other or (isinstance(one, tuple) and one == other)


def _holding(lambdas: list[Any], code: types.CodeType) -> list[Any]:
    """The innermost of several lambdas of one line that ``code`` lies in; none where positions are not known."""
    seen = [
        ((line, column), (end_line, end))
        for line, end_line, column, end in code.co_positions()
        if line is not None and end_line is not None and column is not None and end
    ]
    holding = [
        each for each in lambdas
        if seen and (each.body.lineno, each.body.col_offset) <= min(start for start, _ in seen)
        and max(end for _, end in seen) <= (each.body.end_lineno, each.body.end_col_offset)
    ]  # fmt: skip
    return sorted(holding, key=lambda each: each.body.col_offset)[-1:]


def _changed_by_call(statement: Any) -> str:
    """The name whose method a statement calls, ``words.update(...)``; empty for any other statement."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return str(name)
    return ""


def _global_names(table: symtable.SymbolTable, *, is_top: bool = False) -> Iterator[str]:
    for symbol in table.get_symbols():
        if symbol.is_global() or (is_top and symbol.is_referenced()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _global_names(child)


def _plain(node: Any, values: Mapping[str, Any], *, is_local: bool) -> Any:
    """``is_local``: inside of a function, where annotations of variables do nothing."""
    if isinstance(node, list):
        return [_plain(item, values, is_local=is_local) for item in node if not _is_idle(item, is_local)]
    if isinstance(node, ast.Constant):
        return ["Constant", type(node.value).__name__, repr(node.value)]
    if isinstance(node, ast.JoinedStr):
        return ["JoinedStr", _joined([_plain(item, values, is_local=is_local) for item in node.values])]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.AnnAssign) and is_local and node.value is not None:
        node = ast.Assign([node.target], node.value)
    inner = isinstance(node, (*_FUNCTIONS, ast.Lambda)) or (is_local and not isinstance(node, ast.ClassDef))
    fields = {
        name: _plain(_annotation(value) if name in ("annotation", "returns") else value, values, is_local=inner)
        for name, value in ast.iter_fields(node)
        if name not in _SKIPPED
    }
    if decorators := _kept_decorators(node, values):
        fields["decorator_list"] = _plain(decorators, values, is_local=is_local)
    # What a release of Python adds to its trees is empty where it is not used.
    return [type(node).__name__, {name: value for name, value in fields.items() if value is not None and value != []}]


def _is_idle(item: Any, is_local: bool) -> bool:
    """Whether a statement does nothing: a docstring, ``pass``, or the annotation of a variable in a function."""
    if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
        return True
    return isinstance(item, ast.Pass) or (is_local and isinstance(item, ast.AnnAssign) and item.value is None)


def _joined(parts: list[Any]) -> list[Any]:
    """The parts of an f-string, neighbouring texts put together: where they are cut is the parser's affair."""
    joined: list[Any] = []
    for part in parts:
        if part == ["Constant", "str", "''"]:
            continue
        if joined and part[:2] == joined[-1][:2] == ["Constant", "str"]:
            joined[-1] = ["Constant", "str", repr(ast.literal_eval(joined[-1][2]) + ast.literal_eval(part[2]))]
        else:
            joined.append(part)
    return joined


def _annotation(node: Any) -> Any:
    """An annotation in quotes as if it were written without them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return ast.parse(node.value, mode="eval").body
        except _SOURCE_ERRORS:
            return node
    return node


def _kept_decorators(node: Any, values: Mapping[str, Any]) -> list[ast.expr]:
    return [each for each in getattr(node, "decorator_list", ()) if not _is_of_pinnacle(each, values)]


def _without_decorators(node: Any, values: Mapping[str, Any]) -> ast.Module:
    """A tree to be read as a module, without pinnacle's decorators."""
    if isinstance(node, ast.expr):
        node = ast.Expr(node)
    if hasattr(node, "decorator_list"):
        fields = {**dict(ast.iter_fields(node)), "decorator_list": _kept_decorators(node, values)}
        node = type(node)(**fields)
    return ast.fix_missing_locations(ast.Module([node], []))


def _is_of_pinnacle(decorator: ast.expr, values: Mapping[str, Any]) -> bool:
    """Whether a decorator, called or not, is one of pinnacle's: ``@model``, ``@pinnacle.model(batch=True)``."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    path: list[str] = []
    while isinstance(target, ast.Attribute):
        path.insert(0, target.attr)
        target = target.value
    found = values.get(target.id) if isinstance(target, ast.Name) else None
    for name in path:
        found = vars(found).get(name) if isinstance(found, (types.ModuleType, type)) else None
    module = getattr(found, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] == "pinnacle" and callable(found)
