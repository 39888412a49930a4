"""A language model over 2,000 rows while its provider fails in every way, is not there, or goes away and comes back."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from benchmarks import llm_bad_rows
from benchmarks.hosted import KEY, answers, outputs_of, table_of
from benchmarks.places import docs
from benchmarks.table import Table
from pinnacle import Listener, ProviderUnavailable, pinnacle
from pinnacle.base.settings import Settings
from pinnacle.runtime.result import PredictResult
from pinnacle.testing import ServerProcess

ROWS, LATENCY_S, TIMEOUT_S = 2_000, 0.05, 2.0
FAULTS = {"429": 0.10, "500": 0.02, "hang": 0.01, "garbage": 0.01, "cut": 0.01}
OUTAGE_ROWS, PATIENCE_S, REST_S = 1_000, 3.0, 4.0
DRAIN_S, LOOK_S = 60.0, 0.02
FAULT_HEADINGS = (
    "provider", "rows", "right", "empty or wrong", "set aside", "requests", "failed", "seconds", "of clean", "holds",
)  # fmt: skip
OUTAGE_HEADINGS = (
    "outage", "after it: done", "pending", "wrong", "set aside", "raised after s", "afterwards: done", "calls",
    "needed", "holds",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """What is stored: outputs that are the server's, rows without one, and all others."""

    right: int
    pending: int
    wrong: int


def run(*, rows: int = ROWS) -> Iterator[Table]:
    chances = ", ".join(f"{chance:.0%} {kind}" for kind, chance in FAULTS.items())
    faulty = Table(f"LLM 3. {rows:,} rows, and a provider with {chances}", FAULT_HEADINGS)
    clean = add_faulty(faulty, "clean", rows, {}, None)
    add_faulty(faulty, "faulty", rows, FAULTS, clean)
    faulty.notes.append(f"a request is given up after timeout_s={TIMEOUT_S:g}")
    yield faulty
    outage = Table(
        f"LLM 3. A dead server under {OUTAGE_ROWS:,} rows, PINNACLE_OUTAGE_PATIENCE_S={PATIENCE_S:g}", OUTAGE_HEADINGS
    )
    add_outage(outage, "from the beginning", dies_after=None)
    add_outage(outage, "in the middle", dies_after=OUTAGE_ROWS // 4)
    add_listener(outage)
    outage.notes.append("the listener's worker does not give up; it is looked at when the server was away for 4 s")
    yield outage
    yield from llm_bad_rows.run(rows=rows)


def add_faulty(table: Table, name: str, rows: int, faults: dict[str, float], clean_s: float | None) -> float:
    with ServerProcess(latency_s=LATENCY_S, faults=faults) as server, table_of(rows) as url, pinnacle(url) as db:
        began = time.perf_counter()
        result = ask(db, server.url)
        seconds = time.perf_counter() - began
        column, aside = column_of(url, rows), len(db.errors())
    holds = column == Column(rows, 0, 0) and not aside
    slower = seconds / (clean_s or seconds)
    table.add(
        name, rows, column.right, column.pending + column.wrong, aside, result.requests, result.failed_requests,
        seconds, slower, holds=holds,
    )  # fmt: skip
    return seconds


def add_outage(table: Table, name: str, *, dies_after: int | None) -> None:
    """A predict that gives up, and the same predict once the server is back."""
    port = free_port()
    with table_of(OUTAGE_ROWS) as url, pinnacle(url, settings=patient(PATIENCE_S)) as db:
        with serving(port, dies_after):
            began = time.perf_counter()
            raised_after_s = 0.0
            try:
                ask(db, f"http://127.0.0.1:{port}/v1")
            except ProviderUnavailable:
                raised_after_s = time.perf_counter() - began
        then, aside = column_of(url, OUTAGE_ROWS), len(db.errors())
        with ServerProcess(latency_s=LATENCY_S, port=port) as server:
            ask(db, server.url)
            calls = server.stats()["received"]
        afterwards = column_of(url, OUTAGE_ROWS)
    holds = (
        raised_after_s > 0 and not then.wrong and not aside
        and calls == then.pending and afterwards.right == OUTAGE_ROWS
    )  # fmt: skip
    table.add(
        name, then.right, then.pending, then.wrong, aside, raised_after_s, afterwards.right, calls, then.pending,
        holds=holds,
    )  # fmt: skip


def add_listener(table: Table) -> None:
    """A worker that meets a dead server, rests, and goes on when it is back."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/v1"
    with table_of(OUTAGE_ROWS) as url, pinnacle(url) as db:
        db.add(Listener(model=model(address), key="body", select=sa.select(docs()), output="answer"))
        db.listen()
        time.sleep(REST_S)
        then, aside = column_of(url, OUTAGE_ROWS), len(db.errors())
        with ServerProcess(latency_s=LATENCY_S, port=port) as server:
            db.drain(DRAIN_S)
            calls = server.stats()["received"]
        afterwards = column_of(url, OUTAGE_ROWS)
    holds = not then.wrong and not aside and calls == then.pending and afterwards.right == OUTAGE_ROWS
    table.add(
        "under a listener", then.right, then.pending, then.wrong, aside, "-", afterwards.right, calls, then.pending,
        holds=holds,
    )  # fmt: skip


def model(address: str) -> Any:
    from pinnacle_openai import OpenAI

    return OpenAI("llm", base_url=address, api_key=KEY, timeout_s=TIMEOUT_S, max_tries=3)


def ask(db: Any, address: str) -> PredictResult:
    select = sa.select(docs())
    result: PredictResult = model(address).predict(X="body", db=db, select=select, output="answer", progress=False)
    return result


def column_of(url: str, rows: int) -> Column:
    """The whole column beside what the server answers."""
    expected, found = answers(rows), outputs_of(url, "answer")
    right = sum(found.get(key) == text for key, text in expected.items())
    pending = sum(found.get(key) is None for key in expected)
    return Column(right, pending, rows - right - pending)


def patient(seconds: float) -> Settings:
    return replace(Settings.from_environment(), outage_patience_s=seconds)


@contextmanager
def serving(port: int, answers: int | None) -> Iterator[None]:
    """A server on this port that is killed after so many answers; None for no server at all."""
    if answers is None:
        yield
        return
    server = ServerProcess(latency_s=LATENCY_S, port=port).start()

    def kill() -> None:
        while server.stats()["served"] < answers:
            time.sleep(LOOK_S)
        os.kill(server.pid, signal.SIGKILL)

    death = threading.Thread(target=kill)
    death.start()
    try:
        yield
    finally:
        death.join()
        server.close()


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
    return port
