"""Predicts, with a model that logs its calls, and workers in processes of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.forks import Fork

SCRIPT = """
import sys
import sqlalchemy as sa
from pinnacle import pinnacle
from pinnacle.backends.mongodb import Collection
from tests.models import logged

url = sys.argv[1]
rows = Collection("docs").find() if url.startswith("mongodb") else sa.select(sa.table("docs", sa.column("id")))
with pinnacle(url) as db:
    print(logged.predict(X="body", db=db, select=rows, batch_size=10).written)
"""

WORKER = """
import sys, threading
from pinnacle import pinnacle
with pinnacle(sys.argv[1]) as db:
    db.listen()
    threading.Event().wait()
"""


def start_predict(url: Any, log: Path, *, kill_at: str = "") -> Fork:
    """Begin to predict over the table docs; with ``kill_at`` the process kills itself when it gets to that text."""
    environment = {"PINNACLE_TEST_LOG": str(log), "PINNACLE_TEST_KILL": kill_at}
    return Fork(SCRIPT, url, environment=environment, stdout=subprocess.PIPE)


def start_worker(url: str, **environment: str) -> Fork:
    """Begin to work on all listeners of a database, without an end."""
    return Fork(WORKER, url, environment=environment, stderr=subprocess.DEVNULL)


def logged_calls(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []
