"""Outputs in a table or collection of their own, one or many values a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pinnacle.base.errors import ConfigError
from pinnacle.base.refusals import require_name
from pinnacle.base.types import Items, OutputType, output_type_of
from pinnacle.components.model import Model

RESERVED = ("pinnacle_", "sqlite_", "system.")
"""How names begin that are not for side tables."""


@dataclasses.dataclass(frozen=True)
class Side:
    """An output that goes to a side table: ``predict(..., output=Side("chunks"))``.

    The table has the source's key (``{table}_{key}``), ``position`` from 0, and ``value``;
    pinnacle makes it, and takes the rows away when their source row goes: a listener at
    once, else the next predict. A model that returns a list fills one row an item.
    ``item`` is the type of one, by default from the model's annotation: of ``-> list[str]``
    that is str, and any other output is one item.

    On MongoDB it is a collection: a document an item, with the source's key in
    ``{collection}_id`` (a dot in the collection's name as ``%2E``). Its ``_id`` is made of
    key and position, so that an item keeps it when its value changes. Without a
    transaction, readers may see a document's items half written for a moment.
    """

    table: str
    item: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.table, str) or not self.table:
            raise ConfigError(f"Side() takes the name of a table, not {self.table!r}")
        require_name(self.table)
        if self.table.lower().startswith(RESERVED):
            raise ConfigError(
                f"Side({self.table!r}) would be among the tables of pinnacle or of the database itself; choose a name "
                f"that does not begin with {', '.join(RESERVED)}"
            )

    def type_for(self, model: Model) -> Items:
        """What the side table holds of ``model``'s outputs."""
        many = model.list_item()
        if self.item is not None:
            return Items(output_type_of(self.item, where=f"Side({self.table!r})"), many is not None)
        return Items(many, True) if many is not None else Items(model.resolved_output_type(), False)

    def to_stored(self) -> dict[str, Any]:
        item = None if self.item is None else output_type_of(self.item, where=f"Side({self.table!r})")
        return {"side": self.table, "item": item}


def place_of(output: Any, model: Model) -> tuple[str | None, OutputType]:
    """Name and type of an output, given as None, a name, a Side, or what a Side was stored as."""
    if isinstance(output, Mapping):
        if output.keys() != {"side", "item"}:
            raise ConfigError(
                "output= as a dict of field to column goes with predict, where dry_run=True and listen=True do what a "
                "plan and a listener do; here name one column"
            )
        output = Side(output["side"], output["item"])
    if isinstance(output, Side):
        return output.table, output.type_for(model)
    if output is not None and (not isinstance(output, str) or not output):
        raise ConfigError(f"output= is the name of a column or field, or Side(...), not {output!r}")
    for part in () if output is None else output.split("."):  # of a document's path; a column's name has dots as others
        if part:
            require_name(part, output)
    return output, model.resolved_output_type()
