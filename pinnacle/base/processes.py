"""Names a process in leases, and tells when a process of this machine is gone: what it held is free at once."""

from __future__ import annotations

import os
import socket


def this_process() -> str:
    """This process's name in leases: the machine, with its process-id namespace, and the process id."""
    return f"{_machine()}:{os.getpid()}"


def is_gone(owner: str) -> bool:
    """Whether a lease's owner was a process of this machine that runs no more."""
    machine, _, pid = owner.rpartition(":")
    if machine != _machine() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def shown(owner: str) -> str:
    """A lease's owner for people: the host and the process id."""
    machine, _, pid = owner.rpartition(":")
    return f"{machine.partition(_NAMESPACE)[0]}:{pid}"


_NAMESPACE = "pid:["
"""How Linux's name of a process-id namespace begins; two containers of one host name have two of them."""


def _machine() -> str:
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}{namespace}"
