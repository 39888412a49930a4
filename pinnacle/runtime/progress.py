"""What a terminal shows of a predict, a bar, and of a fit, a line; elsewhere where it was asked for."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pinnacle.base.rows import RowError
from pinnacle.base.told import plain
from pinnacle.runtime.result import PredictResult


def is_shown(shown: bool | None) -> bool:
    """Whether progress is told: as asked for, else on a terminal."""
    return sys.stderr.isatty() if shown is None else shown


def tell_failures(result: PredictResult, newest: RowError | None, shown: bool | None) -> None:
    """End what a terminal shows with a line on the rows that failed, if any, and how to see them."""
    count = result.failed + result.set_aside
    if count and is_shown(shown):
        example = "" if newest is None else f" (key {newest.key!r}: {newest.error}: {newest.message[:200]})"
        rows = "1 row" if count == 1 else f"{count:,} rows"
        line = f"{result.output}: {rows} failed{example}; see db.errors(), or: pinnacle errors URL"
        sys.stderr.write(plain(" ".join(line.split())) + "\n")


@contextmanager
def progress_bar(label: str, total: Callable[[], int], shown: bool | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves the bar by some rows; safe to call from several threads.

    ``shown=None`` shows it on a terminal only. ``total`` is asked only when it is shown:
    counting is a query.
    """
    if not is_shown(shown):
        yield lambda rows: None
        return
    import click

    lock = threading.Lock()
    with click.progressbar(
        length=total(), label=plain(label), file=sys.stderr, show_pos=True, update_min_steps=1, hidden=False
    ) as bar:

        def move(rows: int) -> None:
            if rows:
                with lock:
                    bar.update(rows)

        yield move


class ProgressLine:
    """One line on a terminal: steps, loss, and when it will be done."""

    def __init__(self, label: str, is_shown: bool) -> None:
        self._label, self._is_shown = plain(label), is_shown
        self._loss: float | None = None
        self._started: tuple[float, int] | None = None
        self._drawn_at = 0.0

    def note(self, loss: float | None) -> None:
        """Remember the last loss."""
        if loss is not None:
            self._loss = loss

    def move(self, step: int, max_steps: int) -> None:
        """Draw it, ten times a second at most."""
        now = time.monotonic()
        if self._started is None:
            self._started = (now, step)
        if not self._is_shown or (now - self._drawn_at < 0.1 and step < max_steps):
            return
        self._drawn_at = now
        since, first = self._started
        loss = "" if self._loss is None else f", loss {self._loss:.4f}"
        line = f"{self._label}: step {step}/{max_steps}{loss}"
        if step > first:
            left = round((max_steps - step) * (now - since) / (step - first))
            line += f", {left // 60}:{left % 60:02d} left"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r" + line[:width].ljust(width))
        sys.stderr.flush()

    def close(self) -> None:
        """End the line."""
        if self._is_shown and self._drawn_at:
            sys.stderr.write("\n")
