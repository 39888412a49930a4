"""Rows for a language model behind a server: asked by pinnacle, by a bare loop, and by the ``openai`` client.

Every client is a process of its own, so that its CPU is its own, and warms up on rows that are not timed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.bulk import require
from benchmarks.places import connected, create, docs
from benchmarks.rows import bodies
from pinnacle import pinnacle

KEY = "any"
WARM_ROWS = 64
CHILD_TIMEOUT_S = 120.0
Ask = Callable[[str], Awaitable[str]]


@dataclass(frozen=True)
class Timed:
    """How long so many rows took, on the clock and of this process's CPU."""

    rows: int
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_s / self.rows


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a new process, which ends with it."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply_async(function, arguments).get(CHILD_TIMEOUT_S)


@contextmanager
def table_of(rows: int) -> Iterator[str]:
    """The URL of an SQLite file with so many rows."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        url = f"sqlite:///{Path(directory) / 'rows.db'}"
        with connected(url) as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            create(connection, rows)
        yield url


def outputs_of(url: str, name: str) -> dict[int, Any]:
    """A column as it is stored, NULLs included, read without pinnacle; empty before it is there."""
    with connected(url) as connection:
        if name not in {column["name"] for column in sa.inspect(connection).get_columns("docs")}:
            return {}
        return {row[0]: row[1] for row in connection.exec_driver_sql(f"SELECT id, {name} FROM docs")}


def answers(rows: int) -> dict[int, str]:
    """What the fake server says to each row: its text, reversed."""
    return {number: body[::-1] for number, body in enumerate(bodies(rows), 1)}


def by_pinnacle(server: str, rows: int, places: int) -> Timed:
    """`predict` over a table of so many rows, from the first read to the last commit."""
    from pinnacle_openai import OpenAI

    llm = OpenAI("llm", base_url=server, api_key=KEY, max_batch_size=places)
    with table_of(WARM_ROWS) as url, pinnacle(url) as db:
        llm.predict(X="body", db=db, select=sa.select(docs()), output="answer", progress=False)
    with table_of(rows) as url, pinnacle(url) as db:
        began, cpu = time.perf_counter(), time.process_time()
        llm.predict(X="body", db=db, select=sa.select(docs()), output="answer", progress=False)
        timed = Timed(rows, time.perf_counter() - began, time.process_time() - cpu)
        require(outputs_of(url, "answer") == answers(rows), "the column is not what the server said")
    return timed


def by_aiohttp(server: str, rows: int, places: int) -> Timed:
    """The texts alone, posted by a loop of one's own: no table, no limit, no retry."""
    return asyncio.run(_by_aiohttp(server, rows, places))


async def _by_aiohttp(server: str, rows: int, places: int) -> Timed:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(body: str) -> str:
            message = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": body}]}
            headers = {"Authorization": f"Bearer {KEY}"}
            async with session.post(f"{server}/chat/completions", json=message, headers=headers) as response:
                answer: str = (await response.json())["choices"][0]["message"]["content"]
                return answer

        return await timed_loop(ask, rows, places)


def by_openai(server: str, rows: int, places: int) -> Timed:
    """The same loop around the ``openai`` client with its default transport."""
    return asyncio.run(_by_openai(server, rows, places))


async def _by_openai(server: str, rows: int, places: int) -> Timed:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=server, api_key=KEY) as client:

        async def ask(body: str) -> str:
            messages: Any = [{"role": "user", "content": body}]
            answer = await client.chat.completions.create(model="gpt-3.5-turbo", messages=messages)
            return answer.choices[0].message.content or ""

        return await timed_loop(ask, rows, places)


async def timed_loop(ask: Ask, rows: int, places: int) -> Timed:
    """So many requests in flight at any time, after a warm-up."""
    await asked(ask, WARM_ROWS, places)
    began, cpu = time.perf_counter(), time.process_time()
    found = await asked(ask, rows, places)
    timed = Timed(rows, time.perf_counter() - began, time.process_time() - cpu)
    require(found == answers(rows), "the answers are not what the server said")
    return timed


async def asked(ask: Ask, rows: int, places: int) -> dict[int, str]:
    waiting, found = iter(enumerate(bodies(rows), 1)), dict[int, str]()

    async def work() -> None:
        for number, body in waiting:
            found[number] = await ask(body)

    await asyncio.gather(*(work() for _ in range(places)))
    return found
