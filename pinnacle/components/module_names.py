"""What the names of a module are, told from its code: functions, imports, objects of pinnacle's, what cannot change."""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pinnacle.components.statements import DEFINITIONS, names_assigned

BUILTINS = frozenset({*vars(builtins), "__file__"})
# What these make cannot be changed.
_FIXED = frozenset({
    "Path", "PurePath", "compile", "getLogger", "frozenset", "str", "int", "float", "bool", "bytes", "complex",
    "Decimal", "Fraction", "UUID", "date", "datetime", "timedelta", "timezone", "ZoneInfo", "namedtuple",
    "TypeVar", "NewType",
})  # fmt: skip
PREDICTING = frozenset({"predict_one", "predict_batch", "apredict_one"})
_IMPORTS = (ast.Import, ast.ImportFrom)


class ModuleNames:
    """The names of a module by ``definitions``, the nodes that bind each of them, and all its ``statements``."""

    def __init__(self, definitions: Mapping[str, list[ast.AST]], statements: Sequence[ast.AST]) -> None:
        self.definitions, self._statements = definitions, statements
        self.spares_parameters: dict[str, bool] = {}
        """What is known of the functions so far."""
        self._closures: dict[str, set[str]] = {}

    @functools.cached_property
    def aliases(self) -> dict[str, set[str]]:
        """By name the names of what it may be the same as, or hold."""
        found: dict[str, set[str]] = defaultdict(set)
        for name, definitions in self.definitions.items():
            for definition in definitions:
                if isinstance(definition, (ast.Assign, ast.AugAssign)):
                    found[name] |= self.values_of(definition.value)
                elif isinstance(definition, ast.ClassDef):
                    values = (each.value for each in definition.body if isinstance(each, (ast.Assign, ast.AnnAssign)))
                    found[name] |= {each for value in values if value for each in self.values_of(value)}
        for statement in self._statements:
            if isinstance(statement, ast.Assign) and len(statement.targets) > 1:  # a = b = []
                same = {name for target in statement.targets for name in names_assigned(target)}
                for name in same:
                    found[name] |= same
        return found

    def values_of(self, node: ast.AST) -> set[str]:
        """The names of the module that the value of an expression may be, or be a part of, or hold."""
        return {name for name in self._values_of(node) if not self._is_fixed_name(name, frozenset())}

    def _values_of(self, node: ast.AST) -> set[str]:
        match node:
            case ast.Constant() | ast.JoinedStr() | ast.Compare() | ast.UnaryOp():
                return set()
            case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
                return self._values_of(value)
            case ast.Call(func=ast.Name(id=name)) if self.is_defined(name):
                return names_in_expression(node) | self._mentioned(name)
            case ast.Call(func=function) if self.is_import(root_of(function) or ""):
                return set[str]().union(*map(self._values_of, arguments_of(node)))
        return names_in_expression(node)

    def handed(self, node: ast.AST) -> set[str]:
        """What who is handed the value of an expression may change: no functions and classes, which nobody changes by
        being given them, no objects of pinnacle's, and no modules of which something is handed on."""
        match node:
            case ast.Call(func=ast.Name(id=name)) if self.is_class(name):
                return set[str]().union(*map(self.handed, arguments_of(node)))
            case ast.Attribute() | ast.Subscript() if self._is_module(root_of(node) or ""):
                return set()
        return {
            name for name in self.values_of(node)
            if not self.is_function(name) and not self.is_class(name) and not self.is_of_pinnacle(name)
        }  # fmt: skip

    def _is_module(self, name: str) -> bool:
        return self.is_import(name) and all(isinstance(each, ast.Import) for each in self.definitions[name])

    def _is_fixed_name(self, name: str, outer: frozenset[str]) -> bool:
        """Whether what a name stands for cannot be changed, but only be replaced."""
        definitions = self.definitions.get(name, ())
        return bool(definitions) and name not in outer and all(
            isinstance(each, ast.Assign)
            and isinstance(each.targets[0], ast.Name)
            and self._is_fixed(each.value, outer | {name})
            for each in definitions
        )  # fmt: skip

    def _is_fixed(self, node: ast.AST, outer: frozenset[str]) -> bool:
        match node:
            case ast.Constant() | ast.JoinedStr() | ast.Compare():
                return True
            case ast.Name(id=name):
                return self._is_fixed_name(name, outer)
            case ast.UnaryOp(operand=operand):
                return self._is_fixed(operand, outer)
            case ast.BinOp(left=left, right=right):
                return self._is_fixed(left, outer) and self._is_fixed(right, outer)
            case ast.Tuple(elts=elements):
                return all(self._is_fixed(each, outer) for each in elements)
            case ast.Attribute(value=ast.Call() as value):
                return self._is_fixed(value, outer)
            case ast.Call(func=ast.Name(id=last) | ast.Attribute(attr=last)):
                return last in _FIXED and self.is_standard(root_of(node) or "")
        return False

    def _mentioned(self, name: str) -> set[str]:
        """What a function or class of the module may return: all that it names, and what these name."""
        if name not in self._closures:
            self._closures[name] = closed({name}, [self._named])
        return self._closures[name]

    @functools.cached_property
    def _named(self) -> dict[str, set[str]]:
        """The names in the code of each function and class of the module."""
        return {
            name: set[str]().union(*(names_in_expression(each) for each in parts if isinstance(each, DEFINITIONS)))
            for name, parts in self.definitions.items()
        }

    def is_defined(self, name: str) -> bool:
        """Whether a name is a function or a class of the module."""
        return any(isinstance(each, DEFINITIONS) for each in self.definitions.get(name, ()))

    def is_function(self, name: str) -> bool:
        """Whether a name is a plain function of the module, which nobody changes by being handed it."""
        definitions = self.definitions.get(name, ())
        return bool(definitions) and all(isinstance(each, DEFINITIONS[:2]) for each in definitions)

    def keeps_a_default(self, name: str) -> bool:
        """Whether a function has a default that it may change, and has then at its next call."""
        functions = [each for each in self.definitions.get(name, ()) if isinstance(each, DEFINITIONS[:2])]
        defaults = [each for node in functions for each in [*node.args.defaults, *node.args.kw_defaults]]
        return any(each is not None and not self._is_fixed(each, frozenset()) for each in defaults)

    def is_class(self, name: str) -> bool:
        definitions = self.definitions.get(name, ())
        return bool(definitions) and all(isinstance(each, ast.ClassDef) for each in definitions)

    def is_imported_object(self, name: str) -> bool:
        """Whether a name is one from a module that is not Python's own, and is not written like that of a class."""
        is_like_class = name[:1].isupper() and not name.isupper()
        imported = all(isinstance(each, ast.ImportFrom) for each in self.definitions.get(name, ()))
        return imported and not is_like_class and not self.is_standard(name)

    def is_import(self, name: str) -> bool:
        definitions = self.definitions.get(name, ())
        return bool(definitions) and all(isinstance(each, _IMPORTS) for each in definitions)

    def packages(self, name: str) -> set[str]:
        """The packages that a name is imported from."""
        return {_package(each) for each in self.definitions.get(name, ()) if isinstance(each, _IMPORTS)}

    def is_standard(self, name: str) -> bool:
        """Whether a name is Python's own: a built-in, or imported from the standard library."""
        if name in BUILTINS and name not in self.definitions:
            return True
        return self.is_import(name) and self.packages(name) <= sys.stdlib_module_names

    def imported_with(self, name: str) -> set[str]:
        """The names that are imported from where a name is: they may share what stands there."""
        sources = {_source(each) for each in self.definitions.get(name, ()) if isinstance(each, _IMPORTS)}
        return {
            other for other, definitions in self.definitions.items()
            if any(isinstance(each, _IMPORTS) and _source(each) in sources for each in definitions)
        }  # fmt: skip

    def is_of_pinnacle(self, name: str, outer: frozenset[str] = frozenset()) -> bool:
        """Whether a name is pinnacle's: imported from it, made by it, derived from a class of it."""
        definitions = self.definitions.get(name, ())
        if not definitions or name in outer:
            return False
        return all(self._is_of_pinnacle(each, outer | {name}) for each in definitions)

    def _is_of_pinnacle(self, node: ast.AST, outer: frozenset[str]) -> bool:
        if isinstance(node, _IMPORTS):
            return _package(node).partition("_")[0] in ("pinnacle", "pinnacledb")
        roots: list[ast.AST] = []
        match node:
            case ast.Assign(targets=[ast.Name()], value=value):
                roots = [value]
            case ast.FunctionDef(decorator_list=[first, *_]) | ast.AsyncFunctionDef(decorator_list=[first, *_]):
                roots = [first]
            case ast.ClassDef(bases=bases):
                roots = list(bases)
        return any((root := root_of(each)) is not None and self.is_of_pinnacle(root, outer) for each in roots)

    def is_call_of_pinnacle(self, node: ast.Call) -> bool:
        """Whether a call is one of pinnacle's: of its functions, or of a method of its own on one of its objects."""
        root = root_of(node.func)
        if root is None or not self.is_of_pinnacle(root):
            return False
        named = {each.attr for each in ast.walk(node.func) if isinstance(each, ast.Attribute)}
        return not named & self._methods and not any(
            isinstance(each, ast.ClassDef) for each in self.definitions.get(root, ())
        )

    @functools.cached_property
    def _methods(self) -> set[str]:
        """The names of methods that classes of the module have of their own."""
        classes = [part for parts in self.definitions.values() for part in parts if isinstance(part, ast.ClassDef)]
        named = {each.name for part in classes for each in part.body if isinstance(each, DEFINITIONS)}
        return named - PREDICTING

    @functools.cached_property
    def asks_for_subclasses(self) -> bool:
        """Whether any code of the module asks a class for those derived from it."""
        trees = {id(each): each for parts in self.definitions.values() for each in parts}.values()
        return any(
            isinstance(each, ast.Attribute) and each.attr == "__subclasses__"
            for tree in trees for each in ast.walk(tree)
        )  # fmt: skip

    def has_hook(self, name: str) -> bool:
        """Whether a class of the module, or one that it derives from there, is told of classes derived from it."""
        waiting, seen = {name}, set[str]()
        while waiting:
            seen.add(each := waiting.pop())
            classes = [part for part in self.definitions.get(each, ()) if isinstance(part, ast.ClassDef)]
            if any(map(_hooks, classes)):
                return True
            waiting |= {other for part in classes for base in part.bases for other in names_in_expression(base)} - seen
        return False


def _hooks(node: ast.ClassDef) -> bool:
    methods = {getattr(item, "name", "") for item in node.body}
    return bool(node.keywords or methods & {"__init_subclass__", "__new__", "__set_name__"})


def names_in_expression(node: ast.AST) -> set[str]:
    """The names that a tree reads, whatever their scope."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def closed(names: set[str], others: Sequence[Mapping[str, set[str]]]) -> set[str]:
    """The names, the ``others`` of each, and those of these."""
    waiting, found = set(names), set[str]()
    while waiting:
        found.add(name := waiting.pop())
        waiting |= set[str]().union(*(each.get(name, set()) for each in others)) - found
    return found


def root_of(node: ast.AST) -> str | None:
    """The name that an expression begins with: of ``a.b(1)[2].c`` it is a; None where it begins with none."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call, ast.Await)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def arguments_of(node: ast.Call) -> Iterator[ast.expr]:
    yield from node.args
    yield from (keyword.value for keyword in node.keywords)


def _package(node: Any) -> str:
    return _source(node).partition(".")[0]


def _source(node: Any) -> str:
    """The module that an import names; with leading dots where it is relative."""
    if isinstance(node, ast.Import):
        return str(node.names[0].name)
    return "." * int(node.level) + str(node.module or "")
