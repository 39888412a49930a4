"""What a prediction is asked to do, and what it takes from its surroundings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pinnacle.base.metering import Usage


@dataclass(frozen=True)
class PredictOptions:
    """What `predict` over a database was asked to do."""

    limit: int | None = None
    batch_size: int | None = None
    overwrite: bool = False
    on_error: Literal["isolate", "raise"] = "isolate"
    dry_run: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None


class Cache(Protocol):
    """Answers that were paid for: see `ResultCache`."""

    def get(self, identities: Sequence[Any]) -> list[Any]: ...

    def put(self, identities: Sequence[Any], outputs: Sequence[Any]) -> None: ...


@dataclass(frozen=True)
class PredictSettings:
    """Leases, patience, kept answers, and whom to tell of progress (rows) and of spending."""

    lease_ttl_s: float
    outage_patience_s: float = 120.0
    on_progress: Callable[[int], None] = lambda rows: None
    on_usage: Callable[[Usage], None] = lambda usage: None
    cache: Cache | None = None
