"""Sends one request: waits for its place and time, tries again where that may help, counts what it cost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pinnacle.base.errors import (
    AccountRefused,
    ModelError,
    PinnacleError,
    ProviderRefused,
    ProviderUnavailable,
)
from pinnacle.base.metering import Usage
from pinnacle.base.outages import THROTTLED, headers_of, is_outage, status_of
from pinnacle.llm.limiter import Account, Gate

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 8.0
THROTTLED_PATIENCE_S = 600.0
RESERVE_POLL_S = 0.01
ACCOUNT_STATUSES = frozenset({401, 402})
MODEL_STATUSES = frozenset({403, 404})
"""About the account, as long as it was served nothing: some providers answer so to one input that they refuse."""

ACCOUNT_CODES = ("insufficient_quota", "billing_hard_limit_reached", "account_deactivated")


@dataclass(frozen=True)
class Answered(Generic[T]):
    """What a request brought: its value, what it cost, and the answer's headers by lower-case name."""

    value: T
    usage: Usage
    headers: Mapping[str, str] = field(default_factory=dict)


class Unreadable(Exception):
    """An answer came that is none: no JSON, cut off, or without content; ``billed`` is what it cost all the same."""

    billed: Usage | None = None


class Counting(Protocol):
    """Where calls are counted: see `Meter`."""

    def reserve(self, expected: float) -> float | None: ...

    def settle(self, reserved: float, usage: Usage) -> None: ...


@dataclass(frozen=True)
class Sender:
    """How one model's requests are sent.

    ``max_tries``: requests for one answer that met no answer, of which two at least tell a request
    that alone meets none from an outage; refusals for being too fast
    (429) are not counted, the limiter slows down instead.
    """

    model: str
    account: Account
    gate: Gate
    timeout_s: float
    max_tries: int

    async def send(self, attempt: Callable[[], Awaitable[Answered[T]]], meter: Counting, expected_cost: float) -> T:
        """The value of the first answer that is one.

        Raises ProviderUnavailable where none was to be had, ProviderRefused for a request that the
        provider does not take or that alone met no answer while others were served, AccountRefused
        where it takes none, and BudgetReached before a call that the meter's budget does not cover.
        """
        sent, tries, pause, served, began = 0, 0, FIRST_PAUSE_S, -1, time.monotonic()
        while True:
            try:
                return await self._attempt(attempt, meter, expected_cost, is_repeat=sent > 0)
            except Exception as error:  # the unit of work: one request, sent again or judged
                sent += 1
                if isinstance(error, PinnacleError) or not (is_outage(error) or isinstance(error, Unreadable)):
                    raise
                if status_of(error) == THROTTLED and time.monotonic() - began < THROTTLED_PATIENCE_S:
                    continue
                tries += 1
                if tries >= self.max_tries:  # an outage that began after the last try but one is still an outage
                    raise self._final(error, sent, -1 < served < self.account.successes) from error
                served = self.account.successes
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(LONGEST_PAUSE_S, 2 * pause)

    async def _attempt(
        self, attempt: Callable[[], Awaitable[Answered[T]]], meter: Counting, expected_cost: float, *, is_repeat: bool
    ) -> T:
        async with self.gate:
            usage, reserved = Usage(), await self._reserve(meter, expected_cost)
            try:
                began = await self.account.start()
                usage = Usage(calls=1, failed=1, retried=int(is_repeat))
            finally:
                if not usage:  # it was not sent
                    meter.settle(reserved, usage)
            try:
                async with asyncio.timeout(self.timeout_s):
                    answered = await attempt()
                usage = Usage(1, 0, int(is_repeat)) + answered.usage
                self.account.succeeded(answered.headers, began, by=self.model)
                return answered.value
            except Exception as error:  # the unit of work: one try, which is counted; raised again
                usage += getattr(error, "billed", None) or Usage()
                if (judged := self._judged(error, began)) is error:
                    raise
                raise judged from error
            except BaseException:  # an interrupt: the account learns that nobody waits any more; raised again
                self.account.gave_up()
                raise
            finally:
                meter.settle(reserved, usage)

    async def _reserve(self, meter: Counting, expected_cost: float) -> float:
        """Wait until calls in flight leave enough of the budget; BudgetReached where they cannot."""
        while (reserved := meter.reserve(expected_cost)) is None:
            await asyncio.sleep(RESERVE_POLL_S)
        return reserved

    def _judged(self, error: Exception, began: float) -> Exception:
        """The error to go on with; the account learns what it says of the provider."""
        status = status_of(error)
        is_final = status is not None and _is_about_account(error)  # also as a 429
        if status == THROTTLED and not is_final:
            self.account.throttled(headers_of(error), began)
        elif not is_final and (is_outage(error) or isinstance(error, Unreadable)):
            self.account.failed(error)
        else:
            self.account.refused()
            is_about_all = status in MODEL_STATUSES and not self.account.has_served(self.model)
            if status in ACCOUNT_STATUSES or is_about_all or is_final:
                return AccountRefused(f"model {self.model!r}: {error}", status=status)
            if status is not None:
                return ProviderRefused(f"model {self.model!r}: {error}", status=status)
        return error

    def _final(self, error: Exception, sent: int, others_were_served: bool) -> ModelError:
        told = f"model {self.model!r}: {sent} requests met no answer; the last: {type(error).__name__}: {error}"
        if others_were_served:
            return ProviderRefused(f"{told}. Others were served meanwhile", status=status_of(error))
        unanswered = ProviderUnavailable(told)
        unanswered.was_sent = True
        return unanswered


def _is_about_account(error: Exception) -> bool:
    text = f"{getattr(error, 'code', '')} {error}"
    return any(code in text for code in ACCOUNT_CODES)
