"""What `pinnacle worker --metrics` serves to Prometheus: how the listeners stand whenever it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import ConfigError, MissingPlugin
from pinnacle.base.told import plain
from pinnacle.cli.numbers import Address

if TYPE_CHECKING:
    from pinnacle.base.listeners import ListenerStatus
    from pinnacle.base.usage import UsageRow
    from pinnacle.db import Database

GAUGES = {"pending": "Changes that wait", "lag_seconds": "Age of the oldest of them", "failed": "Rows set aside"}
COUNTERS = {
    "done": "Rows that were worked on", "calls": "Requests to hosted models", "input_tokens": "Tokens sent",
    "output_tokens": "Tokens received", "cost_dollars": "What these cost",
}  # fmt: skip


@contextmanager
def serving(db: Database, address: Address | None) -> Iterator[None]:
    """Serve the figures at an address meanwhile; without one serve nothing."""
    if address is None:
        yield
        return
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise MissingPlugin("prometheus-client", with_extra("metrics"), purpose="--metrics") from error
    registry = CollectorRegistry()
    registry.register(ListenerCollector(db))
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise ConfigError(f"nothing can be served on {address.host}:{address.port}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class ListenerCollector:
    """The figures of every listener, as prometheus_client asks its collectors for them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def describe(self) -> Iterable[Any]:
        """Nothing: to be registered asks the database for nothing."""
        return ()

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        figures = {each.identifier: each for each in self._db.listeners()}
        spent = spent_by_output(self._db.usage())
        families: dict[str, Any] = {
            name: GaugeMetricFamily(f"pinnacle_{name}", told, labels=["listener"]) for name, told in GAUGES.items()
        }
        families |= {
            name: CounterMetricFamily(f"pinnacle_{name}", told, labels=["listener"]) for name, told in COUNTERS.items()
        }
        for identifier, listener in figures.items():
            for name, value in figures_of(listener, spent).items():
                families[name].add_metric([plain(identifier)], value)
        yield from families.values()


def figures_of(listener: ListenerStatus, spent: dict[str, Counter[str]]) -> dict[str, float]:
    """The figures of one listener, by the names of `GAUGES` and `COUNTERS`."""
    usage = spent.get(listener.output, Counter())
    return {
        "pending": listener.pending, "lag_seconds": listener.lag_s, "failed": listener.failed,
        "done": listener.processed, **{name: usage[name] for name in list(COUNTERS)[1:]},
    }  # fmt: skip


def spent_by_output(rows: Iterable[UsageRow]) -> dict[str, Counter[str]]:
    """What the calls for each output came to, over all days and models."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        spent = {
            "calls": row.calls, "input_tokens": row.input_tokens, "output_tokens": row.output_tokens,
            "cost_dollars": row.cost,
        }  # fmt: skip
        found.setdefault(row.output, Counter()).update(spent)
    return found
