"""How a model is trained, as a component: stored and versioned beside the models that came of it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pinnacle.components.component import Component


@dataclasses.dataclass
class TrainingConfiguration(Component):
    """The settings of a training; plug-ins say which there are."""

    kind: ClassVar[str] = "training_configuration"
