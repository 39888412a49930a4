"""Which secret may go where: what the environment of this process allows, and what its own code says.

A component that came from the database names its secrets (``"env:NAME"``), and whoever may write the database could
name another variable, or another address to send it to. So neither counts by itself: a pair of both does, that the
process allows.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from pinnacle.base.errors import ConfigError

VARIABLE = "PINNACLE_SECRETS"
SECRET_PREFIX = "env:"

USUAL_PORTS = {"http": 80, "https": 443}

USUAL_HOSTS = {
    "ANTHROPIC_API_KEY": ("api.anthropic.com",),
    "AZURE_OPENAI_API_KEY": (
        "*.openai.azure.com", "*.openai.azure.us", "*.openai.azure.cn", "*.cognitiveservices.azure.com",
        "*.services.ai.azure.com",
    ),
    "CEREBRAS_API_KEY": ("api.cerebras.ai",),
    "DEEPSEEK_API_KEY": ("api.deepseek.com",),
    "FIREWORKS_API_KEY": ("api.fireworks.ai",),
    "GEMINI_API_KEY": ("generativelanguage.googleapis.com",),
    "GROQ_API_KEY": ("api.groq.com",),
    "HF_TOKEN": ("huggingface.co", "router.huggingface.co"),
    "MISTRAL_API_KEY": ("api.mistral.ai",),
    "OPENAI_API_KEY": ("api.openai.com", "*.api.openai.com"),
    "OPENROUTER_API_KEY": ("openrouter.ai",),
    "TOGETHER_API_KEY": ("api.together.xyz", "api.together.ai"),
    "VOYAGE_API_KEY": ("api.voyageai.com",),
    "XAI_API_KEY": ("api.x.ai",),
}  # fmt: skip
"""By the usual name of a provider's key the hosts of that provider, which are asked by https."""

USUAL_ADDRESSES = {
    "AZURE_OPENAI_API_KEY": "AZURE_OPENAI_ENDPOINT", "HF_TOKEN": "HF_ENDPOINT", "OPENAI_API_KEY": "OPENAI_BASE_URL",
}  # fmt: skip
"""The variables by which this process itself says where such a key goes."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"[^@,]*[/\\.][^@,]*")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_CODE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[\w.<>]+")


@dataclass(frozen=True)
class Destination:
    """Where a secret goes: a server, or code of this process.

    ``place``: ``https://host:443``, or ``module:name`` of the code. ``given``: what else of a component decides where
    that code goes, as a digest; nothing does where the place is a server.
    """

    place: str
    given: str = ""

    @property
    def is_server(self) -> bool:
        return "://" in self.place

    @property
    def setting(self) -> str:
        """How it is written after the ``@`` in PINNACLE_SECRETS."""
        if self.is_by_https:
            return self.place.removeprefix("https://").removesuffix(":443")
        return self.place.removeprefix("http://")

    @property
    def is_by_https(self) -> bool:
        return self.place.startswith("https://")


@lru_cache(maxsize=1024)
def server_of(url: str) -> Destination:
    """The server of an address, by scheme, host and port; ConfigError for one that programs may read in two ways."""
    scheme, host, port = _parts(url)
    return Destination(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")


@dataclass(frozen=True)
class Grant:
    """One entry of PINNACLE_SECRETS: ``NAME@host``, ``NAME@*.example.com``, ``NAME@host:port``, ``NAME@module:name``.

    The name is that of a variable, or the path of a file with a certificate.
    Without a port it is any of that host by https, or of this machine; with one also by plain http.
    """

    name: str
    place: str
    port: int | None = None

    def allows(self, name: str, destination: Destination) -> bool:
        if name != self.name:
            return False
        if not destination.is_server:
            return self.port is None and self.place == destination.place
        scheme, host, port = _parts(destination.place)
        if not (host == self.place or (self.place.startswith("*.") and host.endswith(self.place[1:]))):
            return False
        return port == self.port if self.port is not None else scheme == "https" or _is_this_machine(host)


@dataclass(frozen=True)
class Grants:
    """What a process allows the components that it loads."""

    entries: tuple[Grant, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Grants:
        """ConfigError for an entry that is none; it is told by its place, for it may be a secret itself."""
        return cls(tuple(_grant(place, entry) for place, entry in enumerate(entries, 1)))

    def allows(self, name: str, destination: Destination) -> bool:
        """Whether a component that came from the database may send what a variable holds to a destination."""
        return (
            (name, destination) in _said
            or _is_usual(name, destination)
            or any(entry.allows(name, destination) for entry in self.entries)
        )


def say(name: str, destination: Destination) -> None:
    """Note that this process's own code sends a variable's value to a destination; so may what it loads, then."""
    _said.add((name, destination))


def setting_for(name: str, destination: Destination) -> str:
    """What to add to the environment to allow it."""
    return f"{VARIABLE}={name}@{destination.setting}"


_said: set[tuple[str, Destination]] = set()


def _grant(place: int, entry: str) -> Grant:
    name, _, where = entry.strip().partition("@")
    if _NAME.fullmatch(name) and _CODE.fullmatch(where) and not where.rpartition(":")[2].isdecimal():
        return Grant(name, where)
    try:
        _, host, port = _parts(f"https://{where.removeprefix('*.').lower()}")
    except ConfigError:
        host, port = "", 0
    if not (_NAME.fullmatch(name) or _PATH.fullmatch(name)) or not host or "/" in where:
        raise ConfigError(
            f"entry {place} of {VARIABLE} is not NAME@host: name an environment variable and where its value may go, "
            f"as in {VARIABLE}=GATEWAY_KEY@gateway.example.com,LOCAL_KEY@localhost:8000,OTHER_KEY@*.example.com"
        )
    has_port = urlsplit(f"//{where.removeprefix('*.')}").port is not None
    return Grant(name, f"*.{host}" if where.startswith("*.") else host, port if has_port else None)


def _is_usual(name: str, destination: Destination) -> bool:
    if not destination.is_server:
        return False
    address = os.environ.get(USUAL_ADDRESSES.get(name, ""))
    if address and server_of(address) == destination:
        return True
    grants = (Grant(name, host, 443) for host in USUAL_HOSTS.get(name, ()))
    return destination.is_by_https and any(grant.allows(name, destination) for grant in grants)


@lru_cache(maxsize=1024)
def _parts(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address, in one spelling."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    is_one = url.isprintable() and "\\" not in url and parts.scheme in USUAL_PORTS
    if not is_one or not (_HOST.fullmatch(host) or _is_number(host)):
        raise ConfigError(
            "an address is http://host or https://host, with a host of ASCII letters, digits, '-' and '.' or an IP "
            "address, and perhaps a port: that is what its secrets are bound to"
        )
    return parts.scheme, host, USUAL_PORTS[parts.scheme] if port is None else port


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_this_machine(host: str) -> bool:
    return host == "localhost" or (_is_number(host) and ipaddress.ip_address(host).is_loopback)
