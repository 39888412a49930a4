"""Makes a tree of a condition's SQL, which SQLAlchemy has compiled: a parser of expressions and subqueries.

It takes what `grammar` lists and nothing else; which names and functions are meant is for `rendering` to check. A tree
is only kept where it is made the same SQL again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pinnacle.backends.sql.conditions import grammar
from pinnacle.backends.sql.conditions.grammar import Tree
from pinnacle.backends.sql.conditions.selects import SelectParser
from pinnacle.base.errors import UnsupportedQuery


def parse(text: str, *, folds: bool) -> Tree:
    """The tree of a condition; ``folds``: whether names without quotes are of lower case, whatever is written.

    UnsupportedQuery naming the piece of which none can be made.
    """
    parser = Parser(text, folds=folds)
    try:
        tree = parser.expression()
    except RecursionError as error:
        raise UnsupportedQuery("the select is nested too deeply to be stored") from error
    if parser.peek().kind != "end":
        raise parser.refused()
    return tree


class Parser(SelectParser):
    """Reads one condition from its first word to its last."""

    def expression(self, binds: int = 0) -> Tree:
        """What stands here up to an operator that binds less tightly."""
        with self.deeper():
            left = self._prefix()
            while (operator := self._infix(binds)) is not None:
                left = self._operation(left, operator)
            return left

    # -- operators -----------------------------------------------------------------------------------

    def _infix(self, binds: int) -> str | None:
        """The operator that stands here, if it binds that tightly; taken."""
        start = self.at
        operator = self._operator()
        bound = None if operator is None else grammar.binding(operator)
        if bound is None or bound < binds:
            self.at = start
            return None
        return operator

    def _operator(self) -> str | None:
        token = self.peek()
        if token.kind == "operator":
            self.at += 1
            return token.text
        if token.kind != "word":
            return None
        self.at += 1
        negation = "NOT " if token.keyword == "NOT" else ""
        word = self.take().keyword if negation else token.keyword
        if word == "IS" and not negation:
            return self._identity()
        if word == "SIMILAR" and self.takes("TO"):
            return f"{negation}SIMILAR TO"
        if word == "AT" and not negation and self.takes("TIME", "ZONE"):
            return "AT TIME ZONE"
        if word == "BETWEEN" and self.takes("SYMMETRIC"):
            return f"{negation}BETWEEN SYMMETRIC"
        return negation + word

    def _identity(self) -> str:
        negation = " NOT" if self.takes("NOT") else ""
        return f"IS{negation}" + (" DISTINCT FROM" if self.takes("DISTINCT", "FROM") else "")

    def _operation(self, left: Tree, operator: str) -> Tree:
        bound = grammar.binding(operator) or 0
        if operator in grammar.ALONE:
            return {"op": operator, "args": [left]}
        if operator in grammar.SETS:
            return {"op": operator, "args": [left, self._set()]}
        right = self.expression(bound + 1)
        if operator in grammar.BETWEENS:
            self.expect("AND")
            return {"op": operator, "args": [left, right, self.expression(bound + 1)]}
        if operator in grammar.ESCAPED and self.takes("ESCAPE"):
            return {"op": operator, "args": [left, right, self.expression(bound + 1)]}
        if operator in ("AND", "OR") and left.get("op") == operator:
            return {"op": operator, "args": [*left["args"], right]}
        return {"op": operator, "args": [left, right]}

    def _set(self) -> Tree:
        """What follows IN: a list, a subquery, or rows."""
        if self.peek().text != "(":
            raise self.refused()
        if self.peek(1).keyword != "VALUES":
            return self._parentheses()
        self.at += 2
        rows = self.listed(self._row)
        self.mark(")")
        return {"values": rows}

    def _row(self) -> list[Tree]:
        self.mark("(")
        row = self.listed(self.expression)
        self.mark(")")
        return row

    # -- operands ------------------------------------------------------------------------------------

    def _prefix(self) -> Tree:
        token = self.peek()
        if (bound := grammar.PREFIXES.get(token.keyword or token.text)) and token.kind in ("word", "operator"):
            self.at += 1
            return {"op": token.keyword or token.text, "args": [self.expression(bound)]}
        operand = self._operand()
        while (longer := self._suffix(operand)) is not None:
            operand = longer
        return operand

    def _suffix(self, operand: Tree) -> Tree | None:
        if self.is_mark("::"):
            self.at += 1
            return {"cast": operand, "to": self.type(), "style": "::"}
        if self.is_mark("["):
            return self._item(operand)
        if self.takes("COLLATE"):
            return {"collate": operand, "by": self.name()}
        return None

    def _item(self, operand: Tree) -> Tree:
        self.mark("[")
        first = self.expression()
        if self.is_mark(":"):
            self.at += 1
            first_to = {"item": operand, "from": first, "to": self.expression()}
            self.mark("]")
            return first_to
        self.mark("]")
        return {"item": operand, "at": first}

    def _operand(self) -> Tree:
        token = self.peek()
        if token.kind in ("param", "number", "string"):
            self.at += 1
            return {token.kind: token.text}
        if self.is_mark("("):
            return self._parentheses()
        word = token.keyword
        if word in grammar.CONSTANTS and self.peek(1).text not in ("(", "."):
            self.at += 1
            return {"constant": word}
        special: dict[str, Callable[[], Tree]] = {
            "CASE": self._case, "CAST": self._cast, "EXTRACT": self._extract, "EXISTS": self._exists,
            "ARRAY": self._array, "ANY": self._quantified, "ALL": self._quantified, "SOME": self._quantified,
        }  # fmt: skip
        if word in special:
            return special[word]()
        return self._named()

    def _parentheses(self) -> Tree:
        if self.peek(1).keyword in ("SELECT", "WITH"):
            return {"select": self.subquery()}
        self.mark("(")
        group = self.listed(self.expression)
        self.mark(")")
        return {"group": group}

    def _named(self) -> Tree:
        if self.peek(1).text == "(" and self.peek(1).kind == "mark" and self.peek().kind == "word":
            return self.call()
        names = [self.name()]
        while self.is_mark("."):
            self.at += 1
            names.append(self.name())
        return {"column": names}

    def call(self) -> Tree:
        """A function with its arguments, and what may follow these."""
        found: Tree = {"call": self.take().text, "args": []}
        self.mark("(")
        if self.takes("DISTINCT"):
            found["distinct"] = True
        if self.peek().text == "*" and self.peek(1).text == ")":
            self.at += 1
            found["args"] = [{"star": []}]
        elif not self.is_mark(")"):
            found["args"] = self.listed(self.expression)
        if self.takes("ORDER", "BY"):
            found["order_by"] = self.listed(self.ordering)
        self.mark(")")
        if self.takes("WITHIN", "GROUP"):
            self.mark("(")
            self.expect("ORDER", "BY")
            found["within"] = self.listed(self.ordering)
            self.mark(")")
        if self.takes("FILTER"):
            self.mark("(")
            self.expect("WHERE")
            found["filter"] = self.expression()
            self.mark(")")
        if self.takes("OVER"):
            found["over"] = self._window()
        return found

    def _window(self) -> Tree:
        self.mark("(")
        window: Tree = {}
        if self.takes("PARTITION", "BY"):
            window["partition_by"] = self.listed(self.expression)
        if self.takes("ORDER", "BY"):
            window["order_by"] = self.listed(self.ordering)
        self.mark(")")
        return window

    def _case(self) -> Tree:
        self.expect("CASE")
        value = None if self.peek().keyword == "WHEN" else self.expression()
        whens = []
        while self.takes("WHEN"):
            condition = self.expression()
            self.expect("THEN")
            whens.append([condition, self.expression()])
        other = self.expression() if self.takes("ELSE") else None
        self.expect("END")
        return {"case": value, "when": whens, "else": other}

    def _cast(self) -> Tree:
        self.expect("CAST")
        self.mark("(")
        value = self.expression()
        self.expect("AS")
        kind = self.type()
        self.mark(")")
        return {"cast": value, "to": kind, "style": "CAST"}

    def _extract(self) -> Tree:
        self.expect("EXTRACT")
        self.mark("(")
        part = self.name()
        self.expect("FROM")
        value = self.expression()
        self.mark(")")
        return {"extract": part, "from": value}

    def _exists(self) -> Tree:
        self.expect("EXISTS")
        return {"exists": self.subquery()}

    def _array(self) -> Tree:
        self.expect("ARRAY")
        self.mark("[")
        items = [] if self.is_mark("]") else self.listed(self.expression)
        self.mark("]")
        return {"array": items}

    def _quantified(self) -> Tree:
        return {"any": self.take().keyword, "of": self._parentheses()}

    # -- types ---------------------------------------------------------------------------------------

    def type(self) -> Tree:
        """The type of a cast: one of the database's own, or one by its name in quotes or with its schema."""
        first = self.take()
        if first.kind not in ("word", "quoted"):
            raise self.refused(-1)
        if first.kind == "quoted" or self.is_mark(".") or first.text.lower() not in grammar.TYPES:
            names = [self._folded(first)]
            while self.is_mark("."):
                self.at += 1
                names.append(self.name())
            found: Tree = {"named": names}
        else:
            found = self._own_type(first.text)
        depth = 0
        while self.is_mark("[") and self.peek(1).text == "]":
            self.at += 2
            depth += 1
        return {**found, "depth": depth} if depth else found

    def _own_type(self, name: str) -> Tree:
        found: Tree = {"name": name}
        second = grammar.SECOND_WORDS.get(name.lower())
        if second is not None and self.takes(second.upper()):
            found["second"] = second
        if self.is_mark("("):
            self.at += 1
            found["size"] = self.listed(self._whole_number)
            self.mark(")")
        if name.lower() in grammar.ZONED:
            for zone in ("WITH", "WITHOUT"):
                if self.takes(zone, "TIME", "ZONE"):
                    found["zone"] = zone
        return found

    def _whole_number(self) -> int:
        token = self.take()
        if token.kind != "number" or not token.text.isdigit():
            raise self.refused(-1)
        return int(token.text)


def check_volatile(tree: Any, *, limited: bool) -> None:
    """UnsupportedQuery for a condition that chance decides, of all rows that meet it."""
    if isinstance(tree, list):
        for part in tree:
            check_volatile(part, limited=limited)
    elif isinstance(tree, dict) and not limited:
        if (name := str(tree.get("call")).lower()) in grammar.VOLATILE:
            raise UnsupportedQuery(f"{name}() chooses other rows each time, and a listener keeps those that it chose")
        check_volatile(list(tree.values()), limited=limited)
