"""How many rows to read at once: steered by time and bytes, from the pages before."""

from __future__ import annotations

from pinnacle.base.rows import Page
from pinnacle.components.model import CallStyle, Model
from pinnacle.runtime.memory import bytes_of

FIRST_PAGE_ROWS = 10
"""Few, because nothing is known of the rows yet: they may be large, or the model slow."""

FIRST_BATCH_PAGE_ROWS = 100
FIRST_WAVES, MOST_FIRST_ROWS = 2, 256
"""A model that is called many at once gets a first page that fills its places so often, as they are idle at its end."""

LEAST_WAVES = 4
GROWTH = 8
MAX_PAGE_ROWS = 10_000
MAX_PAGE_BYTES = 16 * 2**20
READ_TARGET_S = 0.1
WORK_TARGET_S = 2.0
LONG_WORK_TARGET_S = 12.0
"""Batch models get longer pages: the more rows are sorted by length, the less is padded."""

FLOW_TARGET_S = 0.25
"""Models that are called many at once get short ones, as the next page comes before a place is idle: few rows are in
hand, and leased."""


class FixedSize:
    """Always as many ``rows``."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def after_read(self, page: Page, seconds: float) -> None:
        return None


class PageSize:
    """``rows`` to ask for next. Short pages keep reads short, leases shared and memory bounded."""

    def __init__(self, model: Model, batch_size: int) -> None:
        self.rows = _first_rows(model)
        self._target_s = LONG_WORK_TARGET_S if model.call_style is CallStyle.BATCH else WORK_TARGET_S
        if model.call_style is CallStyle.ASYNC or model.concurrency > 1:
            self._target_s = FLOW_TARGET_S
        self._may_grow = False
        a_call = batch_size if model.call_style is CallStyle.BATCH else 1
        waves = LEAST_WAVES if a_call == 1 else 1
        self._least = min(MAX_PAGE_ROWS, max(FIRST_PAGE_ROWS, model.concurrency * waves * a_call))

    def after_read(self, page: Page, seconds: float) -> None:
        """Halve after a slow read; grow where all rows were fresh; never beyond the byte limit."""
        if seconds > READ_TARGET_S:
            self.rows = max(FIRST_PAGE_ROWS, self.rows // 2)
        elif not page.keys:
            self.rows = min(MAX_PAGE_ROWS, self.rows * GROWTH)
        a_row = bytes_of(page.inputs) / max(1, len(page.inputs))
        if a_row * self.rows > MAX_PAGE_BYTES:
            self.rows = max(1, int(MAX_PAGE_BYTES / a_row))
        self._may_grow = seconds <= READ_TARGET_S and a_row * self.rows * GROWTH <= MAX_PAGE_BYTES

    def after_room(self) -> None:
        """Grow, where a page left places of the model idle."""
        if self._may_grow:
            self.rows = max(self.rows, min(self._least, self.rows * GROWTH))

    def after_work(self, rows: int, seconds: float) -> None:
        """Aim at the target duration, growing at most `GROWTH` times."""
        fitting = int(rows * self._target_s / max(seconds, 1e-6))
        self.rows = max(min(self._least, self.rows), min(MAX_PAGE_ROWS, fitting, self.rows * GROWTH))


def _first_rows(model: Model) -> int:
    if model.call_style is CallStyle.BATCH:
        return FIRST_BATCH_PAGE_ROWS
    if model.call_style is CallStyle.ASYNC:
        return max(FIRST_PAGE_ROWS, min(MOST_FIRST_ROWS, FIRST_WAVES * model.concurrency))
    return FIRST_PAGE_ROWS
