"""What holds for every test of the core and the plug-ins: no network but loopback, one thread a library."""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import socket
import sys
from typing import Any

pytest_plugins = ["tests.shared", "tests.schedule"]

# Read by libraries when they are first imported, here and in subprocesses.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What the tests make is not signed, but by those of it: none makes a secret among the developer's own configuration.
# With PINNACLE_SECRET in the environment all is.
os.environ["PINNACLE_SECRET_FILE"] = "off"

# Whoever runs the tests may have a proxy, which is not on the way to loopback.
for _scheme in ("http", "https", "all"):
    os.environ.pop(f"{_scheme}_proxy", None)
    os.environ.pop(f"{_scheme}_proxy".upper(), None)

# A shell starts what runs in its background with interrupts ignored; tests send some.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def forbid_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: raise when Python code reaches for anything but loopback or a Unix socket."""
    if event == "socket.connect":
        connection, address = arguments
        if connection.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address[0]):
            raise PermissionError(f"tests may not use the network: connect to {address}")
    elif event == "socket.getaddrinfo" and not is_loopback(arguments[0]):
        raise PermissionError(f"tests may not use the network: look up {arguments[0]!r}")


def is_loopback(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


sys.addaudithook(forbid_network)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: no search for garbage, as at the end of each fit, need go
    through it."""
    gc.collect()
    gc.freeze()
