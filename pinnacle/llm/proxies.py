"""Which proxy an address is reached through, by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

They are read as the ``openai`` library reads them, so that a machine that is set up for one
is set up for the other.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from pinnacle.base.errors import ConfigError, ModelUnavailable
from pinnacle.base.urls import check_url

TAKEN = ("http", "https")
"""The schemes of proxies that requests can go through."""

USUAL_PORTS = {"http": 80, "https": 443}


def proxy_of(url: str) -> str | None:
    """The address of the proxy for ``url``; None where it is asked directly.

    ModelUnavailable for a proxy of another kind, such as SOCKS.
    """
    known = getproxies()  # on Windows and macOS also those of the system
    parts = urlsplit(url)
    proxy = known.get(parts.scheme) or known.get("all")
    if not proxy or any(_Exception.of(entry).holds(parts) for entry in known.get("no", "").split(",") if entry.strip()):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        check_url(proxy, "the address of the proxy in the environment")
    except ConfigError as error:
        raise ModelUnavailable(str(error)) from None
    scheme = urlsplit(proxy).scheme
    if scheme not in TAKEN:
        raise ModelUnavailable(
            f"{parts.hostname} is to be reached through a proxy of kind {scheme!r}, as the environment says; requests "
            "go through http:// and https:// proxies only; set HTTPS_PROXY to one of these, or NO_PROXY"
        )
    return proxy


@dataclass(frozen=True)
class _Exception:
    """One entry of NO_PROXY: a host, or hosts below one, or a network; of one scheme or port where it says so."""

    host: str
    scheme: str | None = None
    port: int | None = None
    takes_below: bool = False
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None

    @classmethod
    def of(cls, entry: str) -> _Exception:
        entry = entry.strip().lower()
        scheme, marked, rest = entry.rpartition("://")
        network = _network(rest)
        if network is not None:
            return cls("", None if scheme in ("", "all") else scheme, network=network)
        host, port = _host_and_port(rest)
        takes_below = not marked and host != "localhost" and not host.startswith("[")
        return cls(host, None if scheme in ("", "all") else scheme, port, takes_below)

    def holds(self, parts: SplitResult) -> bool:
        """Whether an address is excepted."""
        host = (parts.hostname or "").lower()
        if self.host == "*":
            return True
        if self.scheme is not None and self.scheme != parts.scheme:
            return False
        if self.port is not None and self.port != (parts.port or USUAL_PORTS.get(parts.scheme)):
            return False
        if self.network is not None:
            return _is_in(host, self.network)
        if self.host.startswith(("*.", ".")):
            return host.endswith(self.host.removeprefix("*"))
        return host == self.host.strip("[]") or (self.takes_below and host.endswith(f".{self.host}"))


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """``10.0.0.0/8``, or one address as a network of itself."""
    try:
        return ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _host_and_port(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.rpartition(":")
    return (host, int(port)) if colon and port.isdecimal() and not host.endswith(":") else (entry, None)


def _is_in(host: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
