"""The statements that a module runs when it is imported, and the names that each of them binds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any, NamedTuple

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Whether a statement of these is run, and how often, may depend on any other in them.
_ENTANGLED: tuple[type[ast.AST], ...] = (ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar)


class Statement(NamedTuple):
    """A statement of a module; of an ``if``, a loop or the like itself only what stands before its first colon.

    ``conditions``: trees of what decides whether it is run.
    """

    node: Any
    conditions: tuple[ast.AST, ...]


def statements_of(body: list[Any], conditions: tuple[ast.AST, ...] = ()) -> Iterator[Statement]:
    """The statements that a module runs itself, in order; those inside of if, try, with and loops too."""
    for statement in body:
        yield Statement(statement, conditions)
        if isinstance(statement, DEFINITIONS):
            continue
        for name in ("body", "orelse", "finalbody"):
            inner = (*conditions, *_condition(statement, name))
            yield from statements_of(getattr(statement, name, []), inner)
        for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
            yield from statements_of(part.body, (*conditions, *_condition(statement, "body")))


def _condition(statement: Any, branch: str) -> list[ast.AST]:
    match statement:
        case ast.If(test=test):
            return [test if branch == "body" else ast.UnaryOp(ast.Not(), test)]
        case ast.With(items=items) | ast.AsyncWith(items=items):
            return [ast.With(items, [])]
        case ast.Match(subject=subject, cases=cases):
            return [ast.Match(subject, [ast.match_case(case.pattern, case.guard, []) for case in cases])]
    entangled: list[ast.AST] = [statement] if isinstance(statement, _ENTANGLED) else []
    return entangled


def bound(statement: Any) -> Iterator[tuple[str, ast.AST]]:
    """The names that a statement gives a value, or changes the value of, each with the code that does."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, statement
        case ast.Import(names=aliases):
            for alias in aliases:
                yield (alias.asname or alias.name.partition(".")[0]), ast.Import([alias])
        case ast.ImportFrom(names=aliases, module=module, level=level):
            for alias in aliases:
                yield (alias.asname or alias.name), ast.ImportFrom(module, [alias], level)
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from ((name, ast.Assign([target], value)) for name in names_assigned(target))
        case ast.AnnAssign(target=target, value=value) if value is not None:
            yield from ((name, ast.Assign([target], value)) for name in names_assigned(target))
        case ast.AugAssign(target=target):
            yield from ((name, statement) for name in names_assigned(target))
        case ast.For(target=target, iter=value):
            yield from ((name, ast.Assign([target], value)) for name in names_assigned(target))
        case ast.With(items=items):
            for item in items:
                if item.optional_vars is not None:
                    part = ast.Assign([item.optional_vars], item.context_expr)
                    yield from ((name, part) for name in names_assigned(item.optional_vars))


def names_assigned(target: ast.expr) -> Iterator[str]:
    """The global names behind what is assigned to: of ``a[0] = 1`` it is a."""
    if isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from names_assigned(element)
        return
    while isinstance(target, (ast.Subscript, ast.Attribute, ast.Starred)):
        target = target.value
    if isinstance(target, ast.Name):
        yield target.id
