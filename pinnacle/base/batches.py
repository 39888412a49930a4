"""What a provider's batch brings back, by the name that each request went under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pinnacle.base.metering import Usage


@dataclass(frozen=True, kw_only=True)
class BatchAnswers:
    """The outputs and the errors of one batch, and what it cost.

    What is in neither was not answered: the batch expired or was cancelled first. ``failure``:
    why the provider took none of it.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, Exception] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    failure: str | None = None
