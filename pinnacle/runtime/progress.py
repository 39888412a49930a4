"""The progress bar of a predict, on a terminal or where it was asked for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, total: Callable[[], int], shown: bool | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves the bar by some rows; safe to call from several threads.

    ``shown=None`` shows it on a terminal only. ``total`` is asked only when it is shown:
    counting is a query.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda rows: None
        return
    import click

    lock = threading.Lock()
    with click.progressbar(
        length=total(), label=label, file=sys.stderr, show_pos=True, update_min_steps=1, hidden=False
    ) as bar:

        def move(rows: int) -> None:
            if rows:
                with lock:
                    bar.update(rows)

        yield move
