"""What all models that count tokens share: a name by default, and what they spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from pinnacle.base.errors import ConfigError
from pinnacle.base.metering import Meter, Usage, meter
from pinnacle.components.model import Model


@dataclasses.dataclass
class MeteredModel(Model):
    """A model whose calls are counted: ``spent.total`` is what this object's calls cost so far.

    The identifier is by default its ``model_name``, with ``/`` replaced.
    """

    unshared: ClassVar[tuple[str, ...]] = ("spent", "prompting", "threads", "client", "price")
    """The attributes that stay behind when a model is copied to another process: clients, threads, counts. A subclass
    that makes such of its own adds their names to these."""

    identifier: str = ""

    def __post_init__(self) -> None:
        if not self.identifier:
            self.identifier = _default_identifier(self)
        super().__post_init__()
        self.spent = Meter()

    def counting(self) -> Meters:
        """Where calls are counted now: for the prediction that asks, and for the model itself."""
        return Meters(meter.get(), self.spent)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self.unshared}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self.spent = Meter()


class Meters:
    """Counts for a prediction and for the model itself; the prediction's budget holds."""

    def __init__(self, prediction: Meter | None, own: Meter) -> None:
        self._prediction, self._own = prediction, own

    def reserve(self, expected: float) -> float | None:
        return self._prediction.reserve(expected) if self._prediction is not None else 0.0

    def refused(self, what: str) -> int:
        return (self._own if self._prediction is None else self._prediction).refused(what)

    def settle(self, reserved: float, usage: Usage) -> None:
        self._own.settle(0.0, usage)
        if self._prediction is not None:
            self._prediction.settle(reserved, usage)


def check_whole(name: str, value: Any) -> None:
    """ConfigError for what is no whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is a whole number from 1, not {value!r}")


def _default_identifier(model: Any) -> str:
    name = getattr(model, "model_name", None)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{type(model).__name__} needs an identifier to go by")
    return name.replace("/", "-")
