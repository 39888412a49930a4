"""Which parts of a document make its canonical row, as a server computes it and as Python does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pinnacle.base.document import MISSING, is_index, value_at


@dataclass(frozen=True)
class Shape:
    """Which parts of a document make its canonical row; no ``output`` where that is kept elsewhere."""

    inputs: tuple[str, ...]
    output: str | None

    @property
    def field(self) -> str:
        """Where a document has its output."""
        if self.output is None:
            raise TypeError("this output is not kept in its documents")
        return self.output

    def expressions(self) -> dict[str, Any]:
        """The find projection with which a server computes canonical rows."""
        named = {f"i{n}": path_expression(path) for n, path in enumerate(self.inputs)}
        return {"_id": 1, **named, **({} if self.output is None else {"o": f"${self.output}"})}

    def of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The canonical row of a decoded document."""
        named = {f"i{n}": path for n, path in enumerate(self.inputs)}
        if self.output is not None:
            named["o"] = self.output
        parts = {name: value_at(document, path) for name, path in named.items()}
        return {"_id": document["_id"], **{name: part for name, part in parts.items() if part is not MISSING}}


def path_expression(path: str) -> Any:
    """An aggregation expression for exactly the value at a dotted path.

    ``"$a.b"`` alone would map over arrays; each step here takes a field of a document or,
    for a whole number, one element of an array.
    """
    first, *rest = path.split(".")
    expression: Any = _field("$$ROOT", first) if first.startswith("$") else f"${first}"
    for name in rest:
        element = {"$arrayElemAt": ["$$v", int(name)]} if is_index(name) else "$$REMOVE"
        inner = _field("$$v", name) if name.startswith("$") else f"$$v.{name}"
        chosen = {"$cond": [{"$isArray": "$$v"}, element, inner]}
        expression = {"$let": {"vars": {"v": expression}, "in": chosen}}
    return expression


def _field(document: str, name: str) -> Any:
    return {"$getField": {"field": {"$literal": name}, "input": document}}


def parents_of(path: str) -> list[str]:
    """The paths of the documents that a field at ``path`` is within, the outermost first."""
    names = path.split(".")
    return [".".join(names[:depth]) for depth in range(1, len(names))]
