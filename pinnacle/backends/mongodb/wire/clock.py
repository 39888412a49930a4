"""The server's time, by which leases of all processes end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pinnacle.backends.mongodb.wire.wire import Wire


@dataclass
class ServerClock:
    """The server's time, from its difference to this machine's, measured now and then."""

    wire: Wire
    refresh_s: float = 60.0
    _offset: timedelta = timedelta(0)
    _measured: float = float("-inf")

    def now(self) -> datetime:
        if time.monotonic() - self._measured > self.refresh_s:
            self._measured = time.monotonic()
            self._offset = self.wire.clock() - datetime.now(UTC)
        return datetime.now(UTC) + self._offset

    def has_passed(self, moment: datetime) -> bool:
        """Whether a time that this clock gave, as it was stored, is over."""
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) <= self.now()
