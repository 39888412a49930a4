"""The fake server's port on loopback: open, it accepts connections; shut, it refuses them and stays taken.

asyncio's own server loses a socket that was accepted just before it is closed (CPython's gh-109564), so the
door accepts by itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

HOST = "127.0.0.1"
BACKLOG = 1024


class Door:
    """A port of 127.0.0.1, held from the start; 0 finds a free one. Raises OSError where it is taken."""

    def __init__(self, port: int) -> None:
        # Not listening, this socket keeps the port ours while the door is shut.
        self._place = bound_socket(port)
        self.port: int = self._place.getsockname()[1]
        self._listening: socket.socket | None = None
        self._accepting: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        return self._listening is not None

    def open(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Accept connections on the running loop; each is given to a protocol of the factory's."""
        listening = bound_socket(self.port)
        try:
            listening.setblocking(False)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        self._listening = listening
        asyncio.get_running_loop().add_reader(listening, self._accept, listening, factory)

    def shut(self) -> None:
        """Refuse connections from now on; those just accepted may still be on their way to a protocol."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    async def settle(self) -> None:
        """Wait until every accepted connection has reached its protocol."""
        await asyncio.gather(*self._accepting)

    def close(self) -> None:
        """Give the port away."""
        self._place.close()

    def _accept(self, listening: socket.socket, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(BACKLOG):
            try:
                connection, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            connection.setblocking(False)
            task = loop.create_task(connect(connection, factory))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)


async def connect(connection: socket.socket, factory: Callable[[], asyncio.BaseProtocol]) -> None:
    await asyncio.get_running_loop().connect_accepted_socket(factory, connection)


def bound_socket(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except OSError:
        bound.close()
        raise
    return bound
