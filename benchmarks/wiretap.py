"""Counts what a client of PostgreSQL asks, by listening to what goes over its connections."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

PORT, PIECE, HEADER = 5432, 65_536, 5
READY, EMPTY = b"Z", b"I"
"""Messages of the server: it waits for the next question, in which state of the transaction; the question was empty."""
IDLE = b"I"


@dataclass
class Tally:
    """``transactions``: those that ended, a statement outside any among them; empty questions are none.
    ``round_trips``: how often a client sent something after it had got something."""

    transactions: int = 0
    round_trips: int = 0
    pings: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def minus(self, other: Tally) -> Tally:
        return Tally(
            self.transactions - other.transactions, self.round_trips - other.round_trips, self.pings - other.pings
        )

    def now(self) -> Tally:
        with self.lock:
            return Tally(self.transactions, self.round_trips, self.pings)


@contextmanager
def tapped(url: str) -> Iterator[tuple[str, Tally]]:
    """A URL that leads to the same server, and the count of what goes over it."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="tap-") as directory, socket.socket(socket.AF_UNIX) as door:
        door.bind(str(Path(directory) / f".s.PGSQL.{PORT}"))
        door.listen()
        threading.Thread(target=_accept, args=(door, sa.make_url(url), tally), daemon=True).start()
        through = sa.make_url(url).set(host=None, port=None).update_query_dict({"host": directory, "port": str(PORT)})
        yield through.render_as_string(hide_password=False), tally


def _accept(door: socket.socket, url: sa.URL, tally: Tally) -> None:
    with contextlib.suppress(OSError):  # the door is closed
        while True:
            client, _ = door.accept()
            _Connection(client, _server(url), tally).start()


def _server(url: sa.URL) -> socket.socket:
    host = str(url.query.get("host", url.host))
    port = int(str(url.query.get("port", url.port or PORT)))
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    found = socket.socket(socket.AF_UNIX)
    found.connect(f"{host}/.s.PGSQL.{port}")
    return found


class _Connection:
    """Both ways of one connection, a thread each."""

    def __init__(self, client: socket.socket, server: socket.socket, tally: Tally) -> None:
        self._client, self._server, self._tally = client, server, tally
        self._is_answered, self._was_empty, self._left = True, False, b""

    def start(self) -> None:
        for way in (self._ask, self._answer):
            threading.Thread(target=self._until_closed, args=(way,), daemon=True).start()

    def _until_closed(self, way: object) -> None:
        with contextlib.suppress(OSError), self._client, self._server:
            way()  # type: ignore[operator]

    def _ask(self) -> None:
        while piece := self._client.recv(PIECE):
            with self._tally.lock:
                self._tally.round_trips += self._is_answered
                self._is_answered = False
            self._server.sendall(piece)

    def _answer(self) -> None:
        while piece := self._server.recv(PIECE):
            with self._tally.lock:
                self._is_answered = True
                self._read(piece)
            self._client.sendall(piece)

    def _read(self, piece: bytes) -> None:
        data, at = self._left + piece, 0
        while len(data) - at >= HEADER:
            kind, stop = data[at : at + 1], at + 1 + int.from_bytes(data[at + 1 : at + HEADER], "big")
            if stop > len(data):
                break
            if kind == EMPTY:
                self._was_empty = True
            elif kind == READY:
                self._tally.pings += self._was_empty
                self._tally.transactions += data[stop - 1 : stop] == IDLE and not self._was_empty
                self._was_empty = False
            at = stop
        self._left = data[at:]
