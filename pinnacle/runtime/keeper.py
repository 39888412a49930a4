"""One listener in one worker: folds its changes, works off its rows, sweeps when there is nothing else."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError

from pinnacle.backends.protocol import Backend, Capability, Feed, Target
from pinnacle.base.encoding import dump_key, load_key
from pinnacle.base.errors import BackendError, ConfigError, Conflict
from pinnacle.base.failpoints import failpoint
from pinnacle.base.listeners import NOTHING, Claim, ListenerRecord, Taken, next_sweep, sweep_position
from pinnacle.base.redaction import redacted
from pinnacle.base.rows import Page
from pinnacle.base.told import logger
from pinnacle.components.listener import Listener
from pinnacle.runtime.listener_prediction import ListenerPrediction, Share

log = logger(__name__)

POLL_S = 1.0
VERIFY_S = 2.0
SWEEP_ROWS = 5_000
MAX_CLAIM_ROWS = 10_000
FIRST_REST_S, LONGEST_REST_S = 0.25, 8.0
LOCKED_PAUSE_S = 0.02
ERROR_STANDS_S = 30.0
"""Longer than a worker takes to meet an error again that it cannot get past."""


class Keeper:
    """A thread that keeps one listener's output fresh.

    A provider that does not answer makes it rest, longer each time; its rows wait and no
    attempt of theirs is used up. A change of the table that it cannot work with pauses the
    listener, with the reason in the registry.
    """

    def __init__(
        self, backend: Backend, listener: Listener, record: ListenerRecord, target: Target, feed: Feed,
        prediction: ListenerPrediction, *, worker: str, lease_ttl_s: float,
    ) -> None:  # fmt: skip
        self.record = record
        self._backend, self._listener, self._target, self._feed = backend, listener, target, feed
        self._prediction = prediction
        self._lease_id, self._ttl = f"{worker}-{record.output}", lease_ttl_s
        self._signal, self._stop = threading.Event(), prediction.stop
        prediction.on_ready = self.wake
        self._thread = threading.Thread(target=self._loop, name=f"pinnacle-{record.identifier}", daemon=True)
        self._rest_s, self._verified_at, self._holds = 0.0, float("-inf"), False
        self._has_failed = record.error is not None
        self._ahead: Claim | None = None

    # -- from the worker's thread --------------------------------------------------------------------

    def start(self) -> None:
        log.info("listener %s: version %d is worked on here", self.record.identifier, self.record.version)
        self._thread.start()

    def wake(self) -> None:
        self._signal.set()

    def stop(self) -> None:
        self._stop.set()
        self._signal.set()

    def end(self, timeout_s: float) -> bool:
        """Stop, and wait at most so long; whether it has ended."""
        self.stop()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def is_as(self, record: ListenerRecord | None) -> bool:
        """Whether the keeper still is what the registry says, and lives."""
        if record is None or record.paused is not None or not self._thread.is_alive():
            return False
        mine = self.record
        return (record.identifier, record.version, record.writes) == (mine.identifier, mine.version, mine.writes)

    def update(self, record: ListenerRecord) -> None:
        wakes = record.sweep is not None and self.record.sweep is None
        self.record = record
        if wakes:
            self.wake()

    def renew(self) -> None:
        if self._holds or self._ahead is not None or self._prediction.is_working:
            self._target.renew(self._lease_id, self._ttl)

    # -- the keeper's own thread --------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._signal.clear()
            try:
                is_busy = self._step()
            except CancelledError:
                break
            except BaseException as error:  # the unit of work: noted, verified, tried again after a rest
                is_busy = False
                self._fail(error)
            if self._rest_s:
                self._stop.wait(self._rest_s * random.uniform(0.75, 1.25))
            elif not is_busy:
                self._signal.wait(POLL_S)
        self._let_go()

    def _step(self) -> bool:
        """One round; whether there may be more to do at once."""
        if time.monotonic() - self._verified_at > VERIFY_S:
            self._verify()
        limit = min(self._prediction.rows, MAX_CLAIM_ROWS)
        taken = Taken(claim=None) if self._ahead else self._feed.take(
            self._lease_id, limit, self._ttl, self.record.version
        )  # fmt: skip
        failpoint("after-fold")
        if not taken.is_current:
            self._stop.set()
            return False
        claim = taken.claim or self._claim(limit)
        if claim.keys or self._prediction.is_working:
            is_busy = self._work_off(claim, taken, is_full=len(claim.keys) >= limit)
        else:
            self._rest_s = 0.0
            is_busy = bool(taken.folded) or self._sweep()
        if not is_busy:
            self._take_back_error()
        return is_busy

    def _work_off(self, claim: Claim, taken: Taken, *, is_full: bool) -> bool:
        """Work a claim off, unless the listener is another by now; whether there may be more to do at once."""
        failpoint("after-claim")
        if taken.claim is None and self._is_superseded():
            self._feed.finish(claim, [], [])
            return False
        is_done = self._work(claim, taken.page, is_full=is_full)
        if is_full or self._rest_s:
            return True
        if not claim.keys:
            return bool(taken.folded) or self._sweep()
        # Nothing else waited: a steady trickle of changes must not hold a sweep up for ever.
        return self._sweep() or taken.page is None or taken.may_be_more or not is_done

    def _claim(self, limit: int) -> Claim:
        """What was claimed ahead, else what many rows there are."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            return ahead
        self._feed.fold()
        return NOTHING if self._stop.is_set() else self._feed.claim(self._lease_id, limit, self._ttl)

    def _work(self, claim: Claim, page: Page | None, *, is_full: bool) -> bool:
        """Work a claim off, and what is under way of earlier ones; whether no row was put back."""
        self._holds, worked = True, None
        began = time.monotonic()
        try:
            worked = self._prediction.work(
                claim, page, self._feed.settle, meanwhile=self._look_ahead if is_full else None
            )
        finally:
            self._holds = False
            failpoint("before-finish")
            for share in self._prediction.give_up() if worked is None else worked.shares:
                self._finish(share)
            failpoint("after-finish")
        if worked.done or worked.again:
            log.info(
                "listener %s: %d rows in %.2f s: %d written, %d failed, %d put back", self.record.identifier,
                worked.done + worked.again, time.monotonic() - began, worked.written, worked.failed, worked.again,
                extra={"listener": self.record.identifier, "output": self.record.output},
            )  # fmt: skip
        if worked.outage is not None:
            if not self._has_failed:
                log.warning("listener %s rests, and tries again: %s", self.record.identifier, worked.outage)
            self._note(worked.outage)
        if worked.outage is not None and not worked.computed:
            self._rest_s = min(LONGEST_REST_S, max(FIRST_REST_S, 2 * self._rest_s))
        else:
            self._rest_s = LOCKED_PAUSE_S if worked.again and not worked.done else 0.0
        if not worked.again and self._has_failed:
            self._backend.listeners.clear_error(self.record.output)
            self._has_failed = False
        return not worked.again

    def _finish(self, share: Share) -> None:
        """Take out of the work what is done; the rest is put back, or is under way still."""
        has_news = share.done or share.again or not share.kept
        if has_news and not share.is_finished:
            self._feed.finish(share.claim, share.done, share.again, share.kept)

    def _look_ahead(self) -> None:
        """Fold and claim what comes next while outputs are written, where that does not wait for the same lock."""
        if Capability.MANY_PROCESSES in self._backend.capabilities and not self._stop.is_set():
            self._feed.fold()
            ahead = self._feed.claim(self._lease_id, min(self._prediction.rows, MAX_CLAIM_ROWS), self._ttl)
            self._ahead = ahead if ahead.keys else None

    def _let_go(self) -> None:
        """Give back what was claimed ahead, and what is under way."""
        ahead, self._ahead = self._ahead, None
        try:
            for share in self._prediction.end():
                self._feed.finish(share.claim, [], [])
            if ahead is not None:
                self._feed.finish(ahead, [], [])
        except BackendError as error:  # it expires by itself
            log.warning("listener %s: a lease could not be given up: %s", self.record.identifier, error)

    def _sweep(self) -> bool:
        """Queue the rows of the next slice that need work; whether a sweep is under way."""
        record = self._current_record()
        if record is None or not self.is_as(record):
            return False
        if record.sweep is None:
            every = self._listener.sweep_every_s
            if not every or time.time() - record.swept_at < every:
                return False
            self._backend.listeners.request_sweep(record.output)
            return True
        position = sweep_position(record.sweep)
        after = None if position is None else load_key(position)
        page = self._target.read(after, SWEEP_ROWS)
        selected = self._listener.unmatched == "clear"
        keys = [
            *page.keys,
            *(row.key for row in page.unreadable),
            *self._target.orphans(after, page.last, selected=selected),
        ]
        if keys:
            self._feed.enqueue(keys)
            failpoint("in-sweep")
        following = None if page.last is None else next_sweep(record.sweep, dump_key(page.last))
        self._backend.listeners.advance_sweep(record.output, record.sweep, following)
        return True

    def _current_record(self) -> ListenerRecord | None:
        if self.record.sweep is None and time.time() - self.record.swept_at < (self._listener.sweep_every_s or 1e12):
            return self.record
        return self._registered()

    def _registered(self) -> ListenerRecord | None:
        return next((r for r in self._backend.listeners.all() if r.output == self.record.output), None)

    def _is_superseded(self) -> bool:
        """Whether the listener was removed, paused, or added in another version; then the keeper ends.

        Asked again after each claim: one of an older version would take for fresh, and out
        of the work, what the newer one's sweep has put there.
        """
        if self.is_as(self._registered()):
            return False
        self._stop.set()
        return True

    # -- trouble -----------------------------------------------------------------------------------------

    def _verify(self) -> None:
        reason = self._feed.verify()
        self._verified_at = time.monotonic()
        if reason is not None:
            self._pause(reason)

    def _pause(self, reason: str) -> None:
        log.error("listener %s is paused: %s", self.record.identifier, reason)
        self._backend.listeners.pause(self.record.output, reason)
        self._stop.set()

    def _take_back_error(self) -> None:
        """Nothing is left to do: an error that nobody met again for a while is over, whoever noted it."""
        record = self.record
        is_old = record.error_at is not None and time.time() - record.error_at > ERROR_STANDS_S
        if record.error is not None and is_old and not self._backend.listeners.has_work(record.output):
            self._backend.listeners.clear_error(record.output)
            self._has_failed = False

    def _fail(self, error: BaseException) -> None:
        """A failure of the database or of ours: look whether the table is to blame, else rest and go on."""
        # A newer version that is just being added owns the output before the registry tells of it, and one that a
        # predict fills the output with before a listener that follows its model is moved to it.
        is_to_be_moved = self._rest_s == 0 or self._listener.is_following
        is_final = isinstance(error, ConfigError) or (isinstance(error, Conflict) and not is_to_be_moved)
        self._rest_s = min(LONGEST_REST_S, max(FIRST_REST_S, 2 * self._rest_s))
        try:
            if self._is_superseded():
                return
            log.warning("listener %s: %s", self.record.identifier, error, exc_info=not isinstance(error, BackendError))
            if is_final:
                self._pause(redacted(str(error)))
                return
            self._target.release(self._lease_id)
            self._verify()
            self._note(error)
        except BackendError as second:
            log.warning("listener %s: %s", self.record.identifier, second)

    def _note(self, error: BaseException) -> None:
        self._has_failed = True
        message = redacted(f"{type(error).__name__}: {error}")[:500]
        self._backend.listeners.record_error(self.record.output, message)
