"""The rows of a target a page at a time, each page leased by its prediction before it is worked on."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import ClassVar

from pinnacle.base.errors import BackendError
from pinnacle.base.rows import Key, Page
from pinnacle.base.told import logger
from pinnacle.runtime.held import Held
from pinnacle.runtime.page_size import FixedSize, PageSize
from pinnacle.runtime.scope import Scope

log = logger(__name__)

RENEW_AGAIN_S = 0.5
"""The pause after a renewal that failed: leases are to outlive an outage of their database by little."""

Grant = tuple[str, Sequence[int], bool]
"""What `Target.claim` returns: the lease, the positions that are granted, and whether to read them again."""


class Pages:
    """Reads pages in key order, and claims them against other predictions under a lease that it renews."""

    _left: ClassVar[dict[str, float]] = {}
    """Owners of this process whose leases could not be given up, and when these end by themselves."""

    def __init__(self, scope: Scope, size: PageSize | FixedSize, ttl_s: float) -> None:
        self.owner = uuid.uuid4().hex
        self._scope, self._target, self._result = scope, scope.target, scope.result
        self._size, self._ttl_s = size, ttl_s
        self._held: list[Held] = []

    def read(self) -> Iterator[Page]:
        """The pages that have rows which need work, up to the limit; nobody claims them."""
        after: Key | None = None
        limit, overwrite = self._scope.options.limit, self._scope.options.overwrite
        while limit is None or self._result.read < limit:
            rows = self._size.rows if limit is None else min(self._size.rows, limit - self._result.read)
            began = time.perf_counter()
            page = self._scope.database.run(partial(self._target.read, after, rows, overwrite=overwrite))
            if page.last is None:
                return
            self._size.after_read(page, time.perf_counter() - began)
            after = page.last
            self._result.read += page.read
            self._count(page, 0)
            if page.has_work:
                yield page

    def claimed(self) -> Iterator[Held]:
        """The same pages, claimed; the next one is read and its claim queued before this one is worked on."""
        ahead: tuple[Page, Future[Grant]] | None = None
        for page in self.read():
            claim = self._start_claim(page)
            if ahead is not None:
                yield self._granted(*ahead)
            ahead = (page, claim)
        if ahead is not None:
            yield self._granted(*ahead)

    def claim(self, page: Page) -> Held:
        """Claim a page now."""
        return self._granted(page, self._start_claim(page))

    def reread(self, keys: Sequence[Key]) -> Page:
        """Rows as they are now; those that others finished count as fresh, those gone as changed."""
        page = self._scope.database.run(partial(self._target.reread, keys, overwrite=self._scope.options.overwrite))
        self._count(page, len(keys) - page.read)
        return page

    def _count(self, page: Page, gone: int) -> None:
        """Count the rows that need no work."""
        self._result.fresh += page.fresh
        self._result.set_aside += page.set_aside
        self._result.changed += gone
        self._scope.progress(page.read + gone - len(page.keys) - len(page.unreadable))

    def _start_claim(self, page: Page) -> Future[Grant]:
        """On the writer's thread: lease the page, and release the pages that are all written."""
        done = [held for held in self._held if held.is_written()]
        self._held = [held for held in self._held if held not in done]
        claim = partial(self._target.claim, self.owner, page, [held.lease for held in done], self._ttl_s)
        return self._scope.thread.do(partial(self._scope.database.run, claim))

    def _granted(self, page: Page, claim: Future[Grant]) -> Held:
        lease, granted, is_outdated = claim.result()
        mine, taken = page.take(granted), set(granted)
        others = [key for i, key in enumerate(page.keys) if i not in taken] if len(granted) < len(page.keys) else []
        if is_outdated and mine.keys:
            again = self.reread(mine.keys)
            mine = replace(again, unreadable=[*mine.unreadable, *again.unreadable])
        held = Held(page=mine, lease=lease, taken=others)
        if granted:
            self._held.append(held)
        return held

    # -- the leases ------------------------------------------------------------------------------------

    @contextmanager
    def leased(self) -> Iterator[None]:
        """Renew the leases meanwhile; at the end all are given up."""
        self._release_left()
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stop,), name="pinnacle-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            try:
                self._scope.database.run(partial(self._target.release, self.owner))
            except BackendError as error:  # they expire by themselves, and the first error matters more
                self._left[self.owner] = time.monotonic() + self._ttl_s
                log.warning("leases of prediction %s could not be released: %s", self.owner, error)

    def _release_left(self) -> None:
        """Give up what earlier predictions could not, whose database was away: the owner is of one database alone."""
        for owner, ends_at in list(self._left.items()):
            if time.monotonic() > ends_at:
                self._left.pop(owner, None)
            else:
                self._scope.database.run(partial(self._target.release, owner))

    def _beat(self, stop: threading.Event) -> None:
        pause_s = self._ttl_s / 3
        while not stop.wait(pause_s):
            try:
                self._target.renew(self.owner, self._ttl_s)
                pause_s = self._ttl_s / 3
            except BackendError as error:
                pause_s = min(pause_s, RENEW_AGAIN_S)
                log.warning("leases of prediction %s could not be renewed: %s", self.owner, error)
