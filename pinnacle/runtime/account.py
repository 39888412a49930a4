"""What a prediction spends, and the answers that it paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from pinnacle.base.metering import Meter, Usage, meter
from pinnacle.runtime.database_patience import DatabasePatience
from pinnacle.runtime.options import PredictSettings
from pinnacle.runtime.result import PredictResult


class Account:
    """Books what was spent and keeps what was bought, both before the outputs that came of it are written: neither a
    crash nor a row that changed meanwhile loses them."""

    def __init__(self, settings: PredictSettings, budget: float | None, database: DatabasePatience) -> None:
        self.meter = Meter(budget)
        self._on_usage, self._cache, self._database = settings.on_usage, settings.cache, database

    @contextmanager
    def open(self, result: PredictResult) -> Iterator[None]:
        """Have what is called below count here; what it cost is recorded at the end, however it ends."""
        token = meter.set(self.meter)
        try:
            yield
        finally:
            meter.reset(token)
            result.spent(self.meter.total)
            self.bill()

    def bill(self) -> None:
        """Book what was spent since the last time."""
        usage = self.meter.take()
        if usage:
            self._database.run(partial(self._on_usage, usage))

    def due(self, identities: Sequence[Any], outputs: Sequence[Any]) -> list[Callable[[], None]]:
        """What is to be committed before these new outputs are written."""
        tasks: list[Callable[[], None]] = [self.bill] if self.meter.has_untaken() else []
        if outputs and self._cache is not None:
            tasks.append(partial(self._database.run, partial(self._cache.put, identities, outputs)))
        return tasks

    def bought(self, identities: Sequence[Any]) -> list[Any]:
        """The output of each input that was paid for before, None for the others; empty where none was."""
        if self._cache is None:
            return []
        kept = self._database.run(partial(self._cache.get, identities))
        if known := sum(output is not None for output in kept):
            self.meter.count(Usage(cached=known))
        return kept if known else []
