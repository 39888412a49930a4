"""Learns how fast a provider lets an account go: from its headers, and from its refusals.

Each refusal lowers the rate a little, and never leaves it above what was taken; each answer
raises it by so little that in balance about one request in forty is refused. Where
headers tell the limit, the rate stays below it, and hardly any is. Refusals by chance, of
which as many come at a slower pace, are borne. Pure arithmetic on times that it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

STEP_DOWN, STEP_UP, STEP_UP_TOLD = 0.01, 0.0003, 0.0001
"""Of the rate, for a refusal, and for an answer of a provider that tells nothing or tells its limit; their ratio is the
share of refusals in balance."""

HURRY_S = 10.0
"""So long without a refusal doubles the steps up, and so on: the limit is elsewhere now."""

SHORTEST_S = 1.0
"""Limits are for a second, for a minute, ...: for less than a second none is."""

BELOW_CEILING = 0.965
"""A window that requests reach evenly is met exactly at its limit: this leaves room for those that come late."""

FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_GROWTH = 0.05, 4.0, 1.4
"""After a refusal that does not say how long to wait; longer each time while nothing is taken."""

LOOK_BACK, REMEMBERED = 24, 2048

CHANCE_LEAST, CHANCE_MOST, CHANCE_LOOK_BACK = 0.2, 0.9, 64
CHANCE_S, STEP_UP_BY_CHANCE, MOST_RATE = 10.0, 0.05, 10_000.0
"""A share of refusals that going slower has not lowered is nobody's limit. For so long it is borne, and answers raise
the rate by such a step."""

LONGEST_WAIT_S = 120.0
LEAST_RATE = 0.2
BURST_S = 0.02
"""A start that came late may be made up for by earlier ones within this time."""


class Pace:
    """The learned pace of one account; ``rate`` in starts a second, None while nothing was ever refused.

    A request that is told with an answer or a refusal began at ``started``, by default just before.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self.ceiling: float | None = None
        self._limit: float | None = None
        self.paused_until = float("-inf")
        self._next = self._slowed_at = self._taken_at = float("-inf")
        self._lowered_at, self._chance, self._chance_ends = float("inf"), 0.0, float("-inf")
        self._pause_s = FIRST_PAUSE_S
        self._starts: deque[float] = deque(maxlen=REMEMBERED)
        self._refusals: deque[float] = deque(maxlen=REMEMBERED)

    def wait_s(self, now: float) -> float:
        """Seconds until the next start; not positive when it may be now."""
        return max(self.paused_until - now, self._next - now if self.rate is not None else 0.0)

    def started(self, now: float) -> None:
        self._starts.append(now)
        if self.rate is not None:
            self._next = max(self._next, now - BURST_S) + 1 / self.rate

    def accepted(self, now: float, headers: Mapping[str, str], started: float | None = None) -> None:
        """An answer that was no refusal."""
        self._taken_at = max(self._taken_at, now if started is None else started)
        self._read(headers)
        if self.rate is not None:
            step = STEP_UP if self.ceiling is None else STEP_UP_TOLD
            if now < self._chance_ends:
                self._set(self.rate * (1 + STEP_UP_BY_CHANCE))
                return
            self._set(self.rate * (1 + step * 2 ** min(10.0, (now - self._slowed_at) / HURRY_S)))

    def refused(
        self, now: float, headers: Mapping[str, str], started: float | None = None, *, most_s: float = LONGEST_WAIT_S
    ) -> None:
        """A 429: go slower, and where most are refused no faster than what was taken, after at most ``most_s``.

        One among many that are taken is no reason to stop: some services refuse at random.
        """
        began = now if started is None else started
        self._refusals.append(began)
        self._read(headers)
        wait_s = retry_after_s(headers)
        is_new = started is None or began > self._slowed_at
        if wait_s is None and self._is_by_chance(now, began):
            return
        if self.rate is not None and is_new:
            self._set(self.rate * (1 - STEP_DOWN))
        if wait_s is not None or self._are_most_refused(began):
            slower = self._starts_since_lowered(began)
            if not (is_new and 0 < slower < LOOK_BACK):
                taken = self._taken_rate(now)
                if self.rate is not None:
                    # What was taken before the limit was lowered says too much, but at twice the limit half is refused.
                    is_still = is_new and slower > 0 and wait_s is None
                    taken = min(taken, self.rate / 2 if is_still else self.rate)
                self._set(taken)
                self._lowered_at = now if is_new else self._lowered_at
            if is_new:
                is_first = self._taken_at > min(self._slowed_at, self._lowered_at)
                self._pause_s = FIRST_PAUSE_S if is_first else min(LONGEST_PAUSE_S, PAUSE_GROWTH * self._pause_s)
            if wait_s is None:
                wait_s = self._pause_s if is_new else 0.0
            self.paused_until = max(self.paused_until, now + min(wait_s, most_s))
        if is_new:
            self._slowed_at = now

    def _set(self, rate: float) -> None:
        if self.ceiling is not None:
            rate = min(rate, self.ceiling * BELOW_CEILING)
        self.rate = min(MOST_RATE, max(LEAST_RATE, rate))

    def _are_most_refused(self, started: float) -> bool:
        """Of a request and those just before it; what began later has met no answer yet."""
        return self._refused_share(started, LOOK_BACK) >= 0.5

    def _is_by_chance(self, now: float, started: float) -> bool:
        """Whether a refusal is one of those that come at any pace, and slower would only be slower.

        That is seen once the rate was lowered to what was taken, and as many are refused still: then it was too low.
        A limit that is lower still takes a burst first, and refuses what follows.
        """
        if now < self._chance_ends:
            if self._refused_share(started, CHANCE_LOOK_BACK) < (1 + self._chance) / 2:
                return True
            self._chance_ends = float("-inf")
            return False
        slower = [at for at in self._starts if self._lowered_at < at <= started]
        if self.rate is None or len(slower) < LOOK_BACK:
            return False
        half = len(slower) // 2
        share, earlier = self._refused_share(started, len(slower)), self._refused_share(slower[half - 1], half)
        if not CHANCE_LEAST <= share <= CHANCE_MOST or earlier < share / 2:
            return False
        self._chance, self._chance_ends, self._lowered_at = share, now + CHANCE_S, float("inf")
        self._set(self.rate / (1 - share))
        return True

    def _starts_since_lowered(self, started: float) -> int:
        return sum(self._lowered_at < at <= started for at in self._starts)

    def _refused_share(self, started: float, count: int) -> float:
        """Of so many requests that started by then."""
        before = [at for at in self._starts if at <= started][-count:]
        since = before[0] if before else started
        refused = sum(since <= at <= started for at in self._refusals)
        return refused / max(1, sum(since <= at <= started for at in self._starts))

    def _taken_rate(self, now: float) -> float:
        """What was started and not refused, at its highest over any time until now from `SHORTEST_S`.

        Refusals come soon, and answers may take long: what met neither yet counts as taken.
        """
        best = count = 0.0
        changes = [(-at, 1) for at in self._starts] + [(-at, -1) for at in self._refusals]
        for minus_at, change in sorted(changes):  # the latest first, and what was refused is out before it is in
            count += change
            best = max(best, count / max(SHORTEST_S, now + minus_at))
        return best

    def _read(self, headers: Mapping[str, str]) -> None:
        """What ``x-ratelimit-*`` tell: so many requests left, and all of them again after the reset.

        For a bucket and for a sliding window that is the rate when nothing is left, and less before; for a
        window that starts at fixed times it may be too high, and refusals tell.
        """
        limit, left = _number(headers.get(LIMIT)), _number(headers.get(LEFT))
        reset = seconds_of(headers.get(RESET))
        if limit is None or left is None or not reset or limit <= left:
            return
        known = self.ceiling if limit == self._limit and self.ceiling is not None else 0.0
        self._limit, self.ceiling = limit, max(known, (limit - left) / reset)


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
