"""What a prediction takes from its database: where its spending is booked, and the answers that were paid for."""

from __future__ import annotations

import time
from collections.abc import Callable

from pinnacle.backends.protocol import Backend, Target
from pinnacle.base.metering import Usage
from pinnacle.base.settings import Settings
from pinnacle.base.usage import UsageRow, utc_day
from pinnacle.components.model import Model
from pinnacle.runtime.cache import ResultCache
from pinnacle.runtime.options import PredictSettings


def predict_settings(
    backend: Backend, settings: Settings, model: Model, target: Target,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> PredictSettings:  # fmt: skip
    """What a prediction of ``model`` over ``target`` takes from its database and its settings."""
    place = f"{target.info.table}.{target.info.name}"
    return PredictSettings(
        settings.lease_ttl_s, settings.outage_patience_s, on_progress=on_progress,
        on_usage=lambda usage: book(backend, model, place, usage),
        cache=ResultCache.of(backend, model, target.info, settings.cache_ttl_s),
    )  # fmt: skip


def book(backend: Backend, model: Model, place: str, usage: Usage) -> None:
    """Add what hosted calls cost to the database's books, under today (UTC)."""
    if usage and model.is_paid:
        backend.ledger.add_usage(
            [UsageRow(day=utc_day(time.time()), model=model.identifier, output=place, **vars(usage))]
        )
