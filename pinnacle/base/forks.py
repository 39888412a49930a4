"""What a forked child makes anew: locks, threads, event loops, sockets, connections.

A fork copies the memory and none of the threads: a lock may be held by a thread that is not
there, an event loop has nobody who runs it, and a socket's other end takes what the child
says for the parent's words. So whoever keeps such a thing says here how it is made anew. What is the
parent's is neither closed nor collected in the child: that would be told to the other end.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

_renewals: dict[int, Callable[[], Callable[[], None] | None]] = {}
_numbers = itertools.count()
_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> threading.Lock:
    """A lock that nobody holds in a forked child."""
    made = threading.Lock()
    _locks.add(made)
    return made


def rlock() -> threading.RLock:
    """A reentrant lock that nobody holds in a forked child."""
    made = threading.RLock()
    _locks.add(made)
    return made


def renew_in_child(renew: Callable[[], None]) -> None:
    """Have a function, or an object's method, called in every child that is forked, before anything else runs there.

    The object is not kept alive by it.
    """
    number, forget = next(_numbers), _renewals.pop
    if isinstance(renew, MethodType):
        # No WeakMethod: where it goes before its object, as when Python ends, that writes a traceback.
        owner, method = weakref.ref(renew.__self__, lambda gone: forget(number, None) and None), renew.__func__
        _renewals[number] = lambda: None if (found := owner()) is None else partial(method, found)
    else:
        _renewals[number] = lambda: renew


def leave_to_parent(*things: Any) -> None:
    """Keep what belongs to the parent as it is for as long as this child lives, its last moments included: no
    finaliser of it runs."""
    import ctypes

    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _renew_all() -> None:
    for one in list(_locks):
        one._at_fork_reinit()
    for renewal in list(_renewals.values()):
        renew = renewal()
        if renew is not None:
            renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
