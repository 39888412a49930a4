"""Chunks of bytes on their way to and from a database: cut to size, and read ahead in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from queue import Empty, Queue
from typing import Any, TypeVar

T = TypeVar("T")

DEPTH = 4
STOP_POLL_S = 0.05


def pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in chunks of at most ``size``: large ones in parts, small ones as they are."""
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]


def read_ahead(items: Iterable[T], depth: int = DEPTH) -> Generator[T, None, None]:
    """The same items in the same order, made in a thread of its own, up to ``depth`` of them ahead.

    An error is raised where its item would have come. The thread ends with the items, or when this iterator is
    closed; a single item needs none.
    """
    source, taken = iter(items), 0
    for item in islice(source, 2):
        yield item
        taken += 1
    if taken < 2:
        return
    ahead = _Ahead(source, depth)
    try:
        yield from ahead.items()
    finally:
        ahead.stop()


class _Ahead:
    def __init__(self, source: Iterator[Any], depth: int) -> None:
        self._source, self._made = source, Queue[tuple[Any, BaseException | None]](depth)
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._make, name="pinnacle-read-ahead", daemon=True)
        self._thread.start()

    def items(self) -> Iterator[Any]:
        while True:
            item, ending = self._made.get()
            if ending is None:
                yield item
                continue
            self._thread.join()
            if isinstance(ending, _End):
                return
            raise ending

    def stop(self) -> None:
        """End the thread, which may be waiting for room."""
        self._is_stopped.set()
        while self._thread.is_alive():
            try:
                self._made.get(timeout=STOP_POLL_S)
            except Empty:
                continue

    def _make(self) -> None:
        ending: BaseException = _End()
        try:
            for item in self._source:
                self._made.put((item, None))
                if self._is_stopped.is_set():
                    break
            if isinstance(self._source, Generator):
                self._source.close()
        except BaseException as error:  # raised again where the items are taken
            ending = error
        self._made.put((None, ending))


class _End(Exception):
    """There are no more items."""
