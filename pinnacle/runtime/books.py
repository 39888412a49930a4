"""What a prediction takes from its database: where its spending is booked, and the answers that were paid for."""

from __future__ import annotations

import time
from collections.abc import Callable

from pinnacle.backends.protocol import Backend, Target
from pinnacle.base.metering import Usage
from pinnacle.base.settings import Settings
from pinnacle.base.usage import BatchJob, UsageRow, utc_day
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


def book_batch(backend: Backend, model: Model, place: str, job: BatchJob, usage: Usage) -> bool:
    """Forget a batch of the provider's and book what it cost, under the day (UTC) on which it was submitted; whether
    nobody else has."""
    return backend.ledger.book_batch(job.id, _rows(model, place, usage, job.created_at))


def book(backend: Backend, model: Model, place: str, usage: Usage) -> None:
    """Add what hosted calls cost to the database's books, under today (UTC)."""
    if rows := _rows(model, place, usage, time.time()):
        backend.ledger.add_usage(rows)


def _rows(model: Model, place: str, usage: Usage, at_s: float) -> list[UsageRow]:
    if not usage or not model.is_paid:
        return []
    return [UsageRow(day=utc_day(at_s), model=model.identifier, output=place, **vars(usage))]
