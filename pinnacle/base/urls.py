"""URLs with passwords: one that programs may read in two ways is refused, and none is repeated."""

from __future__ import annotations

import re
from urllib.parse import unquote

from pinnacle.base.errors import ConfigError
from pinnacle.base.redaction import know_password

_URL = re.compile(r"(?P<scheme>[^:/?#]+)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_PORT = re.compile(r"(\[[^\]]*\]|[^:,@]*)(:\d*)?")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def check_url(url: str, what: str = "the database's URL") -> None:
    """Have its password known as a secret. ConfigError where a character in it was not escaped, so that a part of it
    would be taken for a host, or told."""
    found = _URL.fullmatch(url)
    if found is None:
        return
    user, _, hosts = found["authority"].rpartition("@")
    if "@" in user or _BROKEN_ESCAPE.search(user) or (not user and _is_cut(hosts, found["rest"])):
        raise ConfigError(
            f"{what} has a character in its user or password that is not escaped, and is not repeated here: write @ as "
            "%40, / as %2F, : as %3A, ? as %3F, # as %23 and % as %25, as urllib.parse.quote(password, safe='') does"
        )
    know_password(unquote(password_of(url)))


def password_of(url: str) -> str:
    """The password in a URL, as it is written there; an empty text where there is none."""
    found = _URL.fullmatch(url)
    return "" if found is None else found["authority"].rpartition("@")[0].partition(":")[2]


def _is_cut(hosts: str, rest: str) -> bool:
    """Whether what stands before the first / ? or # is a user and the beginning of a password."""
    is_ports = all(_PORT.fullmatch(host) for host in hosts.split(","))
    before_query = rest.partition("?")[0] if rest.startswith("/") else rest
    return bool(hosts) and "@" in rest and (not is_ports or (":" in hosts and "@" in before_query))
