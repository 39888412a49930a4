"""Takes each request of the fake server from its arrival to its answer: key, limit, fault, latency, body."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import MissingPlugin
from pinnacle.base.told import logger
from pinnacle.testing import azure, bodies
from pinnacle.testing.answers import Answer, Refuse, Reply, Script, unit_vector
from pinnacle.testing.batches import Batches
from pinnacle.testing.faults import Faults
from pinnacle.testing.limits import SlidingWindow, retry_after
from pinnacle.testing.record import Received, Record

try:
    from aiohttp import BodyPartReader, web
except ImportError as error:
    raise MissingPlugin("aiohttp", with_extra("testing"), purpose="the fake server") from error

MAX_BODY_BYTES = 2**30
SLOW_PIECES = 20
BOMB_BYTES = 2**26
JSON = "application/json"
EVENTS = "text/event-stream"
GARBAGE = b"<html><body>upstream connect error or disconnect/reset before headers</body>"
SILENT = {"role": "assistant", "content": None}
NO_ANSWER = Reply(SILENT)
WITHOUT_ANSWER = {
    "empty": NO_ANSWER,
    "null": NO_ANSWER,
    "filtered": Reply(SILENT, "content_filter"),
    "refused": Reply({**SILENT, "refusal": "I cannot help with that."}),
    "thinking": Reply({**SILENT, "reasoning_content": "Let me think about that."}),
}
HALVES = {"broken": "error", "length": "length"}
"""The finish reasons of half an answer."""

# vLLM's api_server has one door, which some put behind another path.
CALLS = {
    "/v1/chat/completions": bodies.chat,
    "/v1/completions": bodies.completions,
    "/generate": bodies.generate,
    "/v1": bodies.generate,
}
EMBEDDINGS = "/v1/embeddings"

log = logger(__name__)


@dataclass(frozen=True)
class Options:
    """What a fake server was asked to do; `FakeOpenAI` says what each means."""

    answer: Answer | None = None
    embed: bodies.Embed = unit_vector
    latency_s: float | Callable[[dict[str, Any]], float] = 0.0
    faults: Faults | Sequence[str | None] | Mapping[str, float] = ()
    rate_limit: tuple[int, float] | None = None
    headers: bool = True
    api_key: str | None = None
    models: Sequence[str] = ("gpt-3.5-turbo",)
    max_inputs: int | None = None
    batch_polls: int = 1
    keep_requests: int = 10_000
    refuses: Sequence[str] = ()
    batch_results: Callable[[bytes], bytes] | None = None


class Endpoints:
    """Answers requests; lives on one event loop."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.record = Record(options.keep_requests)
        self.is_refusing = False
        self.outage_status: int | None = None
        self._script = Script(options.answer)
        self._faults = options.faults if isinstance(options.faults, Faults) else Faults(options.faults)
        self._kinds = self._faults.kinds()
        self._window = SlidingWindow(*options.rate_limit) if options.rate_limit else None
        self._batches = Batches(self._run_in_batch, polls=options.batch_polls, results=options.batch_results)
        self._numbers = 0

    def protocol_factory(self) -> web.Server:
        """aiohttp's low-level server: without a router and signals it is the fastest there is.

        A request whose client has gone is cancelled.
        """
        loop = asyncio.get_running_loop()

        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)

        return web.Server(self.serve, request_factory=request, handler_cancellation=True, access_log=None)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request; whatever a script raises becomes its answer."""
        path = request.path
        if path == "/stats":
            return as_json(200, self.record.stats())
        if self.is_refusing and request.transport is not None:
            request.transport.abort()  # it was accepted just before the server went down
            return web.Response()
        self.record.arrive()
        try:
            return await self._serve(request, path)
        except Refuse as refusal:
            if refusal.status == 429:
                self.record.refuse()
            return as_json(refusal.status, refusal.body, refusal.headers)
        except Exception as error:  # the unit of work: one request, answered with 500
            log.exception("the fake server's script failed")
            message = f"the script raised {type(error).__name__}: {error}"
            return as_json(500, Refuse(500, message, type="server_error").body)
        finally:
            self.record.in_flight -= 1

    async def _serve(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        is_upload = request.content_type == "multipart/form-data"
        content = b"" if is_upload else await request.read()
        body = parse(content)
        if self.options.keep_requests:
            received = Received(
                path, body, request.headers, time.monotonic(), self.record.in_flight, dict(request.query)
            )
            self.record.requests.append(received)
        if self.outage_status is not None:
            raise Refuse(self.outage_status, "The server is down.", type="server_error")
        path = azure.as_openai(request)
        if self.options.api_key is not None and self.options.api_key != azure.key_of(request):
            raise Refuse(401, "Incorrect API key provided.", code="invalid_api_key")
        if request.method == "POST" and (path in CALLS or path == EMBEDDINGS):
            if not isinstance(body, dict):
                raise Refuse(400, "We could not parse the JSON body of your request.")
            return await self._call(request, path, body)
        return await self._manage(request, path.removeprefix("/v1/").split("/"), body)

    async def _call(self, request: web.BaseRequest, path: str, body: dict[str, Any]) -> web.StreamResponse:
        """A call of a model: within the limit, with what goes wrong, after the latency."""
        headers = self._admit()
        kind = next(self._kinds)
        if kind is not None:
            self.record.faults[kind] += 1
            if kind.isdecimal():
                raise self._error(int(kind), headers)
            if kind == "hang":
                await asyncio.Event().wait()  # until the client goes, or the server
            if kind in ("redirect", "bomb"):
                return redirect(request) if kind == "redirect" else bomb()
        self._refuse_parameters(body)
        answer = None if kind == "garbage" else self._answer(path, body, kind)
        latency = self.options.latency_s
        latency_s = latency(body) if callable(latency) else latency
        if latency_s:
            await asyncio.sleep(latency_s)
        if answer is None:
            is_stream = bodies.is_stream(body)
            garbage = b"data: " + GARBAGE + b"\n\n" if is_stream else GARBAGE
            return web.Response(body=garbage, headers={**headers, "Content-Type": EVENTS if is_stream else JSON})
        is_there = request.transport is not None and not request.transport.is_closing()
        if is_there and (kind is None or kind == "slow"):
            self.record.serve()
            self.record.count_tokens(answer.prompt_tokens, answer.completion_tokens)
        if kind in ("cut", "slow") or answer.events is not None:
            return await self._send_in_pieces(request, answer, headers, kind)
        return as_json(200, answer.whole, headers)

    def _admit(self) -> Mapping[str, str]:
        """Count the request against the limit; the headers of its answer. Raises Refuse beyond the limit."""
        if self._window is None:
            return {}
        now = time.monotonic()
        is_admitted = self._window.admit(now)
        headers = self._window.headers(now) if self.options.headers else {}
        if is_admitted:
            return headers
        if self.options.headers:
            headers.update(retry_after(self._window.wait_s(now)))
        raise too_many(headers)

    def _refuse_parameters(self, body: Mapping[str, Any]) -> None:
        """Raises Refuse for a request with a parameter that the options say is not taken."""
        for refused in self.options.refuses:
            name, _, value = refused.partition("=")
            if name in body and (not value or str(body[name]) == value):
                raise Refuse(400, f"{refused} is not supported", code="unsupported_parameter")

    def _error(self, status: int, headers: Mapping[str, str]) -> Refuse:
        if status != 429:
            return Refuse(status, f"A fault with status {status}.", headers, type="server_error")
        wait_s = self._faults.retry_after_s
        return too_many({**headers, **({} if wait_s is None else retry_after(wait_s))})

    def _answer(self, path: str, body: dict[str, Any], kind: str | None = None) -> bodies.Body:
        """What is sent; one without an answer takes no turn of the script."""
        if kind == "error":
            raise Refuse(200, "The upstream failed.", code=502, type="upstream_error")
        if path == EMBEDDINGS:
            is_null = kind in WITHOUT_ANSWER or kind in HALVES
            answer = bodies.embeddings(body, self.options.embed, is_null=is_null, max_inputs=self.options.max_inputs)
        else:
            self._numbers += 1
            answer = CALLS[path](self._numbers, body, partial(self._reply, kind))
        return answer.emptied() if kind == "empty" else answer

    def _reply(self, kind: str | None, body: dict[str, Any]) -> Reply:
        if kind in WITHOUT_ANSWER:
            return WITHOUT_ANSWER[kind]
        reply = self._script.reply(body)
        if kind not in HALVES:
            return reply
        text = reply.text or ""
        return Reply({**reply.message, "content": text[: len(text) // 2]}, HALVES[kind])

    def _run_in_batch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        whole = path if path.startswith("/v1/") else f"/v1{path}"  # as Azure has them
        answer = self._answer(whole, {**body, "stream": False})
        self.record.count_tokens(answer.prompt_tokens, answer.completion_tokens)
        return answer.whole

    async def _send_in_pieces(
        self, request: web.BaseRequest, answer: bodies.Body, headers: Mapping[str, str], kind: str | None
    ) -> web.StreamResponse:
        """A stream of events, or a whole body bit by bit; a cut one ends half-way with the connection."""
        if answer.events is None:
            content = json.dumps(answer.whole).encode()
            size = -(-len(content) // SLOW_PIECES)
            parts = [content[start : start + size] for start in range(0, len(content), size)]
            response = web.StreamResponse(headers={**headers, "Content-Type": JSON})
            response.content_length = len(content)
        else:
            parts = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in answer.events]
            parts.append(b"data: [DONE]\n\n")
            response = web.StreamResponse(headers={**headers, "Content-Type": EVENTS})
        await response.prepare(request)
        for part in parts[: len(parts) // 2] if kind == "cut" else parts:
            if kind == "slow":
                await asyncio.sleep(self._faults.slow_s / len(parts))
            await response.write(part)
        if kind == "cut" and request.transport is not None:
            request.transport.close()
        return response

    async def _manage(self, request: web.BaseRequest, parts: Sequence[str], body: Any) -> web.Response:
        """Models, files and batches."""
        batches = self._batches
        match (request.method, *parts):
            case "GET", "models":
                return as_json(200, {"object": "list", "data": [shown_model(name) for name in self.options.models]})
            case "GET", "models", *name:
                return as_json(200, shown_model("/".join(name)))
            case "POST", "files":
                return as_json(200, await self._upload(request))
            case "GET", "files", identifier:
                return as_json(200, batches.file(identifier).shown)
            case "DELETE", "files", identifier:
                return as_json(200, batches.delete_file(identifier))
            case "GET", "files", identifier, "content":
                return web.Response(body=batches.file(identifier).content, content_type="application/octet-stream")
            case "POST", "batches":
                return as_json(200, batches.create(body))
            case "GET", "batches":
                return as_json(200, {"object": "list", "data": batches.all(), "has_more": False})
            case "GET", "batches", identifier:
                return as_json(200, batches.retrieve(identifier))
            case "POST", "batches", identifier, "cancel":
                return as_json(200, batches.cancel(identifier))
        raise Refuse(404, f"Unknown request URL: {request.method} {request.path}", code="unknown_url")

    async def _upload(self, request: web.BaseRequest) -> dict[str, Any]:
        fields: dict[str, bytes] = {}
        name = "file"
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader):
                fields[part.name or ""] = bytes(await part.read())
                name = part.filename or name
        if "file" not in fields or "purpose" not in fields:
            raise Refuse(400, "A file and its purpose are needed.", code="missing_required_parameter")
        return self._batches.add_file(name, fields["purpose"].decode(), fields["file"])


def as_json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.Response(status=status, body=content, headers={**(headers or {}), "Content-Type": JSON})


def parse(content: bytes) -> Any:
    """The JSON of a body: {} of an empty one, None where it is not JSON."""
    try:
        return json.loads(content) if content else {}
    except ValueError:
        return None


def redirect(request: web.BaseRequest) -> web.Response:
    """To the same server, whose name is another host to a client."""
    port = request.url.port
    return web.Response(status=307, headers={"Location": f"http://localhost:{port}{request.path_qs}"})


@cache
def packed() -> bytes:
    return gzip.compress(bytes(BOMB_BYTES))


def bomb() -> web.Response:
    return web.Response(body=packed(), headers={"Content-Type": JSON, "Content-Encoding": "gzip"})


def too_many(headers: Mapping[str, str]) -> Refuse:
    return Refuse(429, "Rate limit reached.", headers, code="rate_limit_exceeded", type="requests")


def shown_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "pinnacle.testing"}
