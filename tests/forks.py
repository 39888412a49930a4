"""Processes of a test's own that need not import anything first: forks of one that has.

As a program, ``python -m tests.forks SOCKET``, it is that one: each connection asks for a fork, and is told its process
id and how it ended. It ends with the process that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).parents[1]
LENGTH = struct.Struct("!i")
IMPORTED = (
    "pinnacle.cli", "pinnacle.backends.sqlite.backend", "pinnacle.backends.postgres.backend",
    "pinnacle.backends.mongodb.connect", "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite", "psycopg", "pgvector.psycopg", "tests.models", "tests.worker_models",
    "tests.kill_job", "tests.contract.trainable",
)  # fmt: skip
"""What a fork has at hand. None of them reads its environment, begins a thread or opens anything by being imported."""


class Fork:
    """A process that runs code as ``python -c`` would, from the repository's root; as `subprocess.Popen` in text."""

    def __init__(
        self, code: str, *arguments: object, environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL, stdout: int | None = None, stderr: int | None = None,
    ) -> None:  # fmt: skip
        self.returncode: int | None = None
        self.stdin, theirs_in = _piped(stdin, 0, "w")
        self.stdout, theirs_out = _piped(stdout, 1, "r")
        self.stderr, theirs_err = _piped(stderr, 2, "r")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(server())
        surroundings = {**os.environ, **(environment or {})}
        wanted = {"code": code, "arguments": list(map(str, arguments)), "environment": surroundings}
        message, theirs = json.dumps(wanted).encode(), [theirs_in, theirs_out, theirs_err]
        socket.send_fds(self._server, [LENGTH.pack(len(message))], theirs)
        self._server.sendall(message)
        for each in theirs:
            os.close(each)
        self.pid = _number(self._server)

    def poll(self) -> int | None:
        """How it ended, if it has."""
        with contextlib.suppress(TimeoutError):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it ended; TimeoutError if it does not."""
        if self.returncode is None:
            self._server.settimeout(timeout)
            try:
                self.returncode = _number(self._server)
            except BlockingIOError as error:
                raise TimeoutError from error
            self._server.close()
        return self.returncode

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Say ``text`` and no more, and wait for the end; what it has said."""
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(text)
        said = {1: "", 2: ""}
        threads = [
            threading.Thread(target=lambda number=number, pipe=pipe: said.update({number: pipe.read()}))
            for number, pipe in ((1, self.stdout), (2, self.stderr))
            if pipe is not None
        ]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join()
        self._close()
        return said[1], said[2]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Fork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()


def _piped(kind: int | None, number: int, mode: str) -> tuple[IO[str] | None, int]:
    """Our end of a pipe, where there is to be one, and what is to be the other process's file of that number."""
    if kind == subprocess.PIPE:
        read, write = os.pipe()
        ours, theirs = (read, write) if mode == "r" else (write, read)
        return os.fdopen(ours, mode, buffering=1), theirs
    return None, os.dup(number) if kind is None else os.open(os.devnull, os.O_RDWR)


def _number(connection: socket.socket) -> int:
    found = connection.recv(LENGTH.size, socket.MSG_WAITALL)
    if not found:
        raise RuntimeError("the process that forks has gone")
    return int(LENGTH.unpack(found)[0])


@cache
def server() -> str:
    """The address of this process's own, which ends with it."""
    address = f"{tempfile.mkdtemp(prefix='forks-')}/socket"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    starting = subprocess.Popen(
        [sys.executable, "-m", "tests.forks", address], cwd=ROOT, env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert starting.stdout is not None
    assert starting.stdout.readline() == b"ready\n"
    atexit.register(starting.communicate)
    return address


# -- the process that forks ------------------------------------------------------------------------


class Forking:
    """Forks for whoever connects, until its standard input ends."""

    def __init__(self, address: str) -> None:
        self._waiting: dict[int, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(100)
        self._ended, self._told = os.pipe()
        os.set_blocking(self._told, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._told)

    def run(self) -> dict[str, Any] | None:
        """In a fork: what it is to do. None at the end."""
        with selectors.DefaultSelector() as ready:
            for each in (self._listener, self._ended, 0):
                ready.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj == 0:
                        return None
                    if key.fileobj == self._ended:
                        os.read(self._ended, 1024)
                        self._tell()
                    elif (wanted := self._fork()) is not None:
                        return wanted

    def _fork(self) -> dict[str, Any] | None:
        connection, _ = self._listener.accept()
        length, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        wanted: dict[str, Any] = json.loads(connection.recv(LENGTH.unpack(length)[0], socket.MSG_WAITALL))
        child = os.fork()
        if child == 0:
            self._leave([connection, *self._waiting.values()])
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            return wanted
        for file in files:
            os.close(file)
        self._waiting[child] = connection
        connection.sendall(LENGTH.pack(child))
        return None

    def _leave(self, connections: Sequence[socket.socket]) -> None:
        """In a fork: have nothing of this any more."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (self._ended, self._told):
            os.close(each)
        for connection in (self._listener, *connections):
            connection.close()

    def _tell(self) -> None:
        """Tell of each that has ended."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                with contextlib.closing(self._waiting.pop(found[0])) as connection, contextlib.suppress(OSError):
                    connection.sendall(LENGTH.pack(os.waitstatus_to_exitcode(found[1])))


def main(address: str) -> dict[str, Any] | None:
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1, threading.enumerate()
    gc.freeze()
    forking = Forking(address)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    wanted = forking.run()
    if wanted is None:
        shutil.rmtree(Path(address).parent)
    return wanted


if __name__ == "__main__" and (job := main(sys.argv[1])) is not None:
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = ["-c", *job["arguments"]]
    exec(compile(job["code"], "<fork>", "exec"), {"__name__": "__main__"})
