"""Tells a provider that cannot serve now from a row that cannot be computed."""

from __future__ import annotations

from typing import Any

BUSY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
CONNECTION_ERRORS = frozenset(
    {
        "APIConnectionError", "APITimeoutError",  # openai, anthropic
        "TransportError",  # httpx
        "ClientConnectionError", "ServerTimeoutError",  # aiohttp
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
        status = _status(seen)
        if status is not None:
            return status in BUSY_STATUSES
        if isinstance(seen, (ConnectionError, TimeoutError)):
            return True
        if any(cls.__name__ in CONNECTION_ERRORS for cls in type(seen).__mro__):
            return True
        seen = seen.__cause__
    return False


def _status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value: Any = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
                return value
    return None
