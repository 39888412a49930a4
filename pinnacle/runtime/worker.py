"""The worker: keeps the outputs of a database's listeners fresh until it is told to stop.

The calling thread waits for changes, looks at the registry now and then, and renews what
is leased. Every listener has a thread of its own, so that a slow model delays no other.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pinnacle.backends.protocol import Backend, Wake
from pinnacle.base.errors import BackendError, DatabaseReplaced, PinnacleError
from pinnacle.base.listeners import ListenerRecord
from pinnacle.base.redaction import redacted
from pinnacle.base.settings import Settings
from pinnacle.base.told import logger
from pinnacle.runtime.keeper import Keeper

log = logger(__name__)

POLL_S = 1.0
REGISTRY_S = 0.5
FOLLOW_S = 1.0
ATTENDS_A_LEASE = 3
PATIENCE_S = 0.05
RELOAD_S = 10.0
MAX_MESSAGE = 500

T = TypeVar("T")


@dataclass(frozen=True)
class Trouble:
    """What could not be done for one listener: ``what``, when, and as it was shown."""

    what: object
    at: float
    message: str

    def is_recent(self, what: object) -> bool:
        """Whether the same failed just now, and is not to be tried yet."""
        return self.what == what and time.monotonic() - self.at < RELOAD_S


class Worker:
    """All listeners of one database, worked on by this process.

    ``build`` makes the keeper of a listener from its record; PinnacleError where this process
    cannot (its model's code is not here), which is tried again later. ``behind`` tells which of
    all listeners are to follow their models, by output, and to which version; ``follow``
    moves one, and says whether it did.
    """

    def __init__(
        self, backend: Backend, settings: Settings, build: Callable[[ListenerRecord, str], Keeper],
        behind: Callable[[Collection[ListenerRecord]], Mapping[int, int]],
        follow: Callable[[ListenerRecord, int], bool],
    ) -> None:  # fmt: skip
        self._backend, self._settings, self._build = backend, settings, build
        self._behind, self._follow = behind, follow
        self.identifier = uuid.uuid4().hex
        self._since, self._attended_at = time.time(), float("-inf")
        self.standing_by_for: str | None = None
        self._keepers: dict[int, Keeper] = {}
        self._unbuilt: dict[int, Trouble] = {}
        self._unmoved: dict[int, Trouble] = {}
        self.followed_at = float("-inf")

    @property
    def listeners(self) -> list[str]:
        """The listeners that are worked on now, by identifier."""
        return sorted(keeper.record.identifier for keeper in list(self._keepers.values()))

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; what is in hand is finished and what was computed is written."""
        if not self._backend.seals.seal.is_on:
            log.warning("no secret is set (PINNACLE_SECRET): definitions are not authenticated")
        wake = self._backend.wake()
        try:
            self._loop(wake, stop)
        finally:
            wake.close()
            self._end_all()
            self._step_down()

    def _loop(self, wake: Wake, stop: threading.Event) -> None:
        looked_at = float("-inf")
        while not stop.is_set():
            try:
                if time.monotonic() - looked_at >= REGISTRY_S:
                    looked_at = time.monotonic()
                    self._look()
                has_changes = wake.wait(min(POLL_S, REGISTRY_S), stop)
            except DatabaseReplaced:
                raise
            except BackendError as error:
                log.warning("the worker cannot reach its database: %s", error)
                stop.wait(POLL_S)
                continue
            for keeper in self._keepers.values() if has_changes else ():
                keeper.wake()

    # -- the registry ------------------------------------------------------------------------------

    def _look(self) -> None:
        """Start, replace and end keepers as the registry says; renew leases.

        A keeper that has rows in hand ends when it is done with them, and only then is it replaced.
        """
        self._backend.check()
        self.standing_by_for = self._backend.lead(self.identifier, self._settings.lease_ttl_s)
        self._attend()
        records = self._records()
        if self._follow_models(records):
            records = self._records()
        for number, keeper in list(self._keepers.items()):
            if keeper.is_as(records.get(number)):
                keeper.update(records[number])
            elif keeper.end(PATIENCE_S):
                del self._keepers[number]
        for number, record in records.items():
            if number not in self._keepers and record.paused is None:
                self._start(record)
        for keeper in self._keepers.values():
            keeper.renew()

    def _attend(self) -> None:
        """Now and then, show that this worker lives, also where it stands by."""
        if time.monotonic() - self._attended_at > self._settings.lease_ttl_s / ATTENDS_A_LEASE:
            self._backend.listeners.attend(self.identifier, self._since, self._settings.lease_ttl_s)
            self._attended_at = time.monotonic()

    def _records(self) -> dict[int, ListenerRecord]:
        return {} if self.standing_by_for else {record.output: record for record in self._backend.listeners.all()}

    def _start(self, record: ListenerRecord) -> None:
        keeper = self._attempt(lambda: self._build(record, self.identifier), record, record.version, self._unbuilt)
        if keeper is not None:
            self._keepers[record.output] = keeper
            keeper.start()

    def _attempt(
        self, act: Callable[[], T], record: ListenerRecord, what: object, troubles: dict[int, Trouble], so: str = ""
    ) -> T | None:
        """Do something for one listener; None where it failed, which is shown, or did just now.

        Nothing is shown of a listener that is another by now: it failed for that.
        """
        trouble = troubles.get(record.output)
        if trouble is not None and trouble.is_recent(what):
            return None
        try:
            return act()
        except Exception as error:  # the unit of work: one listener, beside which the others go on
            if any((r.output, r.version) == (record.output, record.version) for r in self._backend.listeners.all()):
                is_ours = isinstance(error, PinnacleError)
                message = redacted(f"{so}{error if is_ours else f'{type(error).__name__}: {error}'}")[:MAX_MESSAGE]
                log.warning("listener %s: %s", record.identifier, message, exc_info=not is_ours)
                self._backend.listeners.record_error(record.output, message)
                troubles[record.output] = Trouble(what, time.monotonic(), message)
            return None

    # -- newer versions of models ------------------------------------------------------------------

    def _follow_models(self, records: Mapping[int, ListenerRecord]) -> bool:
        """Now and then, move the listeners that are behind their models; whether any was moved."""
        began = time.monotonic()
        if began - self.followed_at < FOLLOW_S:
            return False
        try:
            behind = self._behind(records.values())
            self._forget_unmoved(records, behind)
            has_moved = False
            for output, version in behind.items():
                if time.monotonic() - began > FOLLOW_S:  # the others next time: leases are to be renewed
                    break
                has_moved |= self._move(records[output], version)
            return has_moved
        finally:
            self.followed_at = began

    def _forget_unmoved(self, records: Mapping[int, ListenerRecord], behind: Mapping[int, int]) -> None:
        """Take away the error for a version that is not the newest any more, because it was removed."""
        for output in self._unmoved.keys() - behind.keys():
            trouble, record = self._unmoved.pop(output), records.get(output)
            if record is not None and record.error == trouble.message:
                self._backend.listeners.clear_error(output)

    def _move(self, record: ListenerRecord, version: int) -> bool:
        what, so = (record.version, version), f"it does not follow its model to version {version}: "
        return bool(self._attempt(lambda: self._follow(record, version), record, what, self._unmoved, so))

    def _end_all(self) -> None:
        """Let each keeper finish what it has in hand, under its lease."""
        for keeper in self._keepers.values():
            keeper.stop()
        while self._keepers:
            number, keeper = next(iter(self._keepers.items()))
            if keeper.end(POLL_S):
                del self._keepers[number]
                continue
            try:
                for other in self._keepers.values():
                    other.renew()
            except BackendError as error:
                log.warning("leases could not be renewed: %s", error)

    def _step_down(self) -> None:
        try:
            self._backend.lead(self.identifier, 0.0)
            self._backend.listeners.attend(self.identifier, self._since, 0.0)
        except BackendError as error:  # it expires by itself
            log.warning("the worker's lease could not be given up: %s", error)
