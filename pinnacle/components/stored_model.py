"""A stored model as far as it is known without its class."""

from __future__ import annotations

import dataclasses
from typing import Any

from pinnacle.base.errors import ConfigError
from pinnacle.base.types import Items, OutputType
from pinnacle.components.model import Model


@dataclasses.dataclass
class StoredModel(Model):
    """Stands for a model where what is done needs its name, its version and what it returns, and not its code."""

    _: dataclasses.KW_ONLY
    returns: OutputType | None = None

    @classmethod
    def of(cls, identifier: str, version: int, returns: OutputType) -> StoredModel:
        """``returns``: the type of its output, as the output is recorded."""
        found = cls(identifier, returns=returns)
        found.version = version
        return found

    def predict_one(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError(f"model {self.identifier!r} was not loaded")

    def resolved_output_type(self) -> OutputType:
        if self.returns is None:
            raise ConfigError(f"what model {self.identifier!r} returns is not known without its class")
        return self.returns.item if isinstance(self.returns, Items) else self.returns

    def list_item(self) -> OutputType | None:
        return self.returns.item if isinstance(self.returns, Items) and self.returns.many else None
