"""Numbers and addresses on the command line: what cannot be meant is refused before anything is opened."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

YEAR_S = 366 * 86_400.0
MOST_ROWS = 1_000_000
LAST_PORT = 65_535


class Seconds(click.ParamType[float]):
    """A number of seconds, up to a year."""

    name = "seconds"

    def __init__(self, least: float = 0.0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = click.FLOAT.convert(value, param, ctx)
        if not self._least <= seconds <= YEAR_S:  # so that NaN is refused too
            self.fail(f"{value!r} is no number of seconds from {self._least:g} to {YEAR_S:.0f}, a year", param, ctx)
        return seconds


class Address(NamedTuple):
    host: str
    port: int


class AddressType(click.ParamType[Address]):
    """``host:port``; without a host it is this machine alone."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        host, _, port = str(value).rpartition(":")
        if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) <= LAST_PORT):
            self.fail(f"it takes host:port, as in 127.0.0.1:9464, not {value!r}", param, ctx)
        return Address(host or "127.0.0.1", int(port))
