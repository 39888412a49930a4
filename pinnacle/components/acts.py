"""What a piece of code does to the names of its module: which it may change, and which of them it may run."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pinnacle.components.module_names import BUILTINS, ModuleNames, arguments_of, closed, names_in_expression, root_of
from pinnacle.components.statements import DEFINITIONS, names_assigned

EVERYTHING = "*"
"""Stands for all names of the module, where code may reach any of them."""

# Built-ins that leave their arguments as they are; a function that they are given may be run.
_READING = frozenset({
    "abs", "all", "any", "ascii", "bin", "bool", "bytes", "callable", "chr", "complex", "dict", "divmod",
    "enumerate", "filter", "float", "format", "frozenset", "getattr", "hasattr", "hash", "hex", "id", "int",
    "isinstance", "issubclass", "iter", "len", "list", "map", "max", "memoryview", "min", "oct", "open", "ord",
    "pow", "print", "property", "range", "repr", "reversed", "round", "set", "slice", "sorted", "staticmethod",
    "classmethod", "str", "sum", "super", "tuple", "zip",
})  # fmt: skip
_NAMESPACES = frozenset({"globals", "eval", "exec", "__builtins__"})
_QUIET = frozenset({"logging", "warnings"})
_STORES = (ast.Store, ast.Del)


class Acts(ast.NodeVisitor):
    """What a piece of code does to the names of its module.

    ``touched``: may be changed; ``replaced``: stand for another value; ``run``: may be called; ``aliases``: by name
    what its own variables may be. ``is_shallow``: of functions that are called it is not asked what they do.
    """

    def __init__(self, module: ModuleNames, *, is_inner: bool, is_shallow: bool = False) -> None:
        self.module, self.is_inner, self.is_shallow = module, is_inner, is_shallow
        self.touched: set[str] = set()
        self.replaced: set[str] = set()
        self.run: set[str] = set()
        self.aliases: dict[str, set[str]] = defaultdict(set)

    @classmethod
    def of_statement(cls, module: ModuleNames, node: Any) -> Acts:
        acts = cls(module, is_inner=False)
        if isinstance(node, (ast.If, ast.While)):
            acts.visit(node.test)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            acts.visit(node.target)
            acts.visit(node.iter)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            acts.visit_all(node.items)
        elif isinstance(node, ast.Match):
            acts.visit(node.subject)
            acts.visit_all(part for case in node.cases for part in (case.pattern, case.guard) if part is not None)
        elif not hasattr(node, "handlers"):
            acts.visit(node)
        return acts

    def visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, _STORES) and not self.is_inner:
            self.replaced.add(node.id)
        if is_gateway(node):
            self.touched.add(EVERYTHING)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, _STORES):
            self._store_into(node.value)
        if is_gateway(node):
            self.touched.add(EVERYTHING)
        self.generic_visit(node)

    def _store_into(self, node: ast.expr) -> None:
        self.touched |= self.module.values_of(node)
        if (root := root_of(node)) is not None:
            self.touched |= self.module.imported_with(root)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.ctx, _STORES):
            self._store_into(node.value)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.replaced |= set(node.names)

    def visit_MatchAs(self, node: Any) -> None:
        if node.name and not self.is_inner:
            self.replaced.add(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs  # noqa: N815

    def visit_Expr(self, node: ast.Expr) -> None:
        """A statement that is there for what it does."""
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call):
            if not self.module.is_call_of_pinnacle(value):
                self._touch_import(root_of(value.func), _QUIET)
                direct = {each.id for each in arguments_of(value) if isinstance(each, ast.Name)}
                self.touched |= {name for name in direct if self.module.is_class(name)}
        elif not isinstance(value, (ast.Constant, ast.Name, ast.ListComp, ast.Yield, ast.YieldFrom)):
            self.touched |= names_in_expression(value)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if (told := _told(node)) is not None:
            self.visit_all(told)
            return
        if self.module.is_call_of_pinnacle(node):
            self.visit_all(arguments_of(node))
            return
        arguments = set[str]().union(*(self.module.values_of(each) for each in arguments_of(node)))
        self.run |= arguments
        if not self._is_reading(node):
            changed = self._called(node.func) | self._handed(node)
            self.touched |= changed
            for name in changed:
                self.aliases[name] |= changed
        if is_gateway(node) or _is_own_namespace(node, is_inner=self.is_inner):
            self.touched.add(EVERYTHING)
        self.generic_visit(node)

    def _called(self, function: ast.expr) -> set[str]:
        """What calling it may change, besides the arguments; notes what it may run."""
        if isinstance(function, ast.Name) and self.module.is_defined(function.id):
            self.run.add(function.id)
            return {function.id} if self.module.keeps_a_default(function.id) else set()
        root = root_of(function)
        if root is not None and (self.module.is_standard(root) or self.module.is_import(root)):
            is_method = isinstance(function, ast.Attribute) and self.module.is_imported_object(root)
            return {root} if is_method else set()
        changed = self.module.values_of(function)
        self.run |= changed
        return changed

    def _handed(self, node: ast.Call) -> set[str]:
        """What a call is handed, and may change."""
        match node.func:
            case ast.Name(id="setattr" | "delattr"):
                return set[str]().union(*map(self.module.values_of, arguments_of(node)))
            case ast.Name(id=name) if self.module.is_function(name) and self._spares_parameters(name):
                return set()
        return set[str]().union(*map(self.module.handed, arguments_of(node)))

    def _spares_parameters(self, name: str) -> bool:
        """Whether a function of the module does nothing to its parameters but read them, and hand them to none."""
        if self.is_shallow:
            return False
        known = self.module.spares_parameters
        if name not in known:
            acts, parameters = Acts(self.module, is_inner=True, is_shallow=True), set[str]()
            for definition in self.module.definitions[name]:
                acts.visit(definition)
                parameters |= {each.arg for each in ast.walk(definition) if isinstance(each, ast.arg)}
            known[name] = parameters.isdisjoint(closed(acts.touched, [acts.aliases]))
        return known[name]

    def _is_reading(self, node: ast.Call) -> bool:
        """Whether a call leaves its arguments alone: of a built-in that does, or of a method of a literal text."""
        match node.func:
            case ast.Name(id=name):
                return name in _READING and self.module.is_standard(name)
            case ast.Attribute(value=ast.Constant() | ast.JoinedStr()):
                return True
        return False

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._alias(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._alias(node.target, node.value)
            self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._alias(node.target, node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.touched |= set(names_assigned(node.target))
        self.generic_visit(node)

    def visit_For(self, node: Any) -> None:
        self._alias(node.target, node.iter)
        self.generic_visit(node)

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Its variables are its own, and none of the module's."""
        self._alias(node.target, node.iter)
        own = (ast.Name, ast.Tuple, ast.List, ast.Starred)
        parts = [each for each in ast.walk(node.target) if not isinstance(each, (*own, ast.expr_context))]
        self.visit_all([node.iter, *node.ifs, *parts])

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._alias(node.optional_vars, node.context_expr)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: Any) -> None:
        self._decorators(node)
        self.visit_all([*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)])
        if self.is_inner:
            self.visit_all(node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._decorators(node)
        for base in [*node.bases, *(keyword.value for keyword in node.keywords)]:
            names = {name for name in names_in_expression(base) if not self.module.is_standard(name)}
            self.run |= {name for name in names if self.module.is_defined(name)}
            if node.keywords or self.module.asks_for_subclasses or any(map(self.module.has_hook, names)):
                self.touched |= names
        inner = Acts(self.module, is_inner=True)
        inner.visit_all(each for each in node.body if self.is_inner or not isinstance(each, DEFINITIONS))
        for each in node.body if not self.is_inner else ():
            if isinstance(each, DEFINITIONS):
                inner._decorators(each)
        self.touched |= inner.touched
        self.run |= inner.run
        self.aliases.update(inner.aliases)

    def _decorators(self, node: Any) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
            root = root_of(decorator)
            if root is None or self.module.is_of_pinnacle(root):
                continue
            self.run.add(root)
            if self.module.is_import(root):
                self._touch_import(root, sys.stdlib_module_names)
            elif not self.module.is_defined(root) or isinstance(decorator, ast.Attribute) or _is_method(decorator):
                self.touched |= {root} - BUILTINS

    def _touch_import(self, name: str | None, quiet: Iterable[str]) -> None:
        """What is called for its effect may change what stands in its package, under whatever name."""
        if name is not None and self.module.is_import(name) and not self.module.packages(name) <= set(quiet):
            self.touched |= self.module.imported_with(name)

    def _alias(self, target: ast.expr, value: ast.expr) -> None:
        for name in names_assigned(target):
            self.aliases[name] |= self.module.values_of(value)


def is_gateway(node: ast.AST) -> bool:
    """Whether a piece of code leads to any name of its module, by names that are made as it runs."""
    match node:
        case ast.Name(id=name):
            return name in _NAMESPACES
        case ast.Attribute(value=ast.Name(id="sys"), attr="modules") | ast.Attribute(attr="__globals__"):
            return True
        case ast.Call(func=ast.Name(id=last) | ast.Attribute(attr=last)) if last in ("import_module", "__import__"):
            return any("__name__" in names_in_expression(each) for each in node.args)
    return False


def _told(node: ast.Call) -> list[ast.stmt] | None:
    """The statements of a literal text that a call runs as code."""
    match node:
        case ast.Call(func=ast.Name(id="eval" | "exec"), args=[ast.Constant(value=str() as text), *_]):
            try:
                return ast.parse(text.strip()).body
            except (SyntaxError, ValueError):
                return None
    return None


def _is_own_namespace(node: ast.Call, *, is_inner: bool) -> bool:
    """Whether a call gives the module's names: ``vars()`` and ``locals()`` outside of functions."""
    named = isinstance(node.func, ast.Name) and node.func.id in ("vars", "locals")
    return named and not node.args and not is_inner


def _is_method(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)
