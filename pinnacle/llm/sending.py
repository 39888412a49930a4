"""Sends one request: waits for its place and time, tries again where that may help, counts what it cost.

What came back is judged by `verdict`. Where a request meets no answer, and it cannot be seen whether others do, one
that was answered before is asked again, the witness: so a row that is itself to blame is told from an outage, in calls
on values, live runs, listeners and batches of texts alike.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from pinnacle.base.errors import (
    AccountRefused,
    AnswerCut,
    ModelError,
    NoAnswer,
    ParameterRefused,
    PinnacleError,
    ProviderRefused,
    ProviderUnavailable,
)
from pinnacle.base.metering import Usage
from pinnacle.base.outages import headers_of, status_of
from pinnacle.base.told import logger
from pinnacle.llm.limiter import Account, Gate
from pinnacle.llm.pace import LONGEST_WAIT_S, retry_after_s
from pinnacle.llm.verdict import MODEL_STATUSES, Verdict, refused_parameter, verdict_on

T = TypeVar("T")
log = logger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 8.0
FIRST_SHORT_PAUSE_S = 0.02
"""Where asking for less tells more than waiting, and where others were served while this request met no answer."""

THROTTLED_PATIENCE_S = 600.0
THROTTLED_TRIES, TOLD_REFUSALS = 12, 3
"""429s for one request, with others served between any two of them, before it is itself to blame; and how many of
these say something of the pace."""

BELIEVED_S = 2.0
"""A 429 that asks for a longer wait, and the first that asks for none, is told to the account once a request that was
answered before meets one too: it may be one row's alone."""

THROTTLED_TRIES_OF_MANY, THROTTLED_TRIES_OF_SUSPECTS = 4, 1
"""The same before fewer inputs are asked for at once: nothing is blamed yet, and each half is asked by itself."""

TRIES_OF_MANY = 2
"""Requests that meet no answer before fewer inputs are asked for at once; one alone has ``max_tries``."""

MORE_TRIES = 2
"""Beyond ``max_tries``, where these did not tell whether others were served between the last two of them."""

FIRST_ROWS = 5
"""So many rows are refused for one parameter, before any is served, and it is the parameter's fault."""

RESERVE_POLL_S = WITNESS_POLL_S = 0.01


@dataclass(frozen=True)
class Answered(Generic[T]):
    """What a request brought: its value, what it cost, and the answer's headers by lower-case name."""

    value: T
    usage: Usage
    headers: Mapping[str, str] = field(default_factory=dict)


class Counting(Protocol):
    """Where calls are counted: see `Meter`."""

    def reserve(self, expected: float) -> float | None: ...

    def refused(self, what: str) -> int: ...

    def settle(self, reserved: float, usage: Usage) -> None: ...


@dataclass(frozen=True)
class Call(Generic[T]):
    """What is sent: ``attempt`` sends it once. ``parameters``: the names of what goes along.

    ``witness`` sends a smaller one like it, whose answer is dropped, to tell an outage from a request that is to blame.
    ``is_divisible``: who asks can ask for less at once, and does so instead of asking often; ``is_suspect``: it is part
    of what met no answer while others were served.
    """

    attempt: Callable[[], Awaitable[Answered[T]]]
    expected_cost: float = 0.0
    parameters: Collection[str] = ()
    witness: Callable[[], Awaitable[Answered[Any]]] | None = None
    is_divisible: bool = False
    is_suspect: bool = False


@dataclass
class Course:
    """What has come of one request so far.

    ``served``: answers that the account had when this request last met none; ``alone``: whether others had some since
    the time before. ``doubts``: a witness is to be asked, ``must_ask``: and it is up to this request. ``is_paced``:
    the limiter says when it is sent again. ``untold``: headers and beginning of a 429 that may be this request's alone.
    """

    began: float
    sent: int = 0
    without_answer: int = 0
    unanswered: int = 0
    throttled: int = 0
    throttled_alone: int = 0
    served: int = -1
    is_alone: bool = False
    doubts: bool = False
    must_ask: bool = False
    is_paced: bool = False
    untold: tuple[Mapping[str, str], float] | None = None
    pause_s: float = FIRST_PAUSE_S

    def begin(self) -> None:
        """Another try."""
        self.doubts = self.must_ask = False
        self.untold = None

    def met_none(self, successes: int) -> bool:
        """Note that no answer was met; whether others were served since the time before."""
        self.is_alone, self.served = -1 < self.served < successes, successes
        if self.is_alone:
            self.pause_s = min(self.pause_s, FIRST_PAUSE_S)
        return self.is_alone

    async def pause(self) -> None:
        await asyncio.sleep(self.pause_s * random.uniform(0.5, 1.5))
        self.pause_s = min(LONGEST_PAUSE_S, 2 * self.pause_s)


@dataclass(frozen=True)
class Sender:
    """How one model's requests are sent.

    ``max_tries``: requests for one answer that met none, of which two at least tell a request that alone meets none
    from an outage; ``max_attempts``: those that brought a response without an answer. Refusals for being too fast
    (429) use up neither, the limiter slows down instead.
    """

    model: str
    account: Account
    gate: Gate
    timeout_s: float
    max_tries: int
    max_attempts: int

    async def send(self, call: Call[T], meter: Counting) -> T:
        """The value of the first answer that is one.

        Raises NoAnswer for responses without one, ProviderUnavailable where none was to be had, ProviderRefused for
        a request that the provider does not take or that alone met no answer while others were served, AccountRefused
        and ParameterRefused where it takes none, and BudgetReached before a call that the meter's budget does not
        cover.
        """
        is_short = call.is_divisible or call.is_suspect
        course = Course(time.monotonic(), pause_s=FIRST_SHORT_PAUSE_S if is_short else FIRST_PAUSE_S)
        while True:
            try:
                return await self._attempt(call, meter, course)
            except Exception as error:  # the unit of work: one request, sent again or judged
                await self._others_told(error)
                final = self._final(error, call, meter, course)
                if final is error:
                    raise
                if final is not None:
                    raise final from error
            if not course.is_paced:
                await course.pause()

    # -- one try -------------------------------------------------------------------------------------

    async def _attempt(self, call: Call[T], meter: Counting, course: Course) -> T:
        """One request; after one that leaves doubts also a witness, in the same place."""
        course.begin()
        async with self.gate:
            try:
                return await self._once(call.attempt, call, meter, partial(self._learn, call, course), course.sent > 0)
            finally:
                if course.doubts:
                    await self._ask_witness(call, meter, course)
                    self._tell(course)

    async def _once(
        self, attempt: Callable[[], Awaitable[Answered[T]]], call: Call[Any], meter: Counting,
        learn: Callable[[Exception, float], None], is_repeat: bool, *, is_witness: bool = False,
    ) -> T:  # fmt: skip
        usage, reserved = Usage(), 0.0
        try:
            reserved = await self._reserve(meter, call.expected_cost)
            began = await (self.account.start_witness() if is_witness else self.account.start())
            usage = Usage(calls=1, failed=1, retried=int(is_repeat))
        finally:
            if not usage:  # it was not sent
                meter.settle(reserved, usage)
                if is_witness:
                    self.account.gave_up()
        try:
            async with asyncio.timeout(self.timeout_s):
                answered = await attempt()
            usage = Usage(1, 0, int(is_repeat)) + answered.usage
            again = attempt if is_witness else call.witness or attempt
            self.account.succeeded(answered.headers, began, by=self.model, witness=again)
            return answered.value
        except Exception as error:  # the unit of work: one try, which is counted; raised again
            usage += getattr(error, "billed", None) or Usage()
            learn(error, began)
            raise
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

    def _learn(self, call: Call[Any], course: Course, error: Exception, began: float) -> None:
        """What an error says, for the account and for the course of the request."""
        course.sent += 1
        verdict, account = self._verdict(error), self.account
        course.is_paced = False
        if verdict is Verdict.THROTTLED:
            course.throttled += 1
            course.throttled_alone += course.met_none(account.successes)
            is_likely_its_own = course.is_alone or call.is_suspect
            is_told = course.throttled <= TOLD_REFUSALS and not call.is_suspect
            course.is_paced = not is_likely_its_own
            asked_s = retry_after_s(headers_of(error))
            is_long = asked_s is not None and asked_s > BELIEVED_S
            is_doubtful = is_long or (asked_s is None and account.pace.rate is None)
            is_to_check = is_doubtful and self._witness(call) is not None
            if not course.is_alone and not (is_to_check and account.is_paused):
                course.doubts = is_to_check or not is_told
            if is_likely_its_own and not is_told:
                account.refused()
            elif is_to_check:
                account.refused()
                course.untold = (headers_of(error), began)
            else:
                is_first = is_long and course.throttled == 1
                account.throttled(headers_of(error), began, most_s=BELIEVED_S if is_first else LONGEST_WAIT_S)
        elif verdict is Verdict.OUTAGE:
            course.unanswered += 1
            course.met_none(account.successes)
            course.must_ask = account.failed(error, can_ask=self._witness(call) is not None)
            most = self._most_tries(call)
            is_near_end = course.unanswered >= min(most, max(2, most - 1))
            is_known = course.is_alone or (call.is_divisible and call.is_suspect)
            if course.must_ask or (is_near_end and not is_known):
                course.doubts = True
        else:
            account.refused()

    # -- whether others are served -------------------------------------------------------------------

    def _witness(self, call: Call[Any]) -> Callable[[], Awaitable[Answered[Any]]] | None:
        return self.account.witness(self.model) or call.witness

    async def _others_told(self, error: Exception) -> None:
        """Wait for what is in flight, where that tells whether a refusal is about one input or about all."""
        while self._verdict(error) is Verdict.ACCOUNT and status_of(error) in MODEL_STATUSES and self.gate.is_busy:
            await asyncio.sleep(WITNESS_POLL_S)

    async def _ask_witness(self, call: Call[Any], meter: Counting, course: Course) -> None:
        """Ask what was answered before once more, or wait for what another request hears of its witness."""
        witness = self._witness(call)
        if witness is None:
            return
        if not course.must_ask and not self.account.ask():
            while self.account.breaker.is_asking:
                await asyncio.sleep(WITNESS_POLL_S)
            return
        try:
            await self._once(witness, call, meter, self._learn_of_witness, True, is_witness=True)
        except PinnacleError as second:
            if not isinstance(second, NoAnswer):  # the budget's: the witness was not sent
                raise
        except Exception as second:  # the unit of work: it met no answer either, which is noted
            log.debug("model %s: a request that was answered before is not now: %s", self.model, type(second).__name__)

    def _tell(self, course: Course) -> None:
        """What a 429 says of the pace, where nobody was served since."""
        if course.untold is not None and self.account.successes <= course.served:
            self.account.throttled(*course.untold)

    def _learn_of_witness(self, error: Exception, began: float) -> None:
        verdict = self._verdict(error)
        if verdict is Verdict.THROTTLED:
            self.account.throttled(headers_of(error), began)
        elif verdict is Verdict.OUTAGE:
            self.account.doubted(error)
        else:
            self.account.refused()

    # -- what comes of it ----------------------------------------------------------------------------

    def _verdict(self, error: Exception) -> Verdict:
        return verdict_on(error, has_served=self.account.has_served(self.model))

    def _most_tries(self, call: Call[Any]) -> int:
        if call.is_divisible:
            return 1 if call.is_suspect else min(TRIES_OF_MANY, self.max_tries)
        return self.max_tries

    def _most_throttled(self, call: Call[Any]) -> int:
        if call.is_divisible:
            return THROTTLED_TRIES_OF_SUSPECTS if call.is_suspect else THROTTLED_TRIES_OF_MANY
        return THROTTLED_TRIES

    def _final(self, error: Exception, call: Call[Any], meter: Counting, course: Course) -> Exception | None:
        """What an error ends the request with; None where it is sent again."""
        verdict = self._verdict(error)
        if isinstance(error, NoAnswer):
            return self._without_answer(error, call, course)
        if verdict is Verdict.OWN:
            if isinstance(error, ProviderUnavailable):
                error.was_sent = course.unanswered > 0  # before it was known that the provider does not answer
            return error
        if verdict is Verdict.ACCOUNT:
            return AccountRefused(f"model {self.model!r}: {error}", status=status_of(error))
        if verdict is Verdict.REFUSED:
            return self._refused(error, call, meter)
        if verdict is Verdict.THROTTLED:
            if course.throttled_alone >= self._most_throttled(call):
                return self._to_blame(error, course)
            return None if time.monotonic() - course.began < THROTTLED_PATIENCE_S else self._unavailable(error, course)
        if course.unanswered < (most := self._most_tries(call)):
            return None
        if course.is_alone or (call.is_divisible and call.is_suspect):
            return self._to_blame(error, course)
        # An outage that began after the last try but one is still an outage; where others are served, one more tells.
        is_telling = course.unanswered < most + MORE_TRIES and self.account.successes > course.served
        return None if is_telling else self._unavailable(error, course)

    def _without_answer(self, error: NoAnswer, call: Call[Any], course: Course) -> NoAnswer | None:
        course.without_answer += 1
        most = 1 if call.is_divisible else self.max_attempts
        if course.without_answer < most and not isinstance(error, AnswerCut):
            return None
        error.tries = course.without_answer
        error.args = (f"model {self.model!r}: {error}",)
        return error

    def _refused(self, error: Exception, call: Call[Any], meter: Counting) -> ProviderRefused:
        told, status = f"model {self.model!r}: {error}", status_of(error)
        parameter = refused_parameter(error, call.parameters)
        if parameter is None or meter.refused(f"{status} {parameter}") < FIRST_ROWS:
            return ProviderRefused(told, status=status)
        return ParameterRefused(
            f"{told.rstrip('.')}. The first requests were all refused for {parameter!r}: change it, or leave it out",
            parameter=parameter, status=status,
        )  # fmt: skip

    def _to_blame(self, error: Exception, course: Course) -> ProviderRefused:
        refused = ProviderRefused(f"{self._told(error, course)}. Others were served meanwhile", status=status_of(error))
        refused.tries = course.sent
        return refused

    def _unavailable(self, error: Exception, course: Course) -> ModelError:
        unavailable = ProviderUnavailable(self._told(error, course))
        unavailable.was_sent = True
        return unavailable

    def _told(self, error: Exception, course: Course) -> str:
        return f"model {self.model!r}: {course.sent} requests met no answer; the last: {type(error).__name__}: {error}"
