"""Where a service that speaks OpenAI's API is, and how it is asked.

The ``openai`` client says where to go and with which headers, from its arguments and
environment; requests of tables go out over pinnacle's own connections, at a sixth of the
client's CPU a call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import openai

from pinnacle import ConfigError, Price
from pinnacle.plugin import HostedModel, HttpClient, listed_price, operational

DEFAULT_KEY = "env:OPENAI_API_KEY"
SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "openai-api-key", "cookie"})
NO_KEY = "none"
"""What is sent to a server of one's own, which asks for no key."""


@dataclasses.dataclass
class OpenAIService(HostedModel):
    """The address and the account of an OpenAI-compatible service.

    ``base_url`` (or ``openai_api_base``): by default OPENAI_BASE_URL, else OpenAI's own.
    ``api_key``: ``"env:NAME"`` or the key, which is then never stored; by default OPENAI_API_KEY.
    ``client_kwargs``: for ``openai.AsyncOpenAI``, such as ``organization`` or ``default_headers``.
    """

    unshared: ClassVar[tuple[str, ...]] = (*HostedModel.unshared, "_made")

    _: dataclasses.KW_ONLY
    model_name: str = ""
    base_url: str | None = None
    openai_api_base: str | None = None
    client_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    connect_timeout_s: float = operational(10.0)

    def settle_address(self) -> None:
        """One address of the two names it goes by; ConfigError where they differ."""
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
                "base_url holds a user, a password or a query, and would be stored with it; pass api_key="
            )
        if secrets := sorted(set(self.client_kwargs) & {"api_key", "admin_api_key", "webhook_secret"}):
            raise ConfigError(f"client_kwargs holds {secrets[0]}, and would be stored with it; pass api_key= instead")
        headers = {
            **self.client_kwargs.get("default_headers", {}),
            **getattr(self, "inference_kwargs", {}).get("extra_headers", {}),
        }
        if secrets := sorted(name for name in headers if name.lower() in SECRET_HEADERS):
            raise ConfigError(f"the header {secrets[0]} would be stored with the model; pass api_key= instead")

    def openai_client(self, key: str | None, *, max_retries: int = 0) -> openai.AsyncOpenAI:
        """The library's client, for what is not asked row by row."""
        return openai.AsyncOpenAI(
            api_key=key or NO_KEY, base_url=self.base_url, max_retries=max_retries, **self.client_kwargs
        )  # fmt: skip

    def key(self) -> str | None:
        """The key; where none was given, OPENAI_API_KEY if it is set, which a service of one's own does not need."""
        return self.resolved_key(DEFAULT_KEY, is_required=self.base_url is None)

    def provider(self) -> str:
        return self.wire().host

    def wire(self) -> Wire:
        """The service as it is asked now; made once for as long as the key is the same."""
        key = self.key()
        made: Wire | None = vars(self).get("_made")
        if made is None or made.key != key:
            made = vars(self)["_made"] = self._new_wire(key)
        return made

    def usual_price(self) -> Price | None:
        """What the service's provider charges, from an offline list of prices; None where it is not listed."""
        return listed_price(self.model_name, self._new_wire(None).url)

    def _new_wire(self, key: str | None) -> Wire:
        """The address and headers that the library would use, on pinnacle's connections."""
        client = self.openai_client(key)
        headers = {**client.default_headers, **client.auth_headers}
        shown = {name: str(value) for name, value in headers.items() if isinstance(value, str)}
        dropped = {"content-type", "accept-encoding", "connection", "content-length", "host"}
        kept = {name: value for name, value in shown.items() if name.lower() not in dropped}
        return Wire(str(client.base_url).rstrip("/"), HttpClient(self.connect_timeout_s, kept), key)


@dataclasses.dataclass(frozen=True)
class Wire:
    """One service: ``post("/chat/completions", body)`` gives its JSON and headers."""

    url: str
    http: HttpClient = dataclasses.field(repr=False)
    key: str | None = dataclasses.field(default=None, repr=False)

    async def post(self, path: str, body: Any) -> tuple[Any, Mapping[str, str]]:
        return await self.http.post(f"{self.url}{path}", body)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc
