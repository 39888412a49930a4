"""Inputs on their way through a model, of as many pages as are added meanwhile: no page and no batch is a barrier.

One shape for every kind of model: inputs are cut into units (one input, or a batch), each
unit is one call, and finished units are handed on in portions of at most ``batch_size``
inputs, no later than ``FLUSH_S`` after the first of them was done, so that little is lost in a
crash. What fails is tried again by itself after a pause, in which it holds no place.
"""

from __future__ import annotations

import contextvars
import random
from asyncio import get_running_loop
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from pinnacle.base.errors import halts_prediction
from pinnacle.base.outages import is_outage
from pinnacle.components.model import CallStyle
from pinnacle.runtime.caller import Caller
from pinnacle.runtime.flight import FLUSH_S, Flight
from pinnacle.runtime.interrupts import INTERRUPTS
from pinnacle.runtime.outcomes import Failed, Landed, Outcomes, Unit, pick
from pinnacle.runtime.serial import Serial

OUTAGES_IN_A_ROW = 3

Portion = list[tuple[Any, Outcomes]]
"""Outcomes, each with the owner of the positions."""


class Calls(Protocol):
    """Calls of a model, one at a time or many: see `Serial` and `Flight`."""

    @property
    def has_room(self) -> bool: ...

    @property
    def is_over(self) -> bool: ...

    def add(self, units: Iterable[Unit]) -> None: ...

    def add_later(self, unit: Unit, pause_s: float) -> None: ...

    def take(self, *, or_room: bool = False, wait_s: float = FLUSH_S) -> list[Landed]: ...

    def close(self) -> list[Landed]: ...


class Flow:
    """What is added to it comes back in portions, every input at most once, and without an outage exactly once.

    Inputs that met an outage come back as unanswered, once it is known whether others are served; after some in a row
    the flow is over, and ``caller.outage`` is then the error. It is over as well where ``caller.halted`` says that
    nothing more is to be asked. What has not come back by then is not asked for.
    """

    def __init__(self, caller: Caller, on_ready: Callable[[], None] = lambda: None) -> None:
        self._caller, self._model, self._on_ready = caller, caller.model, on_ready
        self._calls: Calls | None = None
        self._met: list[tuple[Any, Failed]] = []
        self._in_a_row = 0

    @property
    def has_room(self) -> bool:
        """Whether more inputs are to be added, so that no place stays idle."""
        return self._calls is None or (self._calls.has_room and self._caller.halted is None)

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way."""
        return self._calls is None

    def add(self, owner: Any, positions: Sequence[int], inputs: Sequence[Any]) -> None:
        """Put inputs, which are at ``positions`` of ``owner``, on their way."""
        if self._calls is None:
            self._caller.outage, self._in_a_row = None, 0
            self._calls = calls_of(self._caller, self._on_ready)
        self._calls.add(Unit(owner, pick(positions, part), pick(inputs, part)) for part in self._caller.cut(inputs))

    def take(self, *, or_room: bool = False, wait_s: float = FLUSH_S) -> Portion:
        """What is done by now; waits for it a little. ``or_room``: no longer than until there is room for more."""
        calls = self._calls
        if calls is None:
            return []
        portion = self._sorted_out(calls, calls.take(or_room=or_room, wait_s=wait_s))
        if self._in_a_row >= OUTAGES_IN_A_ROW or calls.is_over:
            self._caller.outage = self._met[-1][1].error if self._met else None
            portion += self._unanswered(others_served=False)
            portion += self.close()
        return portion

    def close(self) -> Portion:
        """Ask nothing more, and cancel what is in flight; what came back until then."""
        calls, self._calls = self._calls, None
        portion = [] if calls is None else self._sorted_out(calls, calls.close())
        self._met = []
        return portion

    def _sorted_out(self, calls: Calls, landed: Sequence[Landed]) -> Portion:
        """Outcomes by their owners; what is to be tried again is on its way."""
        by_owner: dict[int, tuple[Any, Outcomes]] = {}
        met: list[tuple[Any, Failed]] = []
        is_served = has_failed = False
        for unit, outcomes in landed:
            _, done = by_owner.setdefault(id(unit.owner), (unit.owner, Outcomes()))
            done.positions += pick(unit.positions, outcomes.positions)
            done.outputs += outcomes.outputs
            done.bytes += outcomes.bytes
            is_served |= bool(outcomes.positions)
            for item in outcomes.failed:
                mine = replace(item, position=unit.positions[item.position])
                if halts_prediction(item.error) or item.error is self._caller.halted:
                    continue
                if is_outage(item.error):
                    met.append((unit.owner, mine))
                    continue
                has_failed = True
                if item.is_final or item.attempts >= self._model.max_attempts:
                    done.failed.append(mine)
                else:
                    calls.add_later(unit.again(item), self._pause_s(item.attempts))
        portion = [pair for pair in by_owner.values() if len(pair[1])]
        if is_served:
            portion += self._unanswered(others_served=True)
        self._met += met
        self._in_a_row = 0 if is_served or has_failed else self._in_a_row + len(met)
        return portion

    def _unanswered(self, *, others_served: bool) -> Portion:
        """Those that met an outage, now that it is known whether others were served after them."""
        met, self._met = self._met, []
        return [(owner, Outcomes(unanswered=[replace(item, others_served=others_served)])) for owner, item in met]

    def _pause_s(self, attempts: int) -> float:
        return self._model.retry_delay_s * 2.0 ** (attempts - 1) * random.uniform(0.5, 1.5)


def outcomes_of(caller: Caller, inputs: Sequence[Any]) -> Generator[Outcomes, None, None]:
    """Call a model on all of ``inputs``; every position comes back at most once, and without an outage exactly once."""
    flow = Flow(caller)
    with closing(flow):
        if len(inputs):
            flow.add(None, range(len(inputs)), inputs)
        while not flow.is_over:
            try:
                portion = flow.take()
            except INTERRUPTS:
                yield from (outcomes for _, outcomes in flow.close())
                raise
            yield from (outcomes for _, outcomes in portion)


def calls_of(caller: Caller, on_ready: Callable[[], None]) -> Calls:
    """How a model is called: one call after the other in this thread, or many at once, which tells when it is
    ``on_ready`` to be asked for outcomes."""
    model = caller.model
    if caller.is_serial:
        return Serial(caller.answer, portion=caller.batch_size, is_ended=caller.is_halted)
    flight = partial(
        Flight, places=model.concurrency, portion=caller.batch_size, is_ended=caller.is_halted, on_ready=on_ready
    )  # fmt: skip
    if model.call_style is CallStyle.ASYNC:
        return flight(caller.ask)
    pool = ThreadPoolExecutor(model.concurrency, thread_name_prefix="pinnacle-model")
    return flight(partial(_in_thread, pool, caller.call), on_close=partial(pool.shutdown, cancel_futures=True))


async def _in_thread(pool: ThreadPoolExecutor, call: Callable[[Unit], Outcomes], unit: Unit) -> Outcomes:
    return await get_running_loop().run_in_executor(pool, contextvars.copy_context().run, call, unit)
