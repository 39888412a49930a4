"""What else decides what code does: statements that change what it uses, its wrappers, docstrings that it reads.

`pinnacle.components.source` counts the code of a function and the definitions of the names that it uses. Here is what
an earlier pinnacle did not count: what of the module may change what these names stand for (`Effects`), what decides
whether such a statement is run, the functions that a callable wraps or holds, and what a class is besides its methods.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from pinnacle.components.acts import is_gateway
from pinnacle.components.code import ModuleCode, names_in, plain
from pinnacle.components.module_names import ModuleNames, names_in_expression, root_of
from pinnacle.components.statements import DEFINITIONS

DOCUMENTS = "the docstrings that are read"
_DOCUMENTED = frozenset({"__doc__", "getdoc", "help"})
# Enough for what a decorator closes over; an object of a library's may lead to thousands.
_MAX_HELD = 200


class Influences:
    """Collects them, as JSON values by name; ``known`` are the names that are counted elsewhere."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = frozenset(known)
        self._found: dict[str, Any] = {}
        self._seen: set[Any] = set()
        self._trees: dict[int, ast.AST] = {}
        self._code: list[tuple[ModuleCode, Mapping[str, Any], ast.AST]] = []

    @property
    def parts(self) -> dict[str, Any]:
        """What was found; docstrings only where any of the code may read them."""
        found = dict(self._found)
        for module, values, tree in self._code:
            if module.once("gateway", tree, partial(_is_gateway, tree)):
                found["the whole module"] = [module.plain(each, values) for each in module.tree.body]
        if documents := self._documents():
            found[DOCUMENTS] = documents
        return found

    def add_callable(self, value: Any) -> None:
        """The functions that a callable is, wraps or holds; of those from other modules the names."""
        own = written(value)
        for function in _held(value):
            if own is None or function.__globals__ is own.__globals__:
                self._add_function(function, is_own=function is own)
            elif function.__module__ != "functools":
                name = f"{function.__module__}.{function.__code__.co_qualname}"
                self._found.setdefault("what it is wrapped in", []).append(name)

    def add_class(self, name: str, mixins: frozenset[str], module: ModuleCode, values: Mapping[str, Any]) -> None:
        """A class's decorators, its mixins, and of its body what is no plain method.

        ``mixins`` are the names of base classes that are no components: those count by themselves.
        """
        for tree in module.classes(name):
            header = ast.copy_location(ast.ClassDef(tree.name, [], tree.keywords, [], tree.decorator_list), tree)
            rest = [each for each in tree.body if _is_more_than_a_method(each)]
            self._found[f"the class {name}"] = [plain(each, values) for each in [header, *rest]]
            self._code.append((module, values, tree))
            header.body = rest or [ast.Pass()]
            based = set[str]().union(*map(names_in_expression, tree.bases)) & mixins
            self._add_names(module, values, (names_in(header, values) | based) - {tree.name})
        self._add_names(module, values, (), changed={name.partition(".")[0]})

    def _add_function(self, function: types.FunctionType, *, is_own: bool) -> None:
        code, module, values = function.__code__, ModuleCode.of(function), function.__globals__
        if code in self._seen:
            return
        self._seen.add(code)
        names = set(code.co_names)
        if (tree := module.function(code)) is not None:
            names = module.names_in(tree, values)
            self._code.append((module, values, tree))
            if not is_own or code.co_qualname not in self._known:
                label = code.co_qualname if is_own else f"{code.co_qualname}, which it holds"
                self._found.setdefault(label, []).append(plain(tree, values))
        self._add_names(module, values, names - set(code.co_freevars), changed={code.co_qualname.partition(".")[0]})

    def _add_names(
        self, module: ModuleCode, values: Mapping[str, Any], names: Iterable[str], changed: Iterable[str] = ()
    ) -> None:
        """What gives names their values and may change these, and what that uses in turn.

        Of ``changed``, which are names of the code itself, only what may change them.
        """
        waiting = [(name, True) for name in names] + [(name, False) for name in changed]
        while waiting:
            name, is_used = waiting.pop()
            if (module, name, is_used) in self._seen:
                continue
            self._seen.add((module, name, is_used))
            trees = module.definitions(name) if is_used else []
            if trees and name not in self._known and name not in self._found:
                self._found[name] = [module.plain(each, values) for each in trees]
            elif is_used and not trees and (elsewhere := written(values.get(name))) is not None:
                if elsewhere.__globals__ is values:  # of another cell of a notebook
                    self._add_function(elsewhere, is_own=True)
            trees = [*trees, *self._changes(module, values, name, is_own=not is_used)]
            new = [tree for tree in trees if self._is_new(tree)]
            self._code += [(module, values, tree) for tree in new]
            waiting += [(used, True) for tree in new for used in module.names_in(tree, values)]

    def _is_new(self, tree: ast.AST) -> bool:
        is_new = id(tree) not in self._trees
        self._trees[id(tree)] = tree
        return is_new

    def _changes(self, module: ModuleCode, values: Mapping[str, Any], name: str, *, is_own: bool) -> list[ast.AST]:
        """What may change a name, and what decides whether that is run; of an own one, also what is assigned to it."""
        assigned = [each for each in module.definitions(name) if is_own and not isinstance(each, DEFINITIONS)]
        changing = assigned + [each.node for each in module.changing(name)]
        deciding = module.deciding(name)
        for what, trees in (("changes", changing), ("decides", deciding)):
            if trees:
                self._found[f"what {what} {name}"] = [module.plain(each, values) for each in trees]
        return [*changing, *deciding]

    def _documents(self) -> list[Any]:
        """The docstrings that the code may read: all of it where it asks for any; else those that others are handed."""
        if any(module.once("documents", tree, partial(_reads_documents, tree)) for module, _, tree in self._code):
            modules = dict.fromkeys(module for module, _, _ in self._code)
            found = [ast.get_docstring(module.tree) for module in modules]
            return [
                *found,
                *(text for _, _, tree in self._code for each in ast.walk(tree) for text in _docstrings(each)),
            ]
        return [
            text for module, _, tree in self._code
            for text in module.once("handed on", tree, partial(_handed_on, tree, module.effects.names))
        ]  # fmt: skip


def written(function: Any) -> types.FunctionType | None:
    """The function that was written, without what decorators have put around it."""
    while isinstance(function, (types.MethodType, functools.partial)):
        function = function.__func__ if isinstance(function, types.MethodType) else function.func
    try:
        function = inspect.unwrap(function)
    except ValueError:  # it wraps itself
        return None
    return function if isinstance(function, types.FunctionType) else None


def _held(value: Any) -> Iterator[types.FunctionType]:
    """The functions that a value is, wraps, closes over or holds, in an order of its own."""
    waiting, seen = [value], set[int]()
    while waiting and len(seen) < _MAX_HELD:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, types.FunctionType):
            yield each
            waiting += [cell.cell_contents for cell in each.__closure__ or () if _is_set(cell)]
            waiting += [*(each.__defaults__ or ()), *(each.__kwdefaults__ or {}).values()]
        waiting += _inside(each)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, (type, types.ModuleType)) or not hasattr(value, "__dict__"):
        return []
    kept = [each for each in vars(value).values() if callable(each) and not isinstance(each, type)]
    own = vars(type(value)).values() if not _is_of_library(type(value)) else ()
    return kept + [each for each in own if isinstance(each, types.FunctionType)]


def _is_of_library(cls: type) -> bool:
    package = cls.__module__.partition(".")[0]
    return package in sys.stdlib_module_names or package == "pinnacle"


def _is_set(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # empty until the enclosing function assigns it
        return False


def _is_more_than_a_method(node: Any) -> bool:
    """Whether a statement of a class counts by its code: methods without decorators do by themselves."""
    if isinstance(node, DEFINITIONS[:2]):
        return bool(node.decorator_list)
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return not isinstance(node, ast.Pass) and not any(isinstance(t, ast.Name) and t.id == "version" for t in targets)


def _reads_documents(tree: ast.AST) -> bool:
    return any(
        (isinstance(each, ast.Attribute) and each.attr in _DOCUMENTED)
        or (isinstance(each, ast.Name) and each.id in _DOCUMENTED)
        or (isinstance(each, ast.Constant) and each.value == "__doc__")
        for each in ast.walk(tree)
    )


def _is_gateway(tree: ast.AST) -> bool:
    return any(is_gateway(each) for each in ast.walk(tree))


def _handed_on(tree: ast.AST, names: ModuleNames) -> list[list[str]]:
    """The docstrings of definitions that are handed to code of a library's."""
    found = (_docstrings(each) for each in ast.walk(tree) if _is_handed_on(each, names))
    return [texts for texts in found if texts]


def _docstrings(node: ast.AST) -> list[str]:
    text = ast.get_docstring(node) if isinstance(node, DEFINITIONS) else None
    return [] if text is None else [text]


def _is_handed_on(node: ast.AST, names: ModuleNames) -> bool:
    """Whether a definition is handed to code of a library's, which may read its docstring: decorated, or derived."""
    if not isinstance(node, DEFINITIONS):
        return False
    roots = {root_of(each) or "" for each in [*node.decorator_list, *getattr(node, "bases", ())]}
    return any(
        names.is_import(root) and not names.is_standard(root) and not names.is_of_pinnacle(root) for root in roots
    )
