"""Names a process in leases, and tells when a process of this machine is gone: what it held is free at once."""

from __future__ import annotations

import os
import socket


def this_process() -> str:
    """This process's name in leases: the machine, with its process-id namespace, and the process id."""
    return f"{_machine()}:{os.getpid()}"


def is_gone(process: str) -> bool:
    """Whether a process, which holds a lease, was one of this machine and runs no more."""
    machine, _, pid = process.rpartition(":")
    if machine != _machine() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def place_of(process: str) -> tuple[str, int]:
    """The host and the process id of a process's name."""
    host, _, pid = shown(process).rpartition(":")
    return host, int(pid)


def shown(process: str) -> str:
    """A process for people: its host and its id."""
    machine, _, pid = process.rpartition(":")
    return f"{machine.partition(_NAMESPACE)[0]}:{pid}"


_NAMESPACE = "pid:["
"""How Linux's name of a process-id namespace begins; two containers of one host name have two of them."""


def _machine() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}{namespace}"
