"""Models of worker processes: they log their calls, and wait or die where a test says so."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from pinnacle import model

LOG, GATE, KILL = "PINNACLE_TEST_LOG", "PINNACLE_TEST_GATE", "PINNACLE_TEST_KILL"
WINDOW = 20
"""The rows that one crash may cost a second call: one batch at the model, two at the writer."""


def log(body: str) -> None:
    """One line a call, from any process."""
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{body}\n".encode())
    finally:
        os.close(descriptor)


@model(batch_size=WINDOW)
def fatal(body: str) -> str:
    """Kills its own process at the body that ``PINNACLE_TEST_KILL`` names."""
    log(body)
    if body == os.environ.get(KILL):
        os.kill(os.getpid(), signal.SIGKILL)
    return body.upper()


@model
def gated(body: str) -> str:
    """Does not return before the file ``PINNACLE_TEST_GATE`` is there."""
    log(body)
    while not Path(os.environ[GATE]).exists():
        time.sleep(0.005)
    return body.upper()
