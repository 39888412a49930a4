"""A fake OpenAI-compatible server on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pinnacle.base.errors import ConfigError
from pinnacle.testing.answers import Answer, unit_vector
from pinnacle.testing.bodies import Embed
from pinnacle.testing.door import HOST, Door
from pinnacle.testing.endpoints import Endpoints, Options
from pinnacle.testing.faults import Faults
from pinnacle.testing.record import Received, Record

if TYPE_CHECKING:
    from typing import Self

    from aiohttp import web

CLOSE_TIMEOUT_S = 5.0


class FakeOpenAI:
    """Serves OpenAI's API to clients on this machine for as long as its context lasts::

        with FakeOpenAI(answer=lambda request: "text", latency_s=0.05) as server:
            client = openai.OpenAI(base_url=server.url, api_key="any")

    It speaks /v1/chat/completions and /v1/completions (streams too), /v1/embeddings, /v1/models, /v1/files and
    /v1/batches, and vLLM's /generate (also at /v1). A token is a word between white space, so that usage and
    cost can be worked out by hand.

    - ``answer``: a text; texts in turn, of which the last repeats; or a function of the request's body that
      returns a text or a dict of message fields, or raises `Refuse`. The dict may also hold ``finish_reason``, the
      ``error`` that the choice ended with, and ``usage``, what is told in place of the counted words. It runs on the
      server's loop, so it must not block. By default the last user message, reversed. Answers are cut
      to the request's ``max_tokens`` words.
    - ``embed``: makes a vector of a text and a number of dimensions (8 where the request has none); by default
      `unit_vector`, a hash. May raise `Refuse`.
    - ``latency_s``: how long an answer takes; a number, or a function of the request's body. Errors come at once.
    - ``faults``: a `Faults`, or what one is made of: a dict of chances or a list of kinds in turn. They meet
      calls of models only, as the rate limit does.
    - ``rate_limit``: (n, seconds), a sliding window; beyond it requests get 429. With ``headers`` all answers
      carry x-ratelimit-*-requests and refusals Retry-After and retry-after-ms; without, refusals are bare.
    - ``api_key``: other keys get 401. By default any key is right.
    - ``max_inputs``: more texts to embed at once get 400, as providers with a limit answer.
    - ``models``: what /v1/models lists; requests may name any other.
    - ``batch_polls``: a batch is completed when it is looked at for that many times. ``batch_results``: what becomes of
      the bytes of a file of its results.
    - ``keep_requests``: how many of the last requests ``requests`` holds; 0 keeps none and costs nothing.
    - ``port``: 0 finds a free one.
    - ``refuses``: parameters that get 400, by name or as "name=value": ``["encoding_format=base64"]``.

    Azure's paths are served too: /openai/deployments/NAME/... with ``api-version`` in the query, and /openai/v1/...;
    there the header ``api-key`` holds the key.

    Raises ConfigError for options that make no sense, and MissingPlugin without aiohttp.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        embed: Embed = unit_vector,
        latency_s: float | Callable[[dict[str, Any]], float] = 0.0,
        faults: Faults | Sequence[str | None] | Mapping[str, float] = (),
        rate_limit: tuple[int, float] | None = None,
        headers: bool = True,
        api_key: str | None = None,
        models: Sequence[str] = ("gpt-3.5-turbo",),
        max_inputs: int | None = None,
        batch_polls: int = 1,
        keep_requests: int = 10_000,
        port: int = 0,
        refuses: Sequence[str] = (),
        batch_results: Callable[[bytes], bytes] | None = None,
    ) -> None:
        if isinstance(answer, Sequence) and not isinstance(answer, str) and not answer:
            raise ConfigError("answer is an empty list; give at least one text")
        options = Options(
            answer, embed, latency_s, faults, rate_limit, headers, api_key, models, max_inputs, batch_polls,
            keep_requests, refuses, batch_results,
        )  # fmt: skip
        self._endpoints = Endpoints(options)
        self._port = port
        self._thread: threading.Thread | None = None
        self._ready: Future[None] = Future()

    def __repr__(self) -> str:
        return f"FakeOpenAI({self.url if self._thread else 'not started'})"

    @property
    def root(self) -> str:
        """``http://127.0.0.1:PORT``, the address of /generate and /stats."""
        return f"http://{HOST}:{self._port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT/v1``, for OPENAI_BASE_URL."""
        return f"{self.root}/v1"

    @property
    def requests(self) -> list[Received]:
        """The last requests, refused ones included, the oldest first."""
        return list(self._record.requests)

    @property
    def received(self) -> int:
        """Requests that came, however they were answered."""
        return self._record.received

    @property
    def served(self) -> int:
        """Calls of models that were answered in full."""
        return self._record.served

    @property
    def refused(self) -> int:
        """429s sent, whether of the rate limit, a fault or a script."""
        return self._record.refused

    @property
    def in_flight(self) -> int:
        """Requests under way now; one whose client has gone is not."""
        return self._record.in_flight

    @property
    def max_in_flight(self) -> int:
        return self._record.max_in_flight

    @property
    def faults(self) -> Counter[str]:
        """How many faults there were, by kind."""
        return self._record.faults.copy()

    def stats(self) -> dict[str, Any]:
        """All counts, as /stats sends them; see `Record.stats`."""
        return self._record.stats()

    @property
    def _record(self) -> Record:
        return self._endpoints.record

    def start(self) -> Self:
        """Listen; returns once connections are accepted. Raises OSError for a port that is taken."""
        if self._thread is not None:
            raise ConfigError("a FakeOpenAI starts once; make another")
        self._door = Door(self._port)
        self._port = self._door.port
        self._thread = threading.Thread(target=self._run, name="fake-openai", daemon=True)
        self._thread.start()
        self._ready.result()
        return self

    def close(self) -> None:
        """Drop all connections and end the thread; nothing is left running."""
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def go_down(self, status: int | None = None) -> None:
        """Cut all connections and refuse new ones; with a status (503), answer every request with it instead.

        A script may call it too: its own answer is then not sent. Raises ConfigError when the server is not
        running.
        """
        self._on_loop(self._go_down, status)

    def come_up(self) -> None:
        """Serve again, on the same port."""
        self._on_loop(self._come_up)

    def _on_loop(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do it on the server's loop, where a script already is, and wait for it."""
        if self._thread is None or not self._thread.is_alive():
            raise ConfigError("the fake server is not running")
        if threading.current_thread() is self._thread:
            work(*arguments)
            return
        done: Future[None] = Future()

        def call() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # the unit of work: one order to the server; raised where it is waited for
                done.set_exception(error)
            else:
                done.set_result(None)

        self._loop.call_soon_threadsafe(call)
        done.result()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._live())
        finally:
            self._door.close()

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._server: web.Server = self._endpoints.protocol_factory()
        try:
            self._come_up()
        except BaseException as error:  # the unit of work: coming up; raised where it is waited for
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        await self._stop.wait()
        self._go_down(None)
        await self._door.settle()
        self._cut_connections()
        await self._server.shutdown(CLOSE_TIMEOUT_S)

    def _go_down(self, status: int | None) -> None:
        self._endpoints.outage_status = status
        if status is None:
            self._endpoints.is_refusing = True
            self._door.shut()
            self._cut_connections()

    def _come_up(self) -> None:
        if not self._door.is_open:
            self._door.open(self._server)
        self._endpoints.outage_status, self._endpoints.is_refusing = None, False

    def _cut_connections(self) -> None:
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
