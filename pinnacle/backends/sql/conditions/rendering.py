"""Makes SQL of a tree, and looks at each of its nodes before: what `grammar` does not list is refused.

A tree comes from the database, and whoever may write there may have made it. Names are quoted and looked up, values are
parameters, and all else is one of a few known words: so that no tree is a statement of another kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pinnacle.backends.sql.conditions import grammar
from pinnacle.backends.sql.conditions.names import Columns, Scope, Tables
from pinnacle.base.errors import ComponentError

_PARAMETER = re.compile(r"p\d{1,6}")
_NUMBER = re.compile(r"(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,3})?")


def render(
    tree: Any, *, quote: Callable[[str], str], scope: Scope, tables: Tables, parameters: Collection[str]
) -> str:  # fmt: skip
    """The SQL of a condition for ``sa.text``, in parentheses: no OR in it means other rows where it stands in an AND.

    ``scope`` knows the table whose rows it chooses. ComponentError naming what is not allowed.
    """
    renderer = _Renderer(quote, scope, tables, frozenset(parameters))
    text = renderer.node(tree)
    if unused := renderer.parameters - renderer.used:
        raise ComponentError(f"its select has parameters that it does not use: {', '.join(sorted(unused))}")
    return f"({text})"


class _Renderer:
    def __init__(self, quote: Callable[[str], str], scope: Scope, tables: Tables, parameters: frozenset[str]) -> None:
        self._quote, self._scope, self._tables, self.parameters = quote, scope, tables, parameters
        self.used: set[str] = set()
        self._depth = self._count = 0
        self._nodes: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "param": self._param, "number": self._number, "string": self._string, "constant": self._constant,
            "column": self._column, "op": self._operation, "group": self._group, "values": self._values,
            "call": self._call, "cast": self._cast, "extract": self._extract, "case": self._case,
            "array": self._array, "item": self._item, "collate": self._collate, "any": self._quantified,
            "exists": self._exists, "select": self._subquery,
        }  # fmt: skip

    def node(self, node: Any) -> str:
        """The SQL of one node."""
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > grammar.MAX_DEPTH * 2 or self._count > grammar.MAX_NODES:
            raise ComponentError("its select is nested too deeply, or too large")
        if not isinstance(node, Mapping) or (kind := next(iter(_kinds(node, self._nodes)), None)) is None:
            raise _strange(node)
        try:
            text = self._nodes[kind](node)
        except (LookupError, TypeError, AttributeError) as error:  # a part of it is missing, or of another kind
            raise _strange(node) from error
        self._depth -= 1
        return text

    def _list(self, nodes: Any) -> str:
        return ", ".join(map(self.node, _some(nodes)))

    # -- values and names ------------------------------------------------------------------------------

    def _param(self, node: Mapping[str, Any]) -> str:
        name = _only(node, "param")["param"]
        if not isinstance(name, str) or not _PARAMETER.fullmatch(name) or name not in self.parameters:
            raise _strange(node)
        self.used.add(name)
        return f":{name}"

    def _number(self, node: Mapping[str, Any]) -> str:
        number = _only(node, "number")["number"]
        if not isinstance(number, str) or not _NUMBER.fullmatch(number):
            raise _strange(node)
        return number

    def _string(self, node: Mapping[str, Any]) -> str:
        text = _only(node, "string")["string"]
        if not isinstance(text, str) or "\x00" in text or len(text) > grammar.MAX_TEXT:
            raise _strange(node)
        if "\\" in text and text != "\\":  # which a server may take for the beginning of something else
            raise ComponentError("its select holds a text with a backslash; compare with a parameter instead")
        return "'" + text.replace("'", "''").replace(":", "\\:") + "'"

    def _constant(self, node: Mapping[str, Any]) -> str:
        return _one_of(grammar.CONSTANTS, _only(node, "constant")["constant"])

    def _name(self, name: Any) -> str:
        if not isinstance(name, str) or not name or "\x00" in name or len(name) > grammar.MAX_TEXT:
            raise _strange(name)
        return self._quote(name).replace(":", "\\:")

    def _column(self, node: Mapping[str, Any]) -> str:
        names = _some(_only(node, "column")["column"], most=3)
        text = ".".join(map(self._name, names))
        self._scope.check(names)
        return text

    # -- operators -------------------------------------------------------------------------------------

    def _operation(self, node: Mapping[str, Any]) -> str:
        _only(node, "op", "args")
        operator, args = node["op"], _some(node["args"])
        if len(args) == 1 and operator in grammar.PREFIXES and isinstance(operator, str):
            operand = self.node(args[0])
            is_apart = operator.isalpha() or not re.match(r"[\w(\":]", operand)
            return f"{operator} {operand}" if is_apart else f"{operator}{operand}"
        if not isinstance(operator, str) or grammar.binding(operator) is None:
            raise ComponentError(f"its select uses the operator {operator!r}, which is not among those allowed")
        return self._infix(operator, args)

    def _infix(self, operator: str, args: Sequence[Any]) -> str:
        least, most = _arity(operator)
        if not least <= len(args) <= most:
            raise ComponentError(f"its select gives {operator} {len(args)} operands")
        if operator in grammar.SETS and not {"group", "select", "values"}.intersection(_mapping(args[1])):
            raise _strange(args[1])
        texts = list(map(self.node, args))
        if operator in grammar.ALONE:
            return f"{texts[0]} {operator}"
        if operator in grammar.BETWEENS:
            return f"{texts[0]} {operator} {texts[1]} AND {texts[2]}"
        if operator in grammar.ESCAPED and len(texts) == 3:
            return f"{texts[0]} {operator} {texts[1]} ESCAPE {texts[2]}"
        return f" {operator} ".join(texts)

    def _group(self, node: Mapping[str, Any]) -> str:
        return f"({self._list(_only(node, 'group')['group'])})"

    def _values(self, node: Mapping[str, Any]) -> str:
        rows = _some(_only(node, "values")["values"])
        return "(VALUES " + ", ".join(f"({self._list(row)})" for row in rows) + ")"

    def _quantified(self, node: Mapping[str, Any]) -> str:
        word = _only(node, "any", "of")["any"]
        if word not in ("ANY", "ALL", "SOME") or not {"group", "select"}.intersection(_mapping(node["of"])):
            raise _strange(node)
        return f"{word} {self.node(node['of'])}"

    # -- what has words of its own -----------------------------------------------------------------------

    def _call(self, node: Mapping[str, Any]) -> str:
        _only(node, "call", "args", "distinct", "order_by", "within", "filter", "over")
        name, args = node["call"], node["args"]
        if not isinstance(name, str) or not (name.lower() in grammar.FUNCTIONS or name.lower() in grammar.ROWS_OF):
            raise ComponentError(f"its select calls {name!r}, which is not among the functions allowed")
        is_star = isinstance(args, list) and args == [{"star": []}]
        inner = "*" if is_star else self._list(args) if args else ""
        inner = f"DISTINCT {inner}" if _flag(node, "distinct") else inner
        if "order_by" in node:
            inner += f" ORDER BY {self._orderings(node['order_by'])}"
        text = f"{name}({inner})"
        if "within" in node:
            text += f" WITHIN GROUP (ORDER BY {self._orderings(node['within'])})"
        if "filter" in node:
            text += f" FILTER (WHERE {self.node(node['filter'])})"
        return text + (f" OVER ({self._window(node['over'])})" if "over" in node else "")

    def _window(self, window: Any) -> str:
        window = _only(_mapping(window), "partition_by", "order_by")
        parts = [f"PARTITION BY {self._list(window['partition_by'])}"] if "partition_by" in window else []
        parts += [f"ORDER BY {self._orderings(window['order_by'])}"] if "order_by" in window else []
        return " ".join(parts)

    def _orderings(self, orderings: Any) -> str:
        return ", ".join(map(self._ordering, _some(orderings)))

    def _ordering(self, ordering: Any) -> str:
        ordering = _only(_mapping(ordering), "value", "way", "nulls")
        way, nulls = ordering.get("way"), ordering.get("nulls")
        if way not in (None, "ASC", "DESC") or nulls not in (None, "FIRST", "LAST"):
            raise _strange(ordering)
        return self.node(ordering.get("value")) + (f" {way}" if way else "") + (f" NULLS {nulls}" if nulls else "")

    def _extract(self, node: Mapping[str, Any]) -> str:
        part = _only(node, "extract", "from")["extract"]
        if not isinstance(part, str) or part.lower() not in grammar.PARTS_OF_TIMES:
            raise _strange(node)
        return f"EXTRACT({part} FROM {self.node(node['from'])})"

    def _case(self, node: Mapping[str, Any]) -> str:
        _only(node, "case", "when", "else")
        parts = ["CASE"] if node["case"] is None else ["CASE", self.node(node["case"])]
        for when in _some(node["when"]):
            condition, value = _some(when, least=2, most=2)
            parts.append(f"WHEN {self.node(condition)} THEN {self.node(value)}")
        parts += [] if node["else"] is None else [f"ELSE {self.node(node['else'])}"]
        return " ".join([*parts, "END"])

    def _array(self, node: Mapping[str, Any]) -> str:
        items = _only(node, "array")["array"]
        return f"ARRAY[{self._list(items) if items else ''}]"

    def _item(self, node: Mapping[str, Any]) -> str:
        operand = self.node(node["item"])
        if "at" in node:
            return f"{operand}[{self.node(_only(node, 'item', 'at')['at'])}]"
        _only(node, "item", "from", "to")
        return f"{operand}[{self.node(node['from'])}\\:{self.node(node['to'])}]"

    def _collate(self, node: Mapping[str, Any]) -> str:
        _only(node, "collate", "by")
        return f"{self.node(node['collate'])} COLLATE {self._name(node['by'])}"

    def _exists(self, node: Mapping[str, Any]) -> str:
        return f"EXISTS {self._selected(_only(node, 'exists')['exists'])}"

    def _subquery(self, node: Mapping[str, Any]) -> str:
        return self._selected(_only(node, "select")["select"])

    # -- types -----------------------------------------------------------------------------------------

    def _cast(self, node: Mapping[str, Any]) -> str:
        _only(node, "cast", "to", "style")
        value, kind = self.node(node["cast"]), self._type(_mapping(node["to"]))
        if node["style"] == "::":
            return f"{value}\\:\\:{kind}"
        if node["style"] != "CAST":
            raise _strange(node)
        return f"CAST({value} AS {kind})"

    def _type(self, kind: Mapping[str, Any]) -> str:
        depth = kind.get("depth", 0)
        if type(depth) is not int or not 0 <= depth <= 6:
            raise _strange(kind)
        return (self._named_type(kind) if "named" in kind else self._own_type(kind)) + "[]" * depth

    def _named_type(self, kind: Mapping[str, Any]) -> str:
        names = _some(_only(kind, "named", "depth")["named"], most=2)
        text = ".".join(map(self._name, names))
        if not self._tables.has_type(names):
            raise ComponentError(
                f"its select casts to a type {'.'.join(names)!r}, which is neither the database's own nor the enum "
                "of a column of its tables"
            )
        return text

    def _own_type(self, kind: Mapping[str, Any]) -> str:
        _only(kind, "name", "second", "size", "zone", "depth")
        name, size = kind.get("name"), kind.get("size", [])
        if not isinstance(name, str) or name.lower() not in grammar.TYPES:
            raise ComponentError(f"its select casts to {name!r}, which is not among the types allowed")
        second, zone = kind.get("second"), kind.get("zone")
        if second is not None and second != grammar.SECOND_WORDS.get(name.lower()):
            raise _strange(kind)
        if zone is not None and (zone not in ("WITH", "WITHOUT") or name.lower() not in grammar.ZONED):
            raise _strange(kind)
        if not isinstance(size, list) or len(size) > 2 or any(type(each) is not int for each in size):
            raise _strange(kind)
        text = f"{name} {second.upper()}" if second else name
        text += f"({', '.join(map(str, size))})" if size else ""
        return text + (f" {zone} TIME ZONE" if zone else "")

    # -- subqueries --------------------------------------------------------------------------------------

    def _selected(self, select: Any) -> str:
        return f"({self._select(_mapping(select))[0]})"

    def _select(self, select: Mapping[str, Any]) -> tuple[str, Columns]:
        """The SQL of a SELECT, and what its columns are called."""
        self._depth += 1
        if self._depth > grammar.MAX_DEPTH * 2:
            raise ComponentError("its select is nested too deeply")
        ctes: dict[str, Columns] = {}
        self._scope.ctes.append(ctes)
        text = self._with(select, ctes) if "with" in select else ""
        with self._scope.inside({}):
            core = self._parts if "parts" in select else self._core
            body, columns = core(select)
            self._scope.labels.append(columns)
            text += body + self._tail(select)
            self._scope.labels.pop()
        self._scope.ctes.pop()
        self._depth -= 1
        return text, columns

    def _with(self, select: Mapping[str, Any], ctes: dict[str, Columns]) -> str:
        parts = []
        for cte in _some(select["with"]):
            cte = _only(_mapping(cte), "name", "columns", "kept", "as")
            name, kept, columns = str(cte.get("name")), cte.get("kept"), cte.get("columns", [])
            if kept not in (None, "MATERIALIZED", "NOT MATERIALIZED"):
                raise _strange(cte)
            head = self._name(cte.get("name")) + self._named_columns(columns)
            if _flag(select, "recursive"):
                ctes[name] = columns
            text, own = self._select(_mapping(cte.get("as")))
            ctes[name] = columns or own
            parts.append(f"{head} AS {f'{kept} ' if kept else ''}({text})")
        return f"WITH {'RECURSIVE ' if _flag(select, 'recursive') else ''}{', '.join(parts)} "

    def _parts(self, select: Mapping[str, Any]) -> tuple[str, Columns]:
        _only(select, "parts", *_AROUND)
        texts, names = [], []
        for number, part in enumerate(_some(select["parts"], least=2)):
            word, core = _some(part, least=2, most=2)
            if (word in grammar.COMPOUNDS) is (number == 0) or (number == 0 and word != ""):
                raise _strange(part)
            with self._scope.inside({}):
                text, columns = self._core(_mapping(core))
            texts.append(f"{word} {text}".strip())
            names.append(columns)
        return " ".join(texts), names[0]

    def _core(self, select: Mapping[str, Any]) -> tuple[str, Columns]:
        _only(select, "distinct", "items", "from", "where", "group_by", "having", *_AROUND)
        tables = ", ".join(map(self._from, _some(select["from"]))) if "from" in select else ""
        items = [self._selected_item(item) for item in _some(select.get("items"))]
        text = "SELECT DISTINCT " if _flag(select, "distinct") else "SELECT "
        text += ", ".join(item for item, _ in items) + (f" FROM {tables}" if tables else "")
        columns = [name for _, names in items for name in names]
        text += f" WHERE {self.node(select['where'])}" if "where" in select else ""
        self._scope.labels.append(columns)
        text += f" GROUP BY {self._list(select['group_by'])}" if "group_by" in select else ""
        self._scope.labels.pop()
        return text + (f" HAVING {self.node(select['having'])}" if "having" in select else ""), columns

    def _selected_item(self, item: Any) -> tuple[str, Columns]:
        item = _only(_mapping(item), "value", "name")
        value = _mapping(item.get("value"))
        if "star" in value:
            table = next(iter(_some(_only(value, "star")["star"], least=0, most=1)), None)
            columns = self._scope.all_of(table)
            return ("*" if table is None else f"{self._name(table)}.*"), columns
        text = self.node(value)
        if "name" in item:
            return f"{text} AS {self._name(item['name'])}", [item["name"]]
        return text, value["column"][-1:] if "column" in value else [value["call"]] if "call" in value else []

    def _tail(self, select: Mapping[str, Any]) -> str:
        text = f" ORDER BY {self._orderings(select['order_by'])}" if "order_by" in select else ""
        for word in ("limit", "offset"):
            text += f" {word.upper()} {self.node(select[word])}" if word in select else ""
        if "fetch" in select:
            ending = "WITH TIES" if _flag(select, "ties") else "ONLY"
            text += f" FETCH FIRST {self.node(select['fetch'])} ROWS {ending}"
        return text

    def _from(self, table: Any) -> str:
        self._depth += 1
        if self._depth > grammar.MAX_DEPTH * 2:
            raise ComponentError("its select is nested too deeply")
        text = self._table(_mapping(table))
        self._depth -= 1
        return text

    def _table(self, table: Mapping[str, Any]) -> str:
        if "join" in table:
            _only(table, "join", "left", "right", "on")
            if table["join"] not in grammar.JOINS:
                raise _strange(table)
            text = f"{self._from(table['left'])} {table['join']} {self._from(table['right'])}"
            return text + (f" ON {self.node(table['on'])}" if "on" in table else "")
        if "nested" in table:
            return f"({self._from(_only(table, 'nested')['nested'])})"
        alias, given = table.get("alias"), table.get("columns", [])
        if "table" in table:
            text, name, columns = self._plain_table(_only(table, "table", "alias", "columns"))
        elif "rows" in table:
            _only(table, "rows", "lateral", "alias", "columns")
            rows, columns = self._select(_mapping(table["rows"]))
            text, name = f"({rows})", ""
        else:
            text, name, columns = self._rows_of(_only(table, "rows_of", "lateral", "alias", "columns"))
        if alias is not None:
            text += f" AS {self._name(alias)}{self._named_columns(given)}"
        elif given:
            raise _strange(table)
        in_schema = table["table"][0] if alias is None and len(table.get("table", ())) == 2 else None
        self._scope.add(name if alias is None else alias, given or columns, in_schema)
        if "rows_of" in table:  # which may be read by the name of its rows
            self._scope.add("", [alias or name])
        return f"LATERAL {text}" if _flag(table, "lateral") else text

    def _plain_table(self, table: Mapping[str, Any]) -> tuple[str, str, Columns]:
        *schema, name = _some(table["table"], most=2)
        text = ".".join(map(self._name, [*schema, name]))
        found = None if schema else self._scope.cte(name)
        return text, name, self._tables.columns(schema[0] if schema else None, name) if found is None else found

    def _rows_of(self, table: Mapping[str, Any]) -> tuple[str, str, Columns]:
        call = _mapping(table.get("rows_of"))
        name = call.get("call")
        if not isinstance(name, str) or name.lower() not in grammar.ROWS_OF:
            raise ComponentError(f"its select takes rows of {name!r}, which is not among the functions allowed there")
        return self.node(call), name, [*grammar.ROWS_OF[name.lower()], name]

    def _named_columns(self, columns: Any) -> str:
        return f" ({', '.join(map(self._name, _some(columns)))})" if columns else ""


_AROUND = ("with", "recursive", "order_by", "limit", "offset", "fetch", "ties")


def _kinds(node: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """What a node is: one of its keys is that; an ``item`` may have a ``from``, as an ``extract`` has."""
    return [name for name in node if name in known]


def _arity(operator: str) -> tuple[int, int]:
    if operator in grammar.ALONE:
        return 1, 1
    if operator in grammar.BETWEENS:
        return 3, 3
    if operator in ("AND", "OR"):
        return 2, grammar.MAX_NODES
    return 2, 3 if operator in grammar.ESCAPED else 2


def _only(node: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A node, which has no keys but these."""
    if set(node) - set(names):
        raise _strange(node)
    return node


def _mapping(node: Any) -> Mapping[str, Any]:
    if not isinstance(node, Mapping):
        raise _strange(node)
    return node


def _some(nodes: Any, *, least: int = 1, most: int = grammar.MAX_NODES) -> Sequence[Any]:
    if not isinstance(nodes, (list, tuple)) or not least <= len(nodes) <= most:
        raise _strange(nodes)
    return nodes


def _flag(node: Mapping[str, Any], name: str) -> bool:
    if node.get(name, False) not in (True, False):
        raise _strange(node)
    return bool(node.get(name, False))


def _one_of(known: Mapping[str, str], name: Any) -> str:
    if not isinstance(name, str) or name not in known:
        raise ComponentError(f"its select holds {name!r}, which is not among the constants allowed")
    return known[name]


def _strange(node: Any) -> ComponentError:
    return ComponentError(f"its select holds {str(node)[:80]!r}, which is no part of a stored select")
