"""Reading the documents of a find() with skip() or limit(), in bounded pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from pinnacle.backends.mongodb.target.target import MongoTarget
from pinnacle.base.rows import Key, Page

KEYS_A_STATEMENT = 1_000


class WindowTarget(MongoTarget):
    """The rows in a window, to be read only.

    Their keys are asked for once, at the first read, and held: documents that come or change meanwhile would move it.
    A page ends at a place in one statement's keys: where these begin, and the last that was read or None.
    """

    def count(self) -> int:
        return len(self._chosen)

    def read(self, after: Key | None, limit: int, *, overwrite: bool = False) -> Page:
        start, last = after or (0, None)
        while keys := self._chosen[start : start + KEYS_A_STATEMENT]:
            if rows := self._rows.after(self._key_at(last), limit, {"_id": {"$in": keys}}):
                page = self._page(rows, overwrite, 0, self._recorded_between)
                is_whole = len(rows) == len(keys)
                return replace(page, last=(start + len(keys), None) if is_whole else (start, page.last))
            start, last = start + KEYS_A_STATEMENT, None
        return Page(keys=[], inputs=[], identities=[], witnesses=[], read=0, fresh=0, set_aside=0, last=None)

    @cached_property
    def _chosen(self) -> Sequence[Any]:
        if (window := self._source.window) is None:
            raise TypeError("all documents of this source are meant")
        return self._wire.keys_in(self._source.table, self._source.filter, window)
