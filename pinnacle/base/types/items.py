"""Items: what a side table holds of one row."""

from __future__ import annotations

import dataclasses
from typing import Any

from pinnacle.base.types.output_type import OutputType


@dataclasses.dataclass(frozen=True)
class Items(OutputType):
    """Any number of values a row, kept in a side table; ``many`` says that the model returns a list of them."""

    item: OutputType
    many: bool

    name = "items"

    @property
    def stored(self) -> OutputType:
        return self.item

    def check(self, value: Any) -> list[Any]:
        if self.many and not isinstance(value, (list, tuple)):
            raise self.misfit(value)
        items, misfits = self.item.check_all(list(value) if self.many else [value])
        for error in misfits.values():
            raise error
        if any(item is None for item in items):
            raise self.misfit(value, "None among its items")
        return list(items)

    def to_json(self) -> Any:
        return {"type": self.name, "item": self.item.to_json(), "many": self.many}

    def __str__(self) -> str:
        return f"items of {self.item}"
