"""The chain that the torture keeps fresh: two models that log every call, take random time, and can be recomputed."""

from __future__ import annotations

import os
import random
import time
from functools import cache
from pathlib import Path

from pinnacle import Listener, model

CALLS_VARIABLE = "TORTURE_CALLS"
"""The environment variable that names the folder of call logs, a file a process."""
LANGUAGE = "en"
BATCH_SIZE = 25
WINDOW = 2 * 3 * BATCH_SIZE
"""The most inputs that one crash may have computed again: for each listener those of three batches."""
LATENCY_S, LONG_S, LONG_SHARE = 0.004, 0.3, 0.003


def summary_of(body: str | None) -> str | None:
    return None if body is None else f"<{body}>"


def headline_of(summary: str | None) -> str | None:
    return None if summary is None else summary.upper()


@cache
def calls_log() -> int:
    path = Path(os.environ[CALLS_VARIABLE]) / f"{os.getpid()}.calls"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(model_name: str, inputs: list[str]) -> None:
    """Log calls before they are made, by a write that a SIGKILL cannot undo."""
    os.write(calls_log(), "".join(f"{model_name} {text}\n" for text in inputs).encode())


def dawdle(calls: int) -> None:
    """Take the time that a model takes: mostly little, sometimes long."""
    seconds = sum(random.uniform(0, LATENCY_S) for _ in range(calls))
    time.sleep(seconds + (random.uniform(0, LONG_S) if random.random() < LONG_SHARE * calls else 0.0))


@model(batch_size=BATCH_SIZE)
def summarize(body: str) -> str:
    note("summarize", [body])
    dawdle(1)
    return f"<{body}>"


@model(batch=True, batch_size=BATCH_SIZE)
def entitle(summaries: list[str]) -> list[str]:
    note("entitle", summaries)
    dawdle(len(summaries))
    return [summary.upper() for summary in summaries]


def listeners(everything: object, english: object) -> tuple[Listener, Listener]:
    """The chain: a summary of every row, and a headline of the summaries of some.

    No sweep in the background, which would heal a change that capture has lost.
    """
    return (
        Listener(model=summarize, key="body", select=everything, output="summary", sweep_every_s=0),
        Listener(model=entitle, key="summary", select=english, output="headline", unmatched="clear", sweep_every_s=0),
    )
