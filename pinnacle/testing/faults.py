"""What goes wrong on the fake server, and when: by chance from a seed, or request by request as scripted."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate, repeat
from random import Random

from pinnacle.base.errors import ConfigError

KINDS = (
    "hang", "garbage", "cut", "slow", "redirect", "bomb",
    "empty", "null", "error", "broken", "filtered", "refused", "thinking", "length",
)  # fmt: skip


@dataclass(frozen=True)
class Faults:
    """Which requests go wrong, and how.

    ``plan`` maps a kind to its chance, drawn from ``seed`` for each request in the order of arrival, or
    lists the kinds in turn with None for a request that goes well; after the list all do.

    The kinds: an error status, "400" to "599", sent at once; "hang" never answers; "garbage" is a 200 whose
    body is not JSON; "cut" closes the connection in the middle of the body; "slow" sends the body in pieces
    over ``slow_s`` seconds; "redirect" is a 307 that leads to the same server by another name, and "bomb" a small body
    that unpacks to 64 MB. These are 200s without an answer: "empty" has no choices (or data, or text), "null" null
    content, "error" an error object; "broken" is half an answer that ended with the finish reason "error", "length" one
    that ended at the limit of tokens, "filtered" ended with "content_filter", "refused" is a refusal, and "thinking"
    reasoning alone. For embeddings all of these but "empty" and "error" are null. A "429" is bare unless
    ``retry_after_s`` says what its Retry-After and retry-after-ms ask for.

    Raises ConfigError for a kind that does not exist and for chances that are not.
    """

    plan: Mapping[str, float] | Sequence[str | None]
    seed: int = 0
    retry_after_s: float | None = None
    slow_s: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.plan, str):
            raise ConfigError(f"faults are a dict of chances or a list of kinds, not {self.plan!r}")
        for kind in self.plan:
            if kind is not None:
                check_kind(kind)
        if isinstance(self.plan, Mapping):
            chances = self.plan.values()
            if min(chances, default=0) < 0 or sum(chances) > 1 + 1e-9:
                raise ConfigError(f"chances are at least 0 and at most 1 together, not {dict(self.plan)!r}")

    def kinds(self) -> Iterator[str | None]:
        """The fault of each request in turn, without end; None for a request that goes well."""
        if isinstance(self.plan, Mapping):
            generator = Random(self.seed)
            kinds = [*self.plan, None]
            bounds = list(accumulate(self.plan.values()))
            while True:
                yield kinds[bisect(bounds, generator.random())]
        yield from self.plan
        yield from repeat(None)


def check_kind(kind: str) -> None:
    if kind in KINDS or (kind.isdecimal() and 400 <= int(kind) <= 599):
        return
    near = get_close_matches(kind, KINDS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are error statuses and {', '.join(map(repr, KINDS))}."
    raise ConfigError(f"no fault {kind!r}; {hint}")
