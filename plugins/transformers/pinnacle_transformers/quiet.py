"""Keeps transformers' own lines and progress bars off the terminal, which shows the rows' progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_entering = threading.Lock()
_inside = 0
_before: tuple[int, bool] = (0, False)


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors are logged inside. The settings are the process's: the last thread to leave puts them back."""
    global _inside, _before
    from transformers.utils import logging

    library: Any = logging
    with _entering:
        if _inside == 0:
            _before = (library.get_verbosity(), library.is_progress_bar_enabled())
            library.set_verbosity_error()
            library.disable_progress_bar()
        _inside += 1
    try:
        yield
    finally:
        with _entering:
            _inside -= 1
            if _inside == 0:
                verbosity, had_bars = _before
                library.set_verbosity(verbosity)
                if had_bars:
                    library.enable_progress_bar()
