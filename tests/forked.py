"""Runs a piece of a test in a forked child."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

from tests.contract.documents import wait_until


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, as JSON has it, when a forked child runs it; its traceback where it raises."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = json.dumps(work())
        except BaseException:
            told = json.dumps(traceback.format_exc())
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    try:
        wait_until(lambda: os.waitpid(child, os.WNOHANG)[0])
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    with os.fdopen(reading) as told:
        return json.loads(told.read())
