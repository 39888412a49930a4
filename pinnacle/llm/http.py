"""JSON over HTTP for hosted models: one pool of connections a process, on aiohttp.

A client library's own transport costs several times the CPU of a request; what a table
needs is a body out, a body in, and the headers.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import threading
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pinnacle.base import loop
from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import MissingPlugin
from pinnacle.llm.sending import Unreadable

MAX_SHOWN = 300
CLOSE_TIMEOUT_S = 2.0


class HttpError(Exception):
    """An answer with an error's status; ``body`` is its JSON, or its text."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str], body: Any) -> None:
        self.status, self.headers, self.body = status, headers, body
        super().__init__(f"HTTP {status}: {message}")


@dataclass(frozen=True)
class HttpClient:
    """Posts JSON and reads JSON. ``headers`` go with every request and are in no message or repr."""

    connect_timeout_s: float = 10.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def post(self, url: str, body: Any) -> tuple[Any, Mapping[str, str]]:
        """The answer's JSON, and its headers by lower-case name.

        Raises HttpError for a status from 400, Unreadable for a body that is no JSON, and
        aiohttp's errors where there was no answer. Cancelling it closes the connection.
        """
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
        headers = {"content-type": "application/json", **self.headers}
        async with (
            _session() as session,
            session.post(url, data=data, headers=headers, timeout=_timeout(self.connect_timeout_s)) as response,
        ):
            raw = await response.read()
            seen = {name.lower(): value for name, value in response.headers.items()}
            if response.status >= 400:
                raise _error(response.status, raw, seen)
            try:
                return json.loads(raw), seen
            except ValueError as error:
                raise Unreadable(f"the answer is no JSON, but {_shown(raw)}") from error


def _error(status: int, raw: bytes, headers: Mapping[str, str]) -> HttpError:
    try:
        body = json.loads(raw)
    except ValueError:
        return HttpError(status, _shown(raw), headers, raw.decode("utf-8", "replace"))
    told = body.get("error", body) if isinstance(body, dict) else body
    message = told.get("message", told) if isinstance(told, dict) else told
    error = HttpError(status, str(message)[:MAX_SHOWN], headers, body)
    error.code = told.get("code") if isinstance(told, dict) else None  # type: ignore[attr-defined]
    return error


def _shown(raw: bytes) -> str:
    return repr(raw[:MAX_SHOWN].decode("utf-8", "replace"))


_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
_making = threading.Lock()


@asynccontextmanager
async def _session() -> AsyncIterator[Any]:
    """The session of pinnacle's own loop, which lives as long as the process; on a passing loop one of its own."""
    aiohttp = _aiohttp()
    if loop.is_passing():
        async with aiohttp.ClientSession() as session:
            yield session
        return
    here = asyncio.get_running_loop()
    with _making:
        session = _sessions.get(here)
        if session is None or session.closed:
            # The limiter says how many; cookies would tie rows together.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            if not _sessions:
                atexit.register(_close_all)
            _sessions[here] = session
    yield session


def _close_all() -> None:
    """Close connections while the loop still runs, so that none is left to be warned of."""
    for session in list(_sessions.values()):
        loop.start(session.close()).outcome.exception(timeout=CLOSE_TIMEOUT_S)


def _timeout(connect_s: float) -> Any:
    return _aiohttp().ClientTimeout(total=None, sock_connect=connect_s)


def _aiohttp() -> Any:
    try:
        import aiohttp
    except ImportError as error:
        raise MissingPlugin("aiohttp", with_extra("http"), purpose="models behind HTTP") from error
    return aiohttp
