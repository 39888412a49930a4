"""A provider that lets 20 requests a second pass: how near a pace that nobody declared comes, and that a declared one
is kept."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from benchmarks.hosted import KEY, in_process, table_of
from benchmarks.places import docs
from benchmarks.table import Table
from pinnacle import pinnacle
from pinnacle.testing import ServerProcess

LIMIT, WINDOW_S = 20, 1.0
SECONDS, SETTLING_S, REPEATS = 30.0, 3.0, 2
RATE_BOUND = 0.95
REFUSED_BOUNDS = {True: 0.02, False: 0.05}
OUTCOMES = ("served", "refused")
LEARNED_HEADINGS = (
    "limit headers", "served in 30 s", "allowed", "share", "at least", "requests after 3 s", "refused", "share",
    "at most", "holds",
)  # fmt: skip
DECLARED_HEADINGS = ("asked by", "starts", "allowed", "share", "at least", "most in a window", "at most", "holds")


def run(*, seconds: float = SECONDS, repeats: int = REPEATS) -> Iterator[Table]:
    learned = Table(f"LLM 2. A server that takes {LIMIT} requests a second and tells nobody before", LEARNED_HEADINGS)
    for headers in (True, False):
        for _ in range(repeats):
            add_learned(learned, seconds, headers=headers)
    yield learned
    declared = Table(f"LLM 2. rate_limit=({LIMIT}, {WINDOW_S:g}), declared", DECLARED_HEADINGS)
    starts = in_process(declared_starts, seconds)
    allowed, most = int(seconds / WINDOW_S) * LIMIT, most_in_a_window(starts)
    holds = len(starts) >= RATE_BOUND * allowed and most <= LIMIT
    declared.add(
        "two models, a thread each", len(starts), allowed, len(starts) / allowed, RATE_BOUND, most, LIMIT, holds=holds
    )
    waits = sorted(second - first for first, second in pairwise(starts))
    declared.notes.append(f"starts by the client's clock; the longest wait between two is {waits[-1]:.3f} s")
    yield declared


def add_learned(table: Table, seconds: float, *, headers: bool) -> None:
    with ServerProcess(latency_s=0.05, rate_limit=(LIMIT, WINDOW_S), headers=headers) as server:
        in_process(keep_asking, server.url, 1.05 * seconds)
        stats = server.stats()
    began = min([*stats["served_times"], *stats["refused_times"]])
    served = within(stats["served_times"], began, began + seconds)
    allowed = int(seconds / WINDOW_S) * LIMIT
    settled = {name: within(stats[f"{name}_times"], began + SETTLING_S, began + seconds) for name in OUTCOMES}
    requests = sum(settled.values())
    refused = settled["refused"] / requests
    holds = served >= RATE_BOUND * allowed and refused <= REFUSED_BOUNDS[headers]
    table.add(
        "with" if headers else "without", served, allowed, served / allowed, RATE_BOUND, requests, settled["refused"],
        refused, REFUSED_BOUNDS[headers], holds=holds,
    )  # fmt: skip


def within(times: Sequence[float], since: float, until: float) -> int:
    return sum(since <= at < until for at in times)


def most_in_a_window(starts: Sequence[float]) -> int:
    return max(bisect_left(starts, at + WINDOW_S) - number for number, at in enumerate(starts))


def keep_asking(server: str, seconds: float) -> None:
    """A predict over as many rows as the limit allows in so much time."""
    from pinnacle_openai import OpenAI

    ask(OpenAI("llm", base_url=server, api_key=KEY), int(seconds * LIMIT / WINDOW_S))


def declared_starts(seconds: float) -> list[float]:
    """When two models that share an account, asked by a thread each, began their requests in so much time."""
    starts: list[float] = []
    with ServerProcess(latency_s=0.05) as server:
        limit = (LIMIT, WINDOW_S)
        models = [timed_model(starts)(name, base_url=server.url, api_key=KEY, rate_limit=limit) for name in ("a", "b")]
        rows = int(seconds * LIMIT / WINDOW_S / len(models)) + LIMIT
        threads = [threading.Thread(target=ask, args=(llm, rows)) for llm in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [at for at in sorted(starts) if at < min(starts) + seconds]


def timed_model(starts: list[float]) -> Any:
    from pinnacle_openai import OpenAI

    class Timed(OpenAI):
        async def _call(self, request: Any) -> Any:
            starts.append(time.monotonic())
            return await super()._call(request)

    return Timed


def ask(llm: Any, rows: int) -> None:
    with table_of(rows) as url, pinnacle(url) as db:
        llm.predict(X="body", db=db, select=sa.select(docs()), output="answer", progress=False)
