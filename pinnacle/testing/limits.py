"""The rate limit of the fake server: a sliding window, told to clients in OpenAI's headers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from pinnacle.base.errors import ConfigError


class SlidingWindow:
    """Admits ``count`` requests in any ``window_s`` seconds; refused requests do not count against it."""

    def __init__(self, count: int, window_s: float) -> None:
        if count < 1 or window_s <= 0:
            raise ConfigError(f"rate_limit is (requests, seconds), both above 0, not {(count, window_s)!r}")
        self.count, self.window_s = count, window_s
        self._admitted: deque[float] = deque()

    def admit(self, now: float) -> bool:
        """Count a request at this monotonic time, or say no."""
        while self._admitted and self._admitted[0] <= now - self.window_s:
            self._admitted.popleft()
        if len(self._admitted) >= self.count:
            return False
        self._admitted.append(now)
        return True

    def wait_s(self, now: float) -> float:
        """Seconds until a request would be admitted."""
        return self._admitted[0] + self.window_s - now if len(self._admitted) >= self.count else 0.0

    def headers(self, now: float) -> dict[str, str]:
        """What remains; the reset is, as OpenAI defines it, the time until all of the limit is there again."""
        return {
            "x-ratelimit-limit-requests": str(self.count),
            "x-ratelimit-remaining-requests": str(self.count - len(self._admitted)),
            "x-ratelimit-reset-requests": in_words(self._admitted[-1] + self.window_s - now if self._admitted else 0.0),
        }


def retry_after(wait_s: float) -> Mapping[str, str]:
    """The headers that ask a client to wait: whole seconds, as HTTP has it, and OpenAI's milliseconds."""
    return {"Retry-After": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}


def in_words(duration_s: float) -> str:
    """A duration as OpenAI writes it: "0s", "20ms", "1.2s", "6m0s", "1h0m0s"; rounded up to milliseconds."""
    milliseconds = math.ceil(duration_s * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{milliseconds / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
