"""Where a service that speaks OpenAI's API is, and how it is asked.

The ``openai`` client says where to go and with which headers, from its arguments and
environment; requests of tables go out over pinnacle's own connections, at a sixth of the
client's CPU a call.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import openai

from pinnacle import AccountRefused, ConfigError, ModelUnavailable, Price
from pinnacle.plugin import (
    Destination,
    HttpClient,
    HttpModel,
    listed_price,
    secret_names_in,
    server_of,
    setting_for,
)
from pinnacle_openai.azure import AZURE_KEY, Azure, azure_of
from pinnacle_openai.settings import NOTHING, SECRET_PREFIX, RequestOptions, as_text, check_client_kwargs, split

E = TypeVar("E", bound=BaseException)

OWN_ADDRESS = "https://api.openai.com/v1"
DEFAULT_KEY = "env:OPENAI_API_KEY"
NO_KEY = "none"
"""What is sent to a server of one's own, which asks for no key."""

LEFT_TO_AIOHTTP = frozenset({"content-type", "accept-encoding", "connection", "content-length", "host"})


@dataclasses.dataclass
class OpenAIService(HttpModel):
    """The address and the account of an OpenAI-compatible service.

    ``base_url`` (or ``openai_api_base``): by default OPENAI_BASE_URL, else OpenAI's own.
    ``api_key``: ``"env:NAME"`` or the key, which is then never stored; by default OPENAI_API_KEY.
    ``client_kwargs``: ``organization``, ``project``, ``default_headers``, ``default_query``, as for the ``openai``
    client; a header or query whose value is ``"env:NAME"`` is sent what that variable holds, and what looks like a
    secret is taken in no other way.
    ``api_version``: of Azure; ``base_url`` is then ``https://NAME.openai.azure.com`` with ``model_name`` as the
    deployment, or the whole path of one; ``https://NAME.openai.azure.com/openai/v1`` needs none. Azure's key goes in
    the header ``api-key``, by default AZURE_OPENAI_API_KEY.
    """

    never_from_rows: ClassVar[frozenset[str]] = frozenset({"extra_headers", "extra_query"})
    unshared: ClassVar[tuple[str, ...]] = (*HttpModel.unshared, "_made")

    _: dataclasses.KW_ONLY
    model_name: str = ""
    base_url: str | None = None
    openai_api_base: str | None = None
    api_version: str | None = None
    client_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)

    def settle_address(self) -> None:
        """One address of the two names it goes by; ConfigError where they differ, or for settings that cannot be."""
        if self.openai_api_base is not None and self.base_url not in (None, self.openai_api_base):
            raise ConfigError(
                f"base_url={self.base_url!r} and openai_api_base={self.openai_api_base!r} are one thing by two names; "
                "pass one of them"
            )
        self.base_url = self.openai_api_base if self.base_url is None else self.base_url
        self.openai_api_base = None
        if self.base_url is not None and urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ConfigError(f"base_url is the address of a service, http://... or https://..., not {self.base_url!r}")
        if self.base_url is not None and ("@" in urlsplit(self.base_url).netloc or urlsplit(self.base_url).query):
            raise ConfigError(
                "base_url holds a user, a password or a query, and would be stored with it; pass api_key=, "
                "api_version= (Azure), or client_kwargs={'default_query': {...}}"
            )
        check_client_kwargs(self.client_kwargs)
        split(getattr(self, "inference_kwargs", None) or {})
        self.azure()

    def openai_client(self, key: str | None, **options: Any) -> openai.AsyncOpenAI:
        """The library's client. What makes the rest of its settings is not asked: it opens no connection."""
        return openai.AsyncOpenAI(
            api_key=key or NO_KEY,
            **{
                "max_retries": 0,
                "base_url": self.base_url,
                "organization": self.client_kwargs.get("organization"),
                "project": self.client_kwargs.get("project"),
                **options,
            },
        )

    def files_client(self, *, max_retries: int) -> openai.AsyncOpenAI:
        """The library's client for what is not asked row by row: it follows no redirects either."""
        key, found = self.key(), self.azure()
        headers = self.account_headers(key)
        is_own_way = found is not None and "authorization" not in map(str.lower, headers)
        # Azure's key is in a header of its own, and the library adds the usual one.
        left_out = self._headers_withheld() - {*map(str.lower, headers)} | ({"authorization"} if is_own_way else set())
        return self.openai_client(
            key, max_retries=max_retries, base_url=self.base_url if found is None else found.files_url,
            default_headers=headers, default_query=self.account_query(),
            timeout=openai.Timeout(self.timeout_s, connect=self.connect_timeout_s),
            http_client=_transport(
                verify=self.tls_context(), event_hooks={"request": [partial(_take_off, headers=frozenset(left_out))]}
            ),
        )  # fmt: skip

    def key(self) -> str | None:
        """The key; where none was given, that of its variable, which a service of one's own does not need."""
        return self.resolved_key(self._usual_key(), is_required=self.base_url is None)

    def destination(self) -> Destination:
        return server_of(self._given_address())

    def secret_names(self) -> set[str]:
        own = getattr(self, "inference_kwargs", None) or {}
        given = [self.client_kwargs.get(name) for name in ("default_headers", "default_query")]
        given += [own.get(name) for name in ("extra_headers", "extra_query")]
        usual = set() if self.api_key is not None else {self._usual_key().removeprefix(SECRET_PREFIX)}
        return super().secret_names() | secret_names_in(given) | usual

    def hidden(self, error: E) -> E:
        """As for every model; where the key of the environment was not sent, a refusal says so and why."""
        hidden = super().hidden(error)
        name = self._usual_key().removeprefix(SECRET_PREFIX)
        if isinstance(error, AccountRefused) and self._withholds(name):
            there = self.destination()
            told = (
                f"; {name} is not sent to {there.setting}, which only the database says: set "
                f"{setting_for(name, there)} in this process if that is meant"
            )
            error.args = (f"{error}{told}",) if told not in str(error) else error.args
        return hidden

    def beside(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], RequestOptions]:
        """The parameters of a request, and what goes beside them, with what the variables that it names hold."""
        sent, options = split(parameters)
        if options is NOTHING:
            return sent, options
        headers, query = self._held(options.headers), self._held(options.query)
        return sent, dataclasses.replace(options, headers=headers, query=query)

    def provider(self) -> str:
        return self.wire().host

    def limit_s(self, parameters: Mapping[str, Any]) -> float:
        """``timeout`` of the request, where it has one."""
        timeout = parameters.get("timeout")
        return self.timeout_s if timeout is None else float(timeout)

    def wire(self) -> Wire:
        """The service as it is asked now; made once for as long as the key is the same."""
        key = self.key()
        made: Wire | None = vars(self).get("_made")
        if made is None or made.key != key:
            made = vars(self)["_made"] = self._new_wire(key)
        return made

    def usual_price(self) -> Price | None:
        """What the service's provider charges, from an offline list of prices; None where it is not listed."""
        return listed_price(self.model_name, self._address(self._settled(None)))

    def account_headers(self, key: str | None) -> dict[str, str]:
        """The headers that say who asks, with the user's own, which win."""
        own = {"api-key": key} if self.azure() is not None and key is not None else {}
        return {**own, **self._resolved("default_headers")}

    def account_query(self) -> dict[str, str]:
        """What follows the path of each request."""
        version = {"api-version": self.api_version} if self.api_version is not None else {}
        return {**version, **self._resolved("default_query")}

    def azure(self) -> Azure | None:
        """Azure's address, where the model is there."""
        url, query = self._named_address(), self.client_kwargs.get("default_query") or {}
        return azure_of(url, self.api_version, self.model_name, is_versioned="api-version" in query)

    def _new_wire(self, key: str | None) -> Wire:
        """The address and headers that the library would use, on pinnacle's connections."""
        client = self._settled(key)
        shown = {name: value for name, value in client.default_headers.items() if isinstance(value, str)}
        if self.azure() is None:
            shown |= client.auth_headers
        left_out = LEFT_TO_AIOHTTP | self._headers_withheld()
        usual = {name: value for name, value in shown.items() if name.lower() not in left_out}
        headers = {**usual, **self.account_headers(key)}  # the last wins, whatever its capitals
        return Wire(self._address(client), self.http_client(headers, self.account_query()), key)

    def _named_address(self) -> str | None:
        return self.base_url or os.environ.get("OPENAI_BASE_URL")

    def _given_address(self) -> str:
        """Where requests go, before the library has had a look at it."""
        found = self.azure()
        return (self._named_address() or OWN_ADDRESS) if found is None else found.url

    def _usual_key(self) -> str:
        return DEFAULT_KEY if self.azure() is None else AZURE_KEY

    def _withholds(self, name: str) -> bool:
        """Whether a variable of the process, which no field names, is not to go where the database says."""
        if self.granted is None or self.api_key is not None or name not in os.environ:
            return False
        return not self.granted.allows(name, self.destination())

    def _headers_withheld(self) -> frozenset[str]:
        """The headers, in lower case, that the library takes from the environment for where OPENAI_API_KEY goes."""
        if self.granted is None or self.granted.allows("OPENAI_API_KEY", self.destination()):
            return frozenset()
        lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
        names = {line.partition(":")[0].strip().lower() for line in lines}
        given = {f"openai-{name}" for name in ("organization", "project") if self.client_kwargs.get(name) is None}
        return frozenset((names | given) - {"authorization"})

    def _settled(self, key: str | None) -> openai.AsyncOpenAI:
        """A client that only says where to go: it looks at no proxies, of which it refuses kinds that it lacks."""
        return self.openai_client(key, http_client=openai.DefaultAsyncHttpxClient(trust_env=False))

    def _address(self, client: openai.AsyncOpenAI) -> str:
        found = self.azure()
        return str(client.base_url).rstrip("/") if found is None else found.url

    def _resolved(self, name: str) -> dict[str, str]:
        """Headers or a query of the client's, with what the variables that they name hold."""
        return self._held(self.client_kwargs.get(name) or {})

    def _held(self, given: Mapping[str, Any]) -> dict[str, str]:
        held: dict[str, str] = self.held({name: as_text(value) for name, value in given.items()})
        return held


def _transport(**options: Any) -> Any:
    """What the library's client sends by; it reads the environment's proxies."""
    try:
        return openai.DefaultAsyncHttpxClient(follow_redirects=False, **options)
    except ImportError as error:
        raise ModelUnavailable(
            "files go to the provider through the SOCKS proxy that the environment names, which needs a library: "
            "pip install 'httpx[socks]', or set NO_PROXY"
        ) from error


async def _take_off(request: Any, *, headers: frozenset[str]) -> None:
    """Headers that the library adds by itself, and that are not meant to go there."""
    for name in headers:
        request.headers.pop(name, None)


@dataclasses.dataclass(frozen=True)
class Wire:
    """One service: ``post("/chat/completions", body)`` gives its JSON and headers."""

    url: str
    http: HttpClient = dataclasses.field(repr=False)
    key: str | None = dataclasses.field(default=None, repr=False)

    async def post(self, path: str, body: Any, options: RequestOptions) -> tuple[Any, Mapping[str, str]]:
        whole = {**body, **options.body}
        return await self.http.post(f"{self.url}{path}", whole, headers=options.headers, query=options.query)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc
