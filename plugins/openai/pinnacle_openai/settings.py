"""What a user says of the client: which settings do something here, and which hold a secret that would be stored."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pinnacle import ConfigError
from pinnacle.plugin import is_likely_secret, meant_by

SECRET_PREFIX = "env:"
HONOURED = frozenset({"organization", "project", "default_headers", "default_query"})
INSTEAD = {
    "api_key": "it would be stored with the model; pass api_key= instead",
    "admin_api_key": "it would be stored with the model; pass api_key= instead",
    "webhook_secret": "it would be stored with the model, and nothing here needs it",
    "azure_ad_token": "it would be stored with the model; pass default_headers={'Authorization': 'env:NAME'}",
    "base_url": "pass base_url=",
    "azure_endpoint": "pass base_url=, with api_version=",
    "azure_deployment": "pass it as model_name=",
    "api_version": "pass api_version=",
    "timeout": "pass timeout_s= and connect_timeout_s=",
    "max_retries": "pass max_tries=",
    "http_client": "proxies are those of the environment; pass ca_file= and client_certificate= for certificates",
}
REQUEST_OPTIONS = frozenset({"extra_body", "extra_headers", "extra_query", "timeout"})
"""What goes beside the parameters of a request, as with the ``openai`` library."""

SECRET_FIELDS = frozenset({
    "access_token", "api_key", "apikey", "auth_token", "authorization", "password", "secret", "secret_key",
})  # fmt: skip
"""Fields of a request's body that are no parameters of a model."""

HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
UNBROKEN = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


def check_client_kwargs(given: Any) -> None:
    """ConfigError for a setting that does nothing here, is none, or holds a secret."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"client_kwargs is a dict of settings of the openai client, not {given!r}")
    for name in given:
        if name not in HONOURED:
            remedy = INSTEAD.get(name, f"it takes {', '.join(sorted(HONOURED))}")
            raise ConfigError(f"client_kwargs holds {name}, which is not taken from there: {remedy}")
    for name in ("organization", "project"):
        if not isinstance(given.get(name), str | None):
            raise ConfigError(f"{name} in client_kwargs is text, not {given[name]!r}")
    for name in ("default_headers", "default_query"):
        check_texts(name, given.get(name) or {})


def check_texts(name: str, given: Any) -> None:
    """ConfigError for headers or a query that are none, or of which one is a secret in plain text."""
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f"{name} is a dict of names to text, not {type(given).__name__}")
    for key, value in given.items():
        is_scalar = isinstance(value, str | int | float)
        if not is_scalar or ("headers" in name and not isinstance(value, str)):
            raise ConfigError(f"{name} has {key!r}, whose value is no text, but a {type(value).__name__}")
        if "headers" in name and not (HEADER.fullmatch(key) and UNBROKEN.fullmatch(value)):
            raise ConfigError(f"{name} has {key!r}, which cannot be sent: a header is a word, and its value one line")
        if isinstance(value, str) and not value.startswith(SECRET_PREFIX) and is_likely_secret(key, value):
            raise ConfigError(
                f"{name} has {key!r}, which looks like a secret and would be stored with the model: put it into an "
                f"environment variable and pass {{{key!r}: 'env:NAME'}}"
            )


def check_fields(name: str, given: Any) -> None:
    """ConfigError for a field of a request's body, however deep, that holds a secret."""
    waiting = [given]
    while waiting:
        current = waiting.pop()
        if isinstance(current, list):
            waiting += current
        elif isinstance(current, Mapping):
            waiting += current.values()
            held = [field for field in current if str(field).lower() in SECRET_FIELDS and current[field] is not None]
            if held:
                raise ConfigError(
                    f"{name} has {held[0]!r}, which would be stored with the model; pass api_key= instead"
                )


@dataclass(frozen=True)
class RequestOptions:
    """What goes beside a request's parameters: fields of the body, headers, query, and a time limit."""

    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float | None = None


NOTHING = RequestOptions()


def split(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], RequestOptions]:
    """The parameters of a request, and what goes beside them. ConfigError for what cannot go there."""
    if not SECRET_FIELDS.isdisjoint(parameters):
        check_fields("a keyword", dict.fromkeys(parameters, ""))
    if REQUEST_OPTIONS.isdisjoint(parameters):
        return dict(parameters), NOTHING
    body = parameters.get("extra_body") or {}
    if not isinstance(body, Mapping):
        raise ConfigError(f"extra_body is a dict of fields, not {type(body).__name__}")
    check_fields("extra_body", body)
    headers, query = parameters.get("extra_headers") or {}, parameters.get("extra_query") or {}
    check_texts("extra_headers", headers)
    check_texts("extra_query", query)
    timeout = parameters.get("timeout")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise ConfigError(f"timeout is a number of seconds above 0, not {timeout!r}")
    sent = {name: value for name, value in parameters.items() if name not in REQUEST_OPTIONS}
    return sent, RequestOptions(body, headers, query, timeout)


USUAL = (
    "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "min_p", "presence_penalty",
    "parallel_tool_calls", "reasoning_effort", "repetition_penalty", "response_format", "seed", "service_tier", "stop",
    "temperature", "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "verbosity", *sorted(REQUEST_OPTIONS),
)  # fmt: skip
"""Names of parameters that services know, to tell misspelt ones by."""


def warn_of_misspelt(parameters: Collection[str]) -> None:
    """Services pass over a parameter that they do not know, or refuse it: it is sent, and warned of."""
    for name in parameters:
        if meant := meant_by(name, USUAL):
            warnings.warn(f"{name!r} is sent as it is; is {meant!r} meant?", stacklevel=2)


def as_text(value: Any) -> str:
    """A query's value as it is written in an address."""
    return str(value).lower() if isinstance(value, bool) else str(value)
