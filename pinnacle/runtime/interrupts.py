"""Tells what ends a prediction from what is one row's error, among all that a model's code may raise."""

from __future__ import annotations

import functools
import signal
import threading
import types
from typing import Any

INTERRUPTS = (KeyboardInterrupt, SystemExit)


def is_interrupt(error: BaseException) -> bool:
    """Whether an error that came up in a model's code ends the prediction: Ctrl-C, or what a handler of a signal
    raised to end the process. A model that calls ``sys.exit()`` itself has failed on its row."""
    if isinstance(error, KeyboardInterrupt):
        return True
    return isinstance(error, SystemExit) and _is_of_signal(error)


def _is_of_signal(error: BaseException) -> bool:
    """Whether a handler of a signal raised it: these run in the main thread, in whatever code that is in."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> types.CodeType | None:
    while isinstance(handler, (functools.partial, types.MethodType)):
        handler = handler.func if isinstance(handler, functools.partial) else handler.__func__
    if callable(handler) and not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)
