"""When a request may start: one limiter for each provider and account of the process.

Every model, thread and listener that shares an account waits in one queue, first come
first served. Declared limits are exact; without any the pace is learned. While a provider
is down nothing is sent to it but one probe now and then. Whether it is down, or only some
requests meet no answer, a request that was answered before tells: the witness.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pinnacle.base import forks
from pinnacle.base.errors import ConfigError, ProviderUnavailable
from pinnacle.llm.pace import LONGEST_WAIT_S, Pace

FAILURES_TO_OPEN = 5
FIRST_BREAK_S, LONGEST_BREAK_S = 0.5, 2.0
PROBE_LOOK_S = 0.02
WITNESS_STANDS_S = 60.0

REMEMBERED_STARTS = 10_000
"""What a limit that is declared later knows of the past."""

RateLimit = tuple[int, float]


class Window:
    """At most ``count`` starts in any ``seconds``, as early as that allows."""

    def __init__(self, count: int, seconds: float, earlier: Iterable[float] = ()) -> None:
        self.count, self.seconds = count, seconds
        self._starts: deque[float] = deque(earlier, maxlen=count)

    def wait_s(self, now: float) -> float:
        return self._starts[0] + self.seconds - now if len(self._starts) == self.count else 0.0

    def started(self, now: float) -> None:
        self._starts.append(now)


class Breaker:
    """Whether a provider answers at all: opened by failures in a row, closed by the first success.

    ``is_asking``: a witness is being asked whether it is down.
    """

    def __init__(self) -> None:
        self.reason: BaseException | None = None
        self._in_a_row, self._most = 0, FAILURES_TO_OPEN
        self._break_s, self._retry_at, self.is_probing, self.is_asking = 0.0, 0.0, False, False

    @property
    def is_open(self) -> bool:
        return self.reason is not None

    def admit(self, now: float) -> None:
        """ProviderUnavailable while it is open, but for one probe when the break is over."""
        if self.reason is None:
            return
        if now < self._retry_at or self.is_probing:
            raise ProviderUnavailable(
                f"the provider does not answer ({type(self.reason).__name__}: {self.reason}); "
                f"it is tried again every {self._break_s:.1f} s"
            ) from self.reason
        self.is_probing = True

    def succeeded(self) -> None:
        # Where others are served, failures in a row are those of some requests: it takes more of them to ask again.
        self._most = 2 * self._most if self.is_asking else FAILURES_TO_OPEN
        self.reason, self._in_a_row, self._break_s = None, 0, 0.0
        self.is_probing = self.is_asking = False

    def failed(self, now: float, reason: BaseException, *, can_ask: bool = False) -> bool:
        """Count a failure; whether it is up to who met it to ask a witness, where one can be asked."""
        self._in_a_row += 1
        is_opened = self.is_probing or (self.reason is None and self._in_a_row >= self._most)
        if self.is_asking or not is_opened:
            return False
        self.reason = reason
        self.is_probing = self.is_asking = can_ask
        if not can_ask:
            self._rest(now)
        return can_ask

    def ask(self) -> bool:
        """Whether who doubts may ask a witness now: nobody else does, and it is not known that nothing is answered.
        Others go on meanwhile."""
        if self.is_asking or self.is_open:
            return False
        self.is_asking = True
        return True

    def doubted(self, now: float, reason: BaseException) -> None:
        """The witness met no answer either."""
        self.is_probing = self.is_asking = False
        self.reason = reason
        self._rest(now)

    def gave_up(self) -> None:
        """The probe was cancelled and told nothing."""
        self.is_probing = self.is_asking = False

    def _rest(self, now: float) -> None:
        self._most = FAILURES_TO_OPEN
        self._break_s = min(LONGEST_BREAK_S, max(FIRST_BREAK_S, 2 * self._break_s)) * random.uniform(0.9, 1.1)
        self._retry_at = now + self._break_s


class _Waiter:
    """A coroutine's place in the queue, on whatever loop it runs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.turn: asyncio.Future[None] = self.loop.create_future()

    def wake(self) -> None:
        self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)


@dataclass(frozen=True)
class Witness:
    """What sends a request again that was answered, how long that took, and when it was."""

    send: Callable[[], Awaitable[Any]]
    took_s: float
    at: float


class Account:
    """One account with one provider. Safe to use from several threads and event loops."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.pace, self.breaker, self.successes = Pace(), Breaker(), 0
        self._clock, self._lock = clock, threading.Lock()
        self._declared: dict[str, RateLimit] = {}
        self._windows: dict[RateLimit, Window] = {}
        self._starts: deque[float] = deque(maxlen=REMEMBERED_STARTS)
        self._waiting: deque[_Waiter] = deque()
        self._served: set[str] = set()
        self._witnesses: dict[str, Witness] = {}

    def declare(self, limit: RateLimit, *, by: str) -> None:
        """Keep a model's limit for all who share the account, in place of what that model declared before."""
        with self._lock:
            if self._declared.get(by) == limit:
                return
            self._declared[by] = limit
            kept = {one: self._windows.get(one) for one in self._declared.values()}
            self._windows = {one: window or Window(*one, self._starts) for one, window in kept.items()}

    async def start(self) -> float:
        """Wait for one request's turn and time, and tell when it is; ProviderUnavailable while the provider is down."""
        waiter: _Waiter | None = None
        try:
            while (delay := self._start_or_delay(waiter)) is not None:
                if waiter is None:
                    waiter = self._queue_up()
                    continue
                if self._waiting and self._waiting[0] is waiter:
                    await asyncio.sleep(delay)
                else:
                    await waiter.turn
            return self._clock()
        finally:
            if waiter is not None:
                self._leave(waiter)

    async def start_witness(self) -> float:
        """Wait for the time of a request that tells whether others are served, before all that wait for what it tells;
        when it is."""
        while (delay := self._witness_delay()) > 0:
            await asyncio.sleep(delay)
        return self._clock()

    def succeeded(
        self, headers: Mapping[str, str], started: float | None = None, *, by: str = "",
        witness: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:  # fmt: skip
        """An answer of a model, to a request that ``started`` then, by default just now; ``witness`` sends it, or one
        like it, again: of these the quickest of late is kept."""
        with self._lock:
            now = self._clock()
            self.successes += 1
            self._served.add(by)
            if witness is not None:
                known, took_s = self._witnesses.get(by), now - (now if started is None else started)
                if known is None or took_s <= known.took_s or now - known.at > WITNESS_STANDS_S:
                    self._witnesses[by] = Witness(witness, took_s, now)
            self.breaker.succeeded()
            self.pace.accepted(now, headers, started)

    def has_served(self, model: str) -> bool:
        """Whether a request of this model was ever answered."""
        with self._lock:
            return model in self._served

    def witness(self, model: str) -> Callable[[], Awaitable[Any]] | None:
        """What sends a request of the model again that was answered; None where none was."""
        with self._lock:
            found = self._witnesses.get(model)
            return None if found is None else found.send

    def throttled(
        self, headers: Mapping[str, str], started: float | None = None, *, most_s: float = LONGEST_WAIT_S
    ) -> None:
        """A 429: the provider is there, and says to slow down; nothing is held up for more than ``most_s``."""
        with self._lock:
            self.breaker.succeeded()
            self.pace.refused(self._clock(), headers, started, most_s=most_s)

    @property
    def is_paused(self) -> bool:
        """Whether refusals hold everything up now."""
        return self.pace.paused_until > self._clock()

    def failed(self, reason: BaseException, *, can_ask: bool = False) -> bool:
        """No answer, or one that means the provider cannot serve now; whether a witness is to be asked, where one
        can be."""
        with self._lock:
            return self.breaker.failed(self._clock(), reason, can_ask=can_ask)

    def ask(self) -> bool:
        """Whether who doubts that others are served may ask a witness now."""
        with self._lock:
            return self.breaker.ask()

    def doubted(self, reason: BaseException) -> None:
        """A witness met no answer."""
        with self._lock:
            self.breaker.doubted(self._clock(), reason)

    def refused(self) -> None:
        """The provider is there, and does not take the request itself."""
        with self._lock:
            self.breaker.succeeded()

    def gave_up(self) -> None:
        """A request was cancelled."""
        with self._lock:
            self.breaker.gave_up()

    def _start_or_delay(self, waiter: _Waiter | None) -> float | None:
        """None when the request starts now; else how long to wait, at the head of the queue."""
        with self._lock:
            now = self._clock()
            if self._waiting and self._waiting[0] is not waiter:
                return 0.0
            delay = self._delay(now)
            if delay > 0:
                return delay
            if self.breaker.is_probing:  # what comes of it is known soon, and then is true for this one too
                return PROBE_LOOK_S
            self.breaker.admit(now)
            self._note_start(now)
            return None

    def _witness_delay(self) -> float:
        """0 when a witness starts now; else how long to wait."""
        with self._lock:
            now = self._clock()
            delay = self._delay(now)
            if delay <= 0:
                self._note_start(now)
            return delay

    def _delay(self, now: float) -> float:
        return max(self.pace.wait_s(now), *(w.wait_s(now) for w in self._windows.values()), 0.0)

    def _note_start(self, now: float) -> None:
        self.pace.started(now)
        self._starts.append(now)
        for window in self._windows.values():
            window.started(now)

    def _queue_up(self) -> _Waiter:
        waiter = _Waiter()
        with self._lock:
            self._waiting.append(waiter)
        return waiter

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            was_first = self._waiting[0] is waiter
            self._waiting.remove(waiter)
            following = self._waiting[0] if was_first and self._waiting else None
        if following is not None:
            following.wake()


class Gate:
    """At most ``limit`` requests in flight, first come first served, across threads and loops."""

    def __init__(self, limit: int) -> None:
        self._limit, self._free = limit, limit
        self._lock, self._waiting = threading.Lock(), deque[_Waiter]()

    async def __aenter__(self) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            waiter = _Waiter()
            self._waiting.append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                    raise
            self._release()  # the place was given to it already
            raise

    async def __aexit__(self, *error: object) -> None:
        self._release()

    @property
    def is_busy(self) -> bool:
        """Whether anything is in flight."""
        return self._free < self._limit

    def resize(self, limit: int) -> None:
        """Let so many in from now on; those that are in finish."""
        if limit != self._limit:
            with self._lock:
                more, self._limit = limit - self._limit, limit
                self._free += more
            self._let_in()

    def _release(self) -> None:
        with self._lock:
            self._free += 1
        self._let_in()

    def _let_in(self) -> None:
        """Give free places to those who wait longest."""
        with self._lock:
            following = []
            while self._free > 0 and self._waiting:
                self._free -= 1
                following.append(self._waiting.popleft())
        for waiter in following:
            waiter.wake()


_accounts: defaultdict[tuple[str, str], Account] = defaultdict(Account)
_gates: dict[tuple[str, str, str], Gate] = {}
_registry = forks.lock()


def _renew() -> None:
    """Who waits in the parent does not wait here."""
    forks.leave_to_parent(*_accounts.values(), *_gates.values())
    _accounts.clear()
    _gates.clear()


forks.renew_in_child(_renew)


def account_of(provider: str, secret: str | None) -> Account:
    """The account of a key with a provider; the key itself is not kept."""
    with _registry:
        return _accounts[provider, _digest(secret)]


def gate_of(provider: str, secret: str | None, model: str, limit: int) -> Gate:
    """The gate of all operators of this process that ask one model under one account."""
    place = (provider, _digest(secret), model)
    with _registry:
        gate = _gates.get(place)
        if gate is None:
            gate = _gates[place] = Gate(limit)
    gate.resize(limit)
    return gate


def check_rate_limit(rate_limit: object) -> RateLimit | None:
    """``(n, seconds)`` as it is kept; None for None. ConfigError for anything else."""
    if rate_limit is None:
        return None
    if isinstance(rate_limit, (tuple, list)) and len(rate_limit) == 2:
        count, seconds = rate_limit
        is_count = isinstance(count, int) and not isinstance(count, bool) and count > 0
        if is_count and isinstance(seconds, (int, float)) and 0 < seconds < float("inf"):
            return count, float(seconds)
    raise ConfigError(
        f"rate_limit is (requests, seconds), at most so many starts in any so many seconds, not {rate_limit!r}"
    )


def _digest(secret: str | None) -> str:
    return blake2b(secret.encode(), digest_size=16).hexdigest() if secret else ""
