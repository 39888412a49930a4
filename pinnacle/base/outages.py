"""Tells a provider that cannot serve now from a row that cannot be computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinnacle.base.errors import ModelError, ProviderUnavailable

THROTTLED = 429
BUSY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
CONNECTION_ERRORS = frozenset(
    {
        "APIConnectionError", "APITimeoutError",  # openai, anthropic
        "TransportError",  # httpx
        "ClientConnectionError", "ClientPayloadError", "ServerTimeoutError",  # aiohttp
        "ConnectTimeout", "ReadTimeout", "ChunkedEncodingError",  # requests
        "HTTPError", "MaxRetryError", "ProtocolError",  # urllib3, and urllib with a status of its own
    }
)  # fmt: skip
"""Classes that mean no answer was had, by name: pinnacle imports none of the libraries they are from."""


def is_outage(error: BaseException) -> bool:
    """Whether the same call may well succeed later: too many requests, no connection, no answer in time.

    Looks at the error and what it was raised from. An answer with a status of its own
    (400, 401, 404, ...) is about the request and no outage.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ModelError):  # raised by pinnacle, which has judged what it was raised from
            return isinstance(seen, ProviderUnavailable)
        status = status_of(seen)
        if status is not None:
            return status in BUSY_STATUSES
        if isinstance(seen, (ConnectionError, TimeoutError)):
            return True
        if any(cls.__name__ in CONNECTION_ERRORS for cls in type(seen).__mro__):
            return True
        seen = seen.__cause__
    return False


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error or its response carries; None where there is none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value: Any = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
                return value
    return None


def headers_of(error: BaseException) -> Mapping[str, str]:
    """The headers of the answer that an error tells of, by lower-case name; empty where it has none."""
    for holder in (error, getattr(error, "response", None)):
        headers = getattr(holder, "headers", None)
        if isinstance(headers, Mapping):
            return {str(name).lower(): str(value) for name, value in headers.items()}
    return {}
