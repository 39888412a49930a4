"""What a provider's batch brings back, by the name that each request went under."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pinnacle.base.metering import Usage
from pinnacle.base.redaction import redacted


@dataclass(frozen=True, kw_only=True)
class BatchAnswers:
    """The outputs and the errors of one batch, and what it cost.

    ``unanswered``: the requests that the provider did not come to, as the batch expired or was cancelled first; they
    are asked for again. What it says nothing of at all is lost, and is its row's error. None: all that are in neither
    outputs nor errors are unanswered. ``failure``: why the provider took none of it.
    """

    outputs: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, Exception] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    unanswered: Collection[str] | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        if self.failure is not None:
            object.__setattr__(self, "failure", redacted(self.failure))
