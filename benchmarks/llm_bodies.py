"""Answers without measure, such as gzip that unpacks to gigabytes: what they cost, and how soon they end."""

from __future__ import annotations

import asyncio
import gzip
import io
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from benchmarks.hosted import in_process
from benchmarks.table import Table
from pinnacle.testing.answers import question

MEGABYTE = 1 << 20
BOMB_MB, BODY_MB, LIMIT_S = 2048, 600, 8.0
GROWTH_BOUND_MB, TRIES, LATE_S = 100, 2, 10.0
"""A request that alone meets no answer is sent once more."""

HEADINGS = ("the body", "memory grew by", "at most", "seconds", "at most", "told", "holds")
KINDS = {
    "bomb": f"gzip of 2 MB that is {BOMB_MB} MB", "refusal": "the same, with status 400",
    "large": f"{BODY_MB} MB", "chunked": f"{BODY_MB} MB, whose length is not told", "drip": "a byte a second",
}  # fmt: skip


def run() -> Iterator[Table]:
    table = Table(f"LLM 6. Bodies without measure; timeout_s={LIMIT_S:g}", HEADINGS)
    url = Bodies().url
    for kind, told in KINDS.items():
        grew_mb, seconds, error = in_process(asked, url, kind)
        most_s = TRIES * LIMIT_S + LATE_S
        holds = grew_mb < GROWTH_BOUND_MB and seconds < most_s
        table.add(told, f"{grew_mb} MB", f"{GROWTH_BOUND_MB} MB", seconds, most_s, error, holds=holds)
    yield table


def asked(url: str, kind: str) -> tuple[int, float, str]:
    """Megabytes that the process grew by at its largest, seconds, and the error of a call, after one that is sound."""
    from pinnacle.ext.llm import OpenAI

    model = OpenAI("m", base_url=url, api_key="any", max_tries=1, timeout_s=LIMIT_S)
    model.predict("sound")
    before, began = peak_mb(), time.monotonic()
    try:
        model.predict(kind)
    except Exception as error:  # the unit of work: one call, whose error is the figure
        return peak_mb() - before, time.monotonic() - began, type(error).__name__
    return peak_mb() - before, time.monotonic() - began, "none"


def peak_mb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) >> 10


class Bodies:
    """A server in a thread whose answer is what the question names."""

    def __init__(self) -> None:
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb") as file:
            for _ in range(BOMB_MB):
                file.write(bytes(MEGABYTE))
        self._bomb, self._up = packed.getvalue(), threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True).start()
        self._up.wait()

    async def _live(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._up.set()
        await asyncio.Event().wait()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        kind = question(await request.json())
        if kind in ("bomb", "refusal"):
            status = 200 if kind == "bomb" else 400
            return web.Response(status=status, body=self._bomb, headers={"Content-Encoding": "gzip"})
        if kind not in KINDS:
            return web.json_response({"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]})
        response = web.StreamResponse()
        if kind == "large":
            response.content_length = BODY_MB * MEGABYTE
        await response.prepare(request)
        with suppress(ConnectionError):  # the client hangs up, as it should
            for _ in range(BODY_MB):
                await response.write(b" " if kind == "drip" else bytes(MEGABYTE))
                await asyncio.sleep(1.0 if kind == "drip" else 0.0)
        return response
