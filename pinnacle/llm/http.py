"""JSON over HTTP for hosted models: one pool of connections a process, on aiohttp.

A client library's own transport costs several times the CPU of a request; what a table
needs is a body out, a body in, and the headers.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import json
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from pinnacle.base import forks, loop
from pinnacle.base.destinations import Destination, server_of
from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import MissingPlugin, ModelUnavailable, NoAnswer
from pinnacle.base.outages import BUSY_STATUSES
from pinnacle.base.redaction import redacted
from pinnacle.llm.certificates import Certificate, tls_context
from pinnacle.llm.proxies import proxy_of
from pinnacle.llm.verdict import Unreadable

MAX_SHOWN = 300
MAX_ANSWER_BYTES = 32 * 2**20
MAX_ERROR_BYTES = 2**20
CLOSE_TIMEOUT_S = 2.0


class HttpError(Exception):
    """An answer with an error's status; ``body`` is its JSON, or its text."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str], body: Any) -> None:
        self.status, self.headers, self.body = status, headers, body
        super().__init__(f"HTTP {status}: {message}")


@dataclass(frozen=True)
class HttpClient:
    """Posts JSON and reads JSON. ``headers`` go with every request and are in no message or repr, nor is ``query``.

    Proxies are those of the environment (`proxy_of`), authorities and a client's certificate as `tls_context` says.
    ``max_answer_bytes``: of one answer, unpacked. ``bound``: the only server that is asked, where that matters.
    """

    connect_timeout_s: float = 10.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_answer_bytes: int = MAX_ANSWER_BYTES
    ca_file: str | None = None
    certificate: Certificate | None = None
    bound: Destination | None = None

    async def post(
        self, url: str, body: Any, *, headers: Mapping[str, str] | None = None, query: Mapping[str, str] | None = None
    ) -> tuple[Any, Mapping[str, str]]:
        """The answer's JSON, and its headers by lower-case name; ``headers`` and ``query`` of this request win.

        Raises HttpError for a status from 300 (redirects are not followed), NoAnswer for a body that is too long,
        Unreadable for one that is no JSON or no HTTP, ModelUnavailable for a server that is not trusted, and aiohttp's
        errors where there was no answer. Cancelling it closes the connection.
        """
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
        if self.bound is not None and server_of(url) != self.bound:
            raise ModelUnavailable(
                f"{server_of(url).setting} is not {self.bound.setting}, which the model's keys are for"
            )
        way, own = self._way(url)
        sent = merged({"content-type": "application/json"}, self.headers, headers or {}, own)
        options = {"params": asked} if (asked := {**self.query, **(query or {})}) else {}
        async with (
            _explained(url),
            _session() as session,
            session.post(
                url, data=data, headers=sent, timeout=_timeout(self.connect_timeout_s), allow_redirects=False,
                **options, **way,
            ) as response,
        ):  # fmt: skip
            seen = {name.lower(): value for name, value in response.headers.items()}
            if response.status >= 300:
                raise _error(response.status, await _beginning(response, MAX_ERROR_BYTES), seen)
            return _json(await self._whole(response)), seen

    def _way(self, url: str) -> tuple[dict[str, Any], dict[str, str]]:
        """How connections to an address are made, and the headers that this takes."""
        scheme, proxy = urlsplit(url).scheme, self._proxies.get(url, "")
        if proxy == "":
            proxy = self._proxies[url] = proxy_of(url)
        way, own = ({}, {}) if proxy is None else _through(proxy, is_tunnel=scheme == "https")
        if scheme == "https" or (proxy or "").startswith("https://"):
            way["ssl"] = tls_context(self.ca_file, self.certificate)
        return way, own

    @cached_property
    def _proxies(self) -> dict[str, str | None]:
        """By address: the environment is read once, as by the ``openai`` library."""
        return {}

    async def _whole(self, response: Any) -> bytearray:
        """An answer's body; what is too long is not read to its end, and its connection is closed."""
        raw = await _beginning(response, self.max_answer_bytes)
        if len(raw) > self.max_answer_bytes:
            raise NoAnswer(
                f"the answer is longer than {self.max_answer_bytes:,} bytes, unpacked; max_answer_bytes= allows more"
            )
        return raw


def _through(proxy: str, *, is_tunnel: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """By a proxy: its user and password apart, for errors tell its address; and the headers where it is no tunnel."""
    parts = urlsplit(proxy)
    way: dict[str, Any] = {"proxy": parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()}
    if parts.username is None:
        return way, {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    shown = {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    return ({**way, "proxy_headers": shown}, {}) if is_tunnel else (way, shown)


@asynccontextmanager
async def _explained(url: str) -> AsyncIterator[None]:
    """Around a request: an unknown authority is told with what to do, for waiting does not mend it; and what is no HTTP
    as that, for aiohttp gives it a status that nobody sent."""
    aiohttp = _aiohttp()
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise ModelUnavailable(
            f"the certificate of {urlsplit(url).netloc} is not trusted here: {error.certificate_error}; name its "
            "authority's file by ca_file= or SSL_CERT_FILE"
        ) from error
    except aiohttp.ClientHttpProxyError as error:  # its status is the proxy's: 403 is no row's fault
        if error.status >= 500 or error.status in BUSY_STATUSES:
            told = f"from the proxy, on the way to {urlsplit(url).netloc}: {error.message[:MAX_SHOWN]}"
            raise HttpError(error.status, told, {}, None) from error
        raise ModelUnavailable(
            f"the proxy makes no way to {urlsplit(url).netloc}: HTTP {error.status}: {error.message[:MAX_SHOWN]}; see "
            "HTTPS_PROXY and NO_PROXY"
        ) from error
    except aiohttp.ClientResponseError as error:
        raise Unreadable(f"the answer is no HTTP: {error.message[:MAX_SHOWN]}") from None


def merged(*headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of which later ones win, whatever their capitals."""
    named = {name.lower(): (name, value) for some in headers for name, value in some.items()}
    return dict(named.values())


async def _beginning(response: Any, most: int) -> bytearray:
    """A body to its end, or a little more than ``most`` bytes of it, after which the connection is closed."""
    raw = bytearray()
    async for piece in response.content.iter_any():
        raw += piece
        if len(raw) > most:
            response.close()
            break
    return raw


def _json(raw: bytearray) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the answer is no JSON, but {_shown(raw)}") from error


def _error(status: int, raw: bytearray, headers: Mapping[str, str]) -> HttpError:
    if status < 400:
        host = urlsplit(headers.get("location", "")).hostname
        told = (
            f"it leads on to {host or 'another address'}, which is not followed; give the address that answers itself"
        )
        return HttpError(status, told, headers, None)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return HttpError(status, _shown(raw), headers, raw.decode("utf-8", "replace"))
    told = body.get("error", body) if isinstance(body, dict) else body
    message = told.get("message", told) if isinstance(told, dict) else told
    return HttpError(status, _cut(str(message)), headers, body)


def _shown(raw: bytearray) -> str:
    return repr(_cut(raw[:MAX_ERROR_BYTES].decode("utf-8", "replace")))


def _cut(text: str) -> str:
    """The beginning of a text, redacted first: of a key that was cut, less would be known."""
    return redacted(text[: 20 * MAX_SHOWN])[:MAX_SHOWN]


_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
_making = forks.lock()


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


def _renew() -> None:
    """The parent's connections are not closed here, also not at the end."""
    forks.leave_to_parent(*_sessions.values())
    _sessions.clear()


forks.renew_in_child(_renew)


def _timeout(connect_s: float) -> Any:
    return _aiohttp().ClientTimeout(total=None, sock_connect=connect_s)


def _aiohttp() -> Any:
    try:
        import aiohttp
    except ImportError as error:
        raise MissingPlugin("aiohttp", with_extra("http"), purpose="models behind HTTP") from error
    return aiohttp
