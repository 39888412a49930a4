"""Models that write one byte for every input they compute, so that calls are counted across kills."""

from __future__ import annotations

import asyncio
import os
import time
from functools import cache

from pinnacle import FunctionModel, model

CALLS_LOG = "KILL_JOB_CALLS"
"""The environment variable that names the file of bytes."""
SECONDS_A_ROW = 5e-5


@cache
def calls_log() -> int:
    return os.open(os.environ[CALLS_LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@model(batch_size=200)
def by_value(body: str) -> str:
    os.write(calls_log(), b".")
    time.sleep(SECONDS_A_ROW)
    return body[::-1]


@model(batch=True, batch_size=100)
def by_batch(texts: list[str]) -> list[str]:
    os.write(calls_log(), b"." * len(texts))
    time.sleep(SECONDS_A_ROW * len(texts))
    return [text[::-1] for text in texts]


@model(batch_size=50, concurrency=8)
async def in_coroutines(body: str) -> str:
    os.write(calls_log(), b".")
    await asyncio.sleep(SECONDS_A_ROW)
    return body[::-1]


MODELS: dict[str, FunctionModel] = {each.identifier: each for each in (by_value, by_batch, in_coroutines)}


def window(identifier: str) -> int:
    """The most inputs that one kill may make anew: rows computed and not yet committed."""
    killed = MODELS[identifier]
    return (killed.batch_size or 0) * ((killed.concurrency or 1) + 2)
