"""What this process does while it is watched: files, connections, programs, modules, and the SQL of SQLite."""

from __future__ import annotations

import os
import sqlite3
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import sqlalchemy as sa

REPOSITORY = Path(__file__).parents[2]
LIBRARIES = tuple(
    {os.path.realpath(path) for path in (*sysconfig.get_paths().values(), sys.base_prefix, REPOSITORY / "pinnacle")}
)
PROGRAMS = (
    "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn",
    "webbrowser.open", "ctypes.dlopen",
)  # fmt: skip
ON_FILES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree")
ACTIONS = {
    getattr(sqlite3, f"SQLITE_{name}"): name.lower()
    for name in (
        "READ", "UPDATE", "INSERT", "DELETE", "ALTER_TABLE", "ATTACH", "FUNCTION", "CREATE_TABLE", "CREATE_TRIGGER",
        "CREATE_VIEW", "CREATE_VTABLE", "DROP_TABLE", "DROP_TRIGGER", "DROP_VIEW", "CREATE_INDEX", "DROP_INDEX",
    )
}  # fmt: skip


class Watch:
    """What was done of each kind, as (kind, what) pairs, in ``done``."""

    def __init__(self) -> None:
        self.done: set[tuple[str, ...]] = set()

    def note(self, kind: str, *what: str) -> None:
        self.done.add((kind, *what))

    def told(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An event of Python's own auditing."""
        if event == "open":
            self._file("write" if _writes(arguments[1], arguments[2]) else "read", arguments[0])
        elif event in ON_FILES:
            self._file("write", arguments[0])
        elif event == "exec" and isinstance(arguments[0], CodeType) and arguments[0].co_name == "<module>":
            self.note("module", arguments[0].co_filename)
        elif event in ("socket.connect", "socket.getaddrinfo"):
            self.note("connect", str(arguments[1] if event == "socket.connect" else arguments[0]))
        elif event in PROGRAMS:
            self.note("program", event, str(arguments[0]))
        elif event == "sqlite3.connect":
            self._file("database", arguments[0])

    def _file(self, kind: str, path: Any) -> None:
        if not isinstance(path, int):
            self.note(kind, os.path.realpath(os.fsdecode(path)))

    def statement(self, action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action in ACTIONS:
            self.note("sql", ACTIONS[action], first or "", second or "")
        return sqlite3.SQLITE_OK


_watching: list[Watch] = []
_is_inside = threading.local()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or getattr(_is_inside, "yes", False):
        return
    _is_inside.yes = True
    try:
        _watching[-1].told(event, arguments)
    finally:
        _is_inside.yes = False


sys.addaudithook(_hook)


@sa.event.listens_for(sa.Pool, "connect")
def _listen(connection: Any, _: Any) -> None:
    """SQLite asks what it may do for each statement before it is run."""
    if _watching and isinstance(connection, sqlite3.Connection):
        connection.set_authorizer(_watching[-1].statement)


@contextmanager
def watched() -> Iterator[Watch]:
    """Everything that all threads of this process do inside."""
    watch = Watch()
    _watching.append(watch)
    try:
        yield watch
    finally:
        _watching.remove(watch)


def _writes(mode: Any, flags: Any) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def is_below(path: str, *folders: str | os.PathLike[str]) -> bool:
    """Whether a path is in one of these folders."""
    return any(path == os.fspath(folder) or path.startswith(f"{os.fspath(folder)}{os.sep}") for folder in folders)


def is_of_python(path: str) -> bool:
    """Whether a file is of Python's, of a package that is installed, or of pinnacle's own code."""
    return is_below(path, *LIBRARIES, "/proc", "/sys", "/dev", "/etc/localtime", "/usr/share/zoneinfo") or is_below(
        path, REPOSITORY / "plugins", REPOSITORY / "alembic", REPOSITORY / "tests"
    )
