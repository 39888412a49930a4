"""Makes trees of the subqueries in a condition, and keeps the place in its words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pinnacle.backends.sql.conditions import grammar
from pinnacle.backends.sql.conditions.grammar import Tree
from pinnacle.backends.sql.conditions.tokens import Token, refused_near, tokens
from pinnacle.base.errors import UnsupportedQuery

T = TypeVar("T")

_JOIN_WORDS = frozenset({"JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS"})


class Words:
    """The words of a condition, and how far they are read."""

    def __init__(self, text: str, *, folds: bool) -> None:
        self.text, self.folds = text, folds
        self.words, self.at, self.depth = tokens(text), 0, 0

    def peek(self, ahead: int = 0) -> Token:
        at = self.at + ahead
        return self.words[at] if at < len(self.words) else Token("end", "", len(self.text))

    def take(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def takes(self, *keywords: str) -> bool:
        """Whether these key words stand here; they are taken."""
        if any(self.peek(i).keyword != keyword for i, keyword in enumerate(keywords)):
            return False
        self.at += len(keywords)
        return True

    def expect(self, *keywords: str) -> None:
        if not self.takes(*keywords):
            raise self.refused()

    def is_mark(self, mark: str) -> bool:
        token = self.peek()
        return token.kind == "mark" and token.text == mark

    def mark(self, mark: str) -> None:
        if not self.is_mark(mark):
            raise self.refused()
        self.at += 1

    def name(self) -> str:
        """A name, as the database knows it."""
        token = self.take()
        if token.kind == "quoted" or (token.kind == "word" and token.keyword not in grammar.RESERVED):
            return self._folded(token)
        raise self.refused(-1)

    def _folded(self, token: Token) -> str:
        return token.text.lower() if token.kind == "word" and self.folds else token.text

    def listed(self, one: Callable[[], T]) -> list[T]:
        """One or more, with commas between them."""
        found = [one()]
        while self.is_mark(","):
            self.at += 1
            found.append(one())
        return found

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > grammar.MAX_DEPTH:
            raise UnsupportedQuery(f"the select is nested more than {grammar.MAX_DEPTH} deep, and cannot be stored")
        yield
        self.depth -= 1

    def refused(self, ahead: int = 0) -> UnsupportedQuery:
        return refused_near(self.text, self.peek(ahead).position)


class SelectParser(Words, ABC):
    """Reads a SELECT."""

    @abstractmethod
    def expression(self, binds: int = 0) -> Tree: ...

    @abstractmethod
    def call(self) -> Tree: ...

    def subquery(self) -> Tree:
        """A SELECT in parentheses."""
        self.mark("(")
        with self.deeper():
            found = self.select()
        self.mark(")")
        return found

    def select(self) -> Tree:
        """A SELECT, or several put together, with its CTEs before and its order and limits after."""
        found: Tree = {}
        if self.takes("WITH"):
            if self.takes("RECURSIVE"):
                found["recursive"] = True
            found["with"] = self.listed(self._cte)
        first = self._core()
        parts: list[list[Any]] = [["", first]]
        while (word := self.peek().keyword) in ("UNION", "INTERSECT", "EXCEPT"):
            self.at += 1
            parts.append([f"{word} ALL" if self.takes("ALL") else word, self._core()])
        found |= first if len(parts) == 1 else {"parts": parts}
        if self.takes("ORDER", "BY"):
            found["order_by"] = self.listed(self.ordering)
        if self.takes("LIMIT"):
            found["limit"] = self.expression()
        if self.takes("OFFSET"):
            found["offset"] = self.expression()
        if self.takes("FETCH", "FIRST"):
            found["fetch"] = self.expression()
            self.expect("ROWS")
            if not self.takes("ONLY"):
                self.expect("WITH", "TIES")
                found["ties"] = True
        return found

    def _cte(self) -> Tree:
        found: Tree = {"name": self.name()}
        if self.is_mark("("):
            self.at += 1
            found["columns"] = self.listed(self.name)
            self.mark(")")
        self.expect("AS")
        for words in (("MATERIALIZED",), ("NOT", "MATERIALIZED")):
            if self.takes(*words):
                found["kept"] = " ".join(words)
        return {**found, "as": self.subquery()}

    def _core(self) -> Tree:
        self.expect("SELECT")
        found: Tree = {"distinct": True} if self.takes("DISTINCT") else {}
        found["items"] = self.listed(self._item_of)
        if self.takes("FROM"):
            found["from"] = self.listed(self._from)
        if self.takes("WHERE"):
            found["where"] = self.expression()
        if self.takes("GROUP", "BY"):
            found["group_by"] = self.listed(self.expression)
        if self.takes("HAVING"):
            found["having"] = self.expression()
        return found

    def _item_of(self) -> Tree:
        if self.peek().text == "*" and self.peek().kind == "operator":
            self.at += 1
            return {"value": {"star": []}}
        if self.peek(1).text == "." and self.peek(2).text == "*":
            table = self.name()
            self.at += 2
            return {"value": {"star": [table]}}
        value = self.expression()
        return {"value": value, "name": self.name()} if self.takes("AS") else {"value": value}

    def ordering(self) -> Tree:
        """One of those that an ORDER BY names."""
        found: Tree = {"value": self.expression()}
        for way in ("ASC", "DESC"):
            if self.takes(way):
                found["way"] = way
        for place in ("FIRST", "LAST"):
            if self.takes("NULLS", place):
                found["nulls"] = place
        return found

    # -- FROM ----------------------------------------------------------------------------------------

    def _from(self) -> Tree:
        with self.deeper():
            left = self._table()
            while self.peek().keyword in _JOIN_WORDS:
                left = {"join": self._join(), "left": left, "right": self._table()}
                if self.takes("ON"):
                    left["on"] = self.expression()
            return left

    def _join(self) -> str:
        words = [self.take().keyword]
        while words[-1] != "JOIN":
            words.append(self.take().keyword)
            if not words[-1]:
                raise self.refused(-1)
        return " ".join(words)

    def _table(self) -> Tree:
        is_lateral = self.takes("LATERAL")
        if self.is_mark("(") and self.peek(1).keyword not in ("SELECT", "WITH"):
            self.mark("(")
            nested = self._from()
            self.mark(")")
            return {"nested": nested}
        if self.is_mark("("):
            found: Tree = {"rows": self.subquery()}
        elif self.peek(1).text == "(":
            found = {"rows_of": self.call()}
        else:
            found = {"table": [self.name()]}
            if self.is_mark("."):
                self.at += 1
                found["table"].append(self.name())
        if is_lateral:
            found["lateral"] = True
        if self.takes("AS"):
            found["alias"] = self.name()
            if self.is_mark("("):
                self.at += 1
                found["columns"] = self.listed(self.name)
                self.mark(")")
        return found
