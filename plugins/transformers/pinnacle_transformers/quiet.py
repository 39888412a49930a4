"""Keeps the libraries' own lines and progress bars off the terminal, which shows the rows' progress."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_entering = threading.Lock()
_inside = 0
_before: tuple[int, bool, int] = (0, False, 0)
# In 8 bits it says at every layer of every token that inputs will be cast.
_bitsandbytes = logging.getLogger("bitsandbytes")


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors are logged inside. The settings are the process's: the last thread to leave puts them back."""
    global _inside, _before
    from transformers.utils import logging as settings

    library: Any = settings
    with _entering:
        if _inside == 0:
            _before = (library.get_verbosity(), library.is_progress_bar_enabled(), _bitsandbytes.level)
            library.set_verbosity_error()
            _bitsandbytes.setLevel(logging.ERROR)
            library.disable_progress_bar()
        _inside += 1
    try:
        yield
    finally:
        with _entering:
            _inside -= 1
            if _inside == 0:
                _put_back(library, *_before)


def _put_back(library: Any, verbosity: int, had_bars: bool, level: int) -> None:
    library.set_verbosity(verbosity)
    _bitsandbytes.setLevel(level)
    if had_bars:
        library.enable_progress_bar()
