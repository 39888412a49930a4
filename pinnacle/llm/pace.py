"""Learns how fast a provider lets an account go: from its headers, and from its refusals.

The rate goes down at once to what the provider took in the last seconds, and up slowly,
then faster, for as long as nothing is refused. Pure arithmetic on times that it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

MEMORY_S = 2.0
"""How far back the provider's real rate is looked up."""

REACTION_S = 0.5
"""Refusals within this time of a slow-down are of requests sent before it, and tell nothing new."""

MARGIN = 0.98
GROWTH_AFTER_S = 4.0
FIRST_GROWTH = 1.005
LEAST_RATE = 0.2
BURST_S = 0.05
"""A start that came late may be made up for by earlier ones within this time."""


class Pace:
    """The learned pace of one account; ``rate`` in starts a second, None while nothing was ever refused."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self.ceiling: float | None = None
        self.paused_until = float("-inf")
        self._next = float("-inf")
        self._accepted: deque[float] = deque(maxlen=4096)
        self._slowed_at = self._grown_at = float("-inf")
        self._growth = FIRST_GROWTH

    def wait_s(self, now: float) -> float:
        """Seconds until the next start; not positive when it may be now."""
        return max(self.paused_until - now, self._next - now if self.rate is not None else 0.0)

    def started(self, now: float) -> None:
        if self.rate is not None:
            self._next = max(self._next, now - BURST_S) + 1 / self.rate

    def accepted(self, now: float, headers: Mapping[str, str]) -> None:
        """An answer that was no refusal."""
        self._accepted.append(now)
        self._read(headers, now)
        if self.rate is None or now - max(self._slowed_at, self._grown_at) < GROWTH_AFTER_S / 4:
            return
        if now - self._slowed_at < GROWTH_AFTER_S:
            return
        self._grown_at = now
        self.rate *= self._growth
        self._growth = min(2.0, 1 + (self._growth - 1) * 1.3)
        if self.ceiling is not None:
            self.rate = min(self.rate, self.ceiling)

    def refused(self, now: float, headers: Mapping[str, str]) -> None:
        """A 429: wait as long as it says, and go on at the rate that was taken."""
        wait = retry_after_s(headers)
        if wait is not None:
            self.paused_until = max(self.paused_until, now + min(wait, 120.0))
        self._read(headers, now)
        if now - self._slowed_at < REACTION_S:
            return
        self._slowed_at, self._growth = now, FIRST_GROWTH
        taken = self._taken_rate(now)
        if self.rate is None:
            self.rate = max(LEAST_RATE, taken or 1.0)
        else:
            self.rate = max(LEAST_RATE, min(self.rate * MARGIN, taken * MARGIN if taken else self.rate / 2))
        if self.ceiling is not None:
            self.rate = min(self.rate, self.ceiling)
        self._next = max(self._next, now + 1 / self.rate)

    def _taken_rate(self, now: float) -> float:
        recent = [moment for moment in self._accepted if now - moment <= MEMORY_S]
        if not recent:
            return 0.0
        return len(recent) / max(1.0, min(MEMORY_S, now - recent[0]))

    def _read(self, headers: Mapping[str, str], now: float) -> None:
        """What ``x-ratelimit-*`` tell: so many requests left, and all of them again after the reset."""
        limit, left = _number(headers.get(LIMIT)), _number(headers.get(LEFT))
        reset = seconds_of(headers.get(RESET))
        if limit is None or left is None or not reset or limit <= left:
            return
        rate = (limit - left) / reset
        self.ceiling = rate if self.ceiling is None or left <= 1 else max(self.ceiling, rate)


LIMIT = "x-ratelimit-limit-requests"
LEFT = "x-ratelimit-remaining-requests"
RESET = "x-ratelimit-reset-requests"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer says to wait, from ``retry-after-ms`` or ``retry-after``; None where it does not."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    return seconds_of(headers.get("retry-after"))


def seconds_of(text: str | None) -> float | None:
    """``"1.5"``, ``"20ms"``, ``"1s"`` or ``"6m0s"`` as seconds; None for what is none of these."""
    if text is None or not text.strip():
        return None
    plain = _number(text)
    if plain is not None:
        return plain
    total, number = 0.0, ""
    rest = text.strip().lower()
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = next((unit for unit in ("ms", "h", "m", "s", "d") if rest.startswith(unit)), None)
        amount = _number(number)
        if unit is None or amount is None:
            return None
        total, number, rest = total + amount * _UNITS[unit], "", rest[len(unit) :]
    return total if not number else None


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
