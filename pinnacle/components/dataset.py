"""Datasets: the rows of a query under a name, for training and validation."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from pinnacle.base.errors import ConfigError
from pinnacle.components.component import Component


@dataclasses.dataclass
class Dataset(Component):
    """The rows of ``select``, read when they are used: ``Dataset("valid", select=...)``.

    As a validation set of `fit` it gives its identifier to the metrics: ``eval_valid_loss``. ``X``: the fields, where
    they are others than those of the fit. ``select`` may have a limit: which rows these are is looked
    up at each use.
    """

    kind: ClassVar[str] = "dataset"

    _: dataclasses.KW_ONLY
    select: Any = None
    X: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.select is None:
            raise ConfigError(f"dataset {self.identifier!r} needs select=, the query for its rows")
