"""What the fake server remembers: the requests it received and the counts that tests and benchmarks read."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_TIMES = 200_000


@dataclass(frozen=True, slots=True)
class Received:
    """One request: its JSON body ({} without one), its headers without regard to case, its query, and when it came.

    ``at`` is ``time.monotonic()``; ``in_flight`` counts the requests then under way, this one included.
    Headers hold the API key and are left out of the repr.
    """

    path: str
    body: Any
    headers: Mapping[str, str] = field(repr=False)
    at: float
    in_flight: int
    query: Mapping[str, str] = field(default_factory=dict, repr=False)


class Record:
    """Counts of one server, written by its loop alone and read from any thread."""

    def __init__(self, keep_requests: int) -> None:
        self.started = time.monotonic()
        self.requests: deque[Received] = deque(maxlen=keep_requests)
        self.received = self.served = self.refused = 0
        self.in_flight = self.max_in_flight = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.faults: Counter[str] = Counter()
        self._served_at: deque[float] = deque(maxlen=MAX_TIMES)
        self._refused_at: deque[float] = deque(maxlen=MAX_TIMES)

    def arrive(self) -> None:
        self.received += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def serve(self) -> None:
        self.served += 1
        self._served_at.append(time.monotonic())

    def refuse(self) -> None:
        self.refused += 1
        self._refused_at.append(time.monotonic())

    def count_tokens(self, prompt: int, completion: int) -> None:
        self.prompt_tokens += prompt
        self.completion_tokens += completion

    def stats(self) -> dict[str, Any]:
        """All counts, and the times of what was served and refused in seconds since the server started."""
        return {
            "received": self.received,
            "served": self.served,
            "refused": self.refused,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "faults": dict(self.faults),
            "served_times": [round(at - self.started, 4) for at in self._served_at],
            "refused_times": [round(at - self.started, 4) for at in self._refused_at],
        }
