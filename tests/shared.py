"""What all processes of one test run share: a folder, things made in it once, servers that end with the run.

The process that begins a run holds a lock on it until it ends or dies. A server is kept by a process of its own,
``python -m tests.shared KIND``, which waits for that lock and then stops its server: after Ctrl-C and kill -9 too.
Where a server dies first, the run ends with what the server wrote last: no test after that could pass.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO

import pytest
import sqlalchemy as sa

from tests.servers import start_mongod, start_postgres

ROOT = Path(__file__).parents[1]
FOLDER = "PINNACLE_TEST_RUN"
PREFIX = "pinnacle-tests-"
MEMORY = Path("/dev/shm")
LEAST_MEMORY = 4 << 30
START_TIMEOUT_S = 120.0
POLL_S = 0.02
LOOK_S = 2.0
"""So often the keeper of a server looks whether it lives."""
LAST_LINES, LAST_LINE = 40, 400
"""So much is told of the log of one that died, in lines and in characters of a line."""

SERVERS: dict[str, Callable[..., AbstractContextManager[str]]] = {
    "postgres": partial(start_postgres, durable=False),
    "mongodb": partial(start_mongod, replica_set=True, durable=False),
    "mongodb_standalone": partial(start_mongod, replica_set=False, durable=False),
}

_held: list[IO[str]] = []
"""The lock of the run that this process began."""
_keepers: list[subprocess.Popen[bytes]] = []
"""Those that this process started; any process of the run may be the first to need a server."""


def pytest_configure(config: pytest.Config) -> None:
    """Begin the run; a worker of it finds its folder in the environment."""
    if FOLDER not in os.environ and not config.option.collectonly:
        remove_dead()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place()))
        os.environ[FOLDER] = str(folder)
        _held.append(lock(folder / "run", fcntl.LOCK_EX))


def pytest_unconfigure() -> None:
    """End the run where it began: the servers stop, the folder goes."""
    if _held:
        folder = Path(os.environ.pop(FOLDER))
        _held.pop().close()
        lock(folder / "servers", fcntl.LOCK_EX).close()
        for keeper in _keepers:
            keeper.wait()
        shutil.rmtree(folder, ignore_errors=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """End the run where a server of it has died."""
    for died in folder().glob("*.died"):
        item.session.shouldstop = f"the {died.stem} server of the tests died; it wrote last:\n{died.read_text()}"


def remove_dead() -> None:
    """Take away the folders of runs that were killed before they had a server to do it."""
    for run in place().glob(f"{PREFIX}*/run"):
        with run.open("a") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.closing(lock(run.with_name("servers"), fcntl.LOCK_EX)):
                shutil.rmtree(run.parent, ignore_errors=True)


def place() -> Path:
    """Memory where there is plenty: servers that flush to a disk wait for it in every test."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= LEAST_MEMORY:
        return MEMORY
    return Path(tempfile.gettempdir())


def folder() -> Path:
    return Path(os.environ[FOLDER])


def lock(path: Path, kind: int) -> IO[str]:
    """Wait for a lock on a file; held until it is closed."""
    file = path.open("a")
    fcntl.flock(file, kind)
    return file


def once(name: str, make: Callable[[Path], object]) -> Path:
    """The path ``name`` in the run's folder, made by the first process that asks for it."""
    path, made = folder() / name, folder() / f"{name}.made"
    with lock(folder() / f"{name}.lock", fcntl.LOCK_EX):
        if not made.exists():
            make(path)
            made.touch()
    return path


def server(kind: str) -> str:
    """The URL of the run's server of this kind."""
    return once(kind, lambda address: start_keeper(kind, address)).read_text()


def start_keeper(kind: str, address: Path) -> None:
    """Start a server; its URL is in the file ``address`` when it answers."""
    log = folder() / f"{kind}.log"
    with log.open("w") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.shared", kind], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    _keepers.append(keeper)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not address.exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no {kind} server:\n{log.read_text()[-4000:]}")
        time.sleep(POLL_S)


def keep(kind: str) -> None:
    """Run a server until the run is over; the last one to stop takes the run's folder away."""
    with lock(folder() / "servers", fcntl.LOCK_SH) as servers:
        with SERVERS[kind](under=folder()) as url:
            part = folder() / f"{kind}.part"
            part.write_text(url)
            part.rename(folder() / kind)
            threading.Thread(target=watch, args=(kind, url), daemon=True).start()
            lock(folder() / "run", fcntl.LOCK_SH).close()
        fcntl.flock(servers, fcntl.LOCK_EX)
        shutil.rmtree(folder(), ignore_errors=True)


def watch(kind: str, url: str) -> None:
    """Leave word for the tests when the server dies."""
    while is_alive(url):
        time.sleep(LOOK_S)
    (folder() / f"{kind}.died").write_text(last_words(kind))


def is_alive(url: str) -> bool:
    """Whether somebody listens at the address of a URL, be it a port or a socket of a folder."""
    address = sa.make_url(url)
    place = (address.host, address.port) if address.host else f"{address.query['host']}/.s.PGSQL.5432"
    with socket.socket(socket.AF_INET if address.host else socket.AF_UNIX) as connection:
        connection.settimeout(START_TIMEOUT_S)
        try:
            connection.connect(place)
        except OSError:
            return False
        return True


def last_words(kind: str) -> str:
    """The last lines that a server and its keeper have written: short, for one of mongod's may hold a whole stack."""
    logs = [folder() / f"{kind}.log", *folder().glob("*/mongod.log"), *folder().glob("*/log")]
    lines = [line for path in logs for line in path.read_text(errors="replace").splitlines()[-LAST_LINES:]]
    return "\n".join(line[:LAST_LINE] for line in lines)


if __name__ == "__main__":
    keep(*sys.argv[1:])
