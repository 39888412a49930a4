"""Which statements of a module may change what a name of it stands for, besides those that bind the name.

Told from the code alone, and in doubt a statement does. What it only reads (compares, formats, computes with) it leaves
alone; what it assigns into, deletes, calls a method of, hands to a call or decorates with it may change, with all
that this may be another name for, and so may the module's own functions that it calls. What is called on objects of
pinnacle's (``db.add``, ``f.predict``) changes nothing.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Mapping

from pinnacle.components.acts import EVERYTHING, Acts
from pinnacle.components.module_names import BUILTINS, PREDICTING, ModuleNames, closed, names_in_expression
from pinnacle.components.statements import DEFINITIONS, Statement, bound


class Effects:
    """What each statement of a module may change; ``definitions`` are the nodes that bind each name."""

    def __init__(self, statements: list[Statement], definitions: Mapping[str, list[ast.AST]]) -> None:
        self._statements, self.names = statements, ModuleNames(definitions, [each.node for each in statements])
        self._known: dict[str, Acts] = {}
        self._running: dict[frozenset[str], Acts] = {}

    @functools.cached_property
    def of(self) -> Mapping[str, list[Statement]]:
        """By name the statements that may change it, in order; under `EVERYTHING` those that may change any."""
        found: dict[str, list[Statement]] = defaultdict(list)
        for statement in self._statements:
            own = {name for name, _ in bound(statement.node)}
            try:
                reached = self._reach(Acts.of_statement(self.names, statement.node))
            except RecursionError:  # nested too deeply to be told
                reached = {EVERYTHING}
            for name in reached - own:
                if self._is_of_module(name):
                    found[name].append(statement)
        return found

    def _is_of_module(self, name: str) -> bool:
        """Whether the module has a name, and it is not one of a function's own."""
        if name in self.names.definitions or name == EVERYTHING:
            return True
        return name in self._bound_otherwise or (bool(self.star_imports) and name not in BUILTINS)

    @functools.cached_property
    def _bound_otherwise(self) -> set[str]:
        """The names that the module binds by no statement of its own: in an expression, or by ``global``."""
        nodes = [each for statement in self._statements for each in ast.walk(statement.node)]
        walrus = {each.target.id for each in nodes if isinstance(each, ast.NamedExpr)}
        captured = {each.name for each in nodes if isinstance(each, (ast.MatchAs, ast.MatchStar)) and each.name}
        return walrus | captured | {name for each in nodes if isinstance(each, ast.Global) for name in each.names}

    @functools.cached_property
    def star_imports(self) -> list[Statement]:
        return [
            each for each in self._statements
            if isinstance(each.node, ast.ImportFrom) and any(alias.name == "*" for alias in each.node.names)
        ]  # fmt: skip

    def _reach(self, acts: Acts) -> set[str]:
        """All that may be changed: by the code, by what it runs, under whatever name."""
        run = frozenset(name for name in acts.run if name in self.names.definitions)
        if run not in self._running:
            self._running[run] = self._acts_of_all(run)
        inner = self._running[run]
        direct = acts.touched | inner.touched
        held = closed(direct, [acts.aliases, inner.aliases, self.names.aliases])
        # Who changes what holds a function changes no function.
        kept = {name for name in held - direct if self.names.is_function(name)}
        return (held - kept) | acts.replaced | inner.replaced

    def _acts_of_all(self, names: frozenset[str]) -> Acts:
        """What running these names does, and all that they run in turn."""
        acts, waiting = Acts(self.names, is_inner=True), set(names)
        while waiting:
            acts.run.add(name := waiting.pop())
            if name not in self._known:
                self._known[name] = self._acts_of(name)
            inner = self._known[name]
            acts.touched |= inner.touched
            acts.replaced |= inner.replaced
            for alias, others in inner.aliases.items():
                acts.aliases[alias] |= others
            waiting |= inner.run - acts.run
        return acts

    def _acts_of(self, name: str) -> Acts:
        """What running a name of the module does: of functions and classes their code, of others what made them."""
        acts = Acts(self.names, is_inner=True)
        for definition in self.names.definitions.get(name, ()):
            if isinstance(definition, ast.ClassDef) and self.names.is_of_pinnacle(name):
                acts.visit_all(each for each in definition.body if getattr(each, "name", "") not in PREDICTING)
            elif isinstance(definition, DEFINITIONS):
                if not self.names.is_of_pinnacle(name):
                    acts.visit(definition)
            elif isinstance(definition, ast.Assign):
                acts.run |= names_in_expression(definition.value)
        acts.run.discard(name)
        return acts
