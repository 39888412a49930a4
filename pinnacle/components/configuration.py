"""How a model is trained, as a component: stored and versioned beside the models that came of it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from pinnacle.components.component import Component, operational


@dataclasses.dataclass
class TrainingConfiguration(Component):
    """The settings of a training; plug-ins say which there are.

    ``log_to_db``: keep the metrics and checkpoints of a training in the database.
    """

    kind: ClassVar[str] = "training_configuration"

    _: dataclasses.KW_ONLY
    log_to_db: bool = operational(True)

    @property
    def checkpoints_kept(self) -> int | None:
        """How many checkpoints of a run stay; None keeps all."""
        return None

    def series_on_disk(self, run: str) -> list[dict[str, Any]]:
        """The metrics that a run without ``log_to_db`` left on this machine's disk; see `Run.series`."""
        return []
