"""Calls a model on many inputs and yields what is done as it is done.

One shape for every kind of model: inputs are cut into units (one input, or a batch), each
unit is one call, and finished units are handed on in portions of at most
``batch_size`` inputs, no later than ``FLUSH_S`` after the first of them was done, so
that little is lost in a crash. A failing batch is halved until the failing inputs are
alone; failing inputs are tried again after all others.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import random
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from pinnacle.base.errors import ConfigError, ModelError, halts_prediction
from pinnacle.base.outages import is_outage
from pinnacle.base.rows import Fields
from pinnacle.components.calls import Named, by_length, call_batch
from pinnacle.components.model import CallStyle, Model
from pinnacle.runtime.flight import FLUSH_S, MAX_PORTION_BYTES, Flight, Landed
from pinnacle.runtime.memory import bytes_of

OUTAGES_IN_A_ROW = 3
INTERRUPTS = (KeyboardInterrupt, SystemExit)
BATCH_SIZES = {CallStyle.VALUE: 5000, CallStyle.BATCH: 256, CallStyle.ASYNC: 64}


@dataclass(frozen=True)
class Failed:
    """One input that raised; ``others_served``: it met an outage, and later inputs met none."""

    position: int
    error: BaseException
    attempts: int
    others_served: bool = False

    @property
    def is_final(self) -> bool:
        """Whether it would fail again."""
        return isinstance(self.error, ModelError) and self.error.is_final

    @property
    def message(self) -> str:
        return message_of(self.error)

    @property
    def trace(self) -> str:
        return trace_of(self.error)


def message_of(error: BaseException) -> str:
    """What an error says of itself."""
    try:
        return str(error)
    except Exception as second:  # of the user's own exception class
        return f"its message cannot be had: str() raised {type(second).__name__}"


def trace_of(error: BaseException) -> str:
    """An error's traceback as text."""
    return "".join(traceback.format_exception(error))


def _require_all(outputs: Sequence[Any], inputs: Sequence[Any]) -> None:
    """A model that raises StopIteration ends the loop over its inputs, where nobody would notice."""
    if len(outputs) < len(inputs):
        raise RuntimeError("the model raised StopIteration")


def _is_about_more(error: BaseException) -> bool:
    """Whether an error tells that others may fare no better: who asks hears of it before it asks more."""
    return not isinstance(error, Exception) or halts_prediction(error) or is_outage(error)


def _raising(done: Outcomes | BaseException) -> Outcomes:
    if isinstance(done, BaseException):
        raise done
    return done


@dataclass
class Outcomes:
    """A portion of finished inputs: outputs aligned with positions, and the failed ones.

    ``unanswered``: those that met an outage.
    """

    positions: list[int] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    unanswered: list[Failed] = field(default_factory=list)
    bytes: int = 0

    def __len__(self) -> int:
        return len(self.positions) + len(self.failed)

    def at(self, positions: Sequence[int]) -> Outcomes:
        """The same, of inputs that are at these ``positions`` of a page."""
        return Outcomes(
            [positions[i] for i in self.positions], self.outputs,
            [replace(item, position=positions[item.position]) for item in self.failed],
            [replace(item, position=positions[item.position]) for item in self.unanswered], self.bytes,
        )  # fmt: skip

    def add(self, other: Outcomes) -> None:
        self.positions = self.positions + other.positions
        self.outputs = [*self.outputs, *other.outputs]
        self.failed = self.failed + other.failed


@dataclass
class Caller:
    """A model bound to how its arguments are filled; counts its calls.

    Inputs that met an outage do not come back as failed, and after some in a row the rest is
    not tried: ``outage`` is then the error. ``halted`` is why nothing more is asked at all.
    """

    model: Model
    fields: Fields
    parameters: Mapping[str, Any]
    batch_size: int
    calls: int = 0
    outage: BaseException | None = None
    halted: BaseException | None = None

    def run(self, inputs: Sequence[Any]) -> Generator[Outcomes, None, None]:
        """Call the model on all of ``inputs``; every position comes back at most once, and without an outage
        exactly once."""
        failed: list[Failed] = []
        final: list[Failed] = []
        unanswered: list[Failed] = []
        self.outage, in_a_row, served = None, 0, 0
        for done in self._first_attempt(inputs):
            real, met = self._sorted_out(done.failed)
            if done.positions:
                served = len(unanswered)
            in_a_row = 0 if done.positions or real else in_a_row + len(met)
            failed += [item for item in real if not item.is_final]
            final += [item for item in real if item.is_final]
            unanswered += met
            if done.positions:
                yield Outcomes(done.positions, done.outputs)
            if in_a_row >= OUTAGES_IN_A_ROW:
                break
        for attempt in range(2, self.model.max_attempts + 1):
            if not failed or self.halted is not None:
                break
            time.sleep(self.model.retry_delay_s * 2 ** (attempt - 2) * random.uniform(0.5, 1.5))
            again, failed = [item.position for item in failed], []
            for done in self._units([[position] for position in again], inputs, attempt):
                real, _ = self._sorted_out(done.failed)
                failed += [item for item in real if not item.is_final]
                final += [item for item in real if item.is_final]
                if done.positions:
                    yield Outcomes(done.positions, done.outputs)
        if failed or final or unanswered:
            seen = [replace(item, others_served=number < served) for number, item in enumerate(unanswered)]
            yield Outcomes(failed=final + failed, unanswered=seen)

    def _sorted_out(self, failed: list[Failed]) -> tuple[list[Failed], list[Failed]]:
        """The failures that are the inputs' own, and those that met an outage."""
        real: list[Failed] = []
        met: list[Failed] = []
        for item in failed:
            if halts_prediction(item.error) or item.error is self.halted:
                continue
            if is_outage(item.error):
                self.outage = item.error
                met.append(item)
            else:
                real.append(item)
        return real, met

    def _failed(self, position: int, error: BaseException, attempt: int) -> Failed:
        if halts_prediction(error) and self.halted is None:
            self.halted = error
        return Failed(position, error, attempt)

    def _first_attempt(self, inputs: Sequence[Any]) -> Iterator[Outcomes]:
        if self.model.call_style is CallStyle.VALUE and self.model.concurrency == 1:
            return self._serial(inputs)
        return self._units(self._cut(inputs), inputs, 1)

    def _cut(self, inputs: Sequence[Any]) -> list[list[int]]:
        """Positions of each call: single inputs, or batches of inputs of like length."""
        if self.model.call_style is not CallStyle.BATCH:
            return [[position] for position in range(len(inputs))]
        order = by_length(self.model, inputs)
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    # -- one thread, one value at a time ----------------------------------------------------

    def _serial(self, inputs: Sequence[Any]) -> Iterator[Outcomes]:
        call, clock = self._one(), time.monotonic
        done, flush_at, start, stride = Outcomes(), clock() + FLUSH_S, 0, 1
        while start < len(inputs) and self.halted is None:
            room = self.batch_size - len(done)
            part = inputs[start : start + min(stride, room)]
            outputs: list[Any] = []
            interrupted: BaseException | None = None
            began = clock()
            try:
                outputs.extend(map(call, part))  # what was computed before an error stays in the list
                _require_all(outputs, part)
            except INTERRUPTS as error:
                interrupted = error
            except Exception as error:  # the unit of work: recorded, retried, then set aside
                done.failed.append(self._failed(start + len(outputs), error, 1))
            done.positions += range(start, start + len(outputs))
            done.outputs += outputs
            made = bytes_of(outputs)
            done.bytes += made
            tried = len(outputs) + (len(outputs) < len(part) and interrupted is None)
            self.calls += tried
            start += tried
            now = clock()
            in_time = int(tried * FLUSH_S / 4 / max(now - began, 1e-6))
            in_memory = MAX_PORTION_BYTES * len(outputs) // max(1, made)
            stride = max(1, min(2 * stride, in_time, in_memory))
            if interrupted is not None or now >= flush_at or self._is_full(done) or self._ends_with_outage(done):
                yield done
                done, flush_at = Outcomes(), clock() + FLUSH_S
            if interrupted is not None:
                raise interrupted
        if len(done):
            yield done

    def _ends_with_outage(self, done: Outcomes) -> bool:
        """Then who counts outages in a row must hear of it: a provider that refuses at once is not asked again and
        again."""
        return bool(done.failed) and is_outage(done.failed[-1].error)

    def _is_full(self, done: Outcomes) -> bool:
        return len(done) >= self.batch_size or done.bytes >= MAX_PORTION_BYTES

    # -- units, possibly many at once ---------------------------------------------------------

    def _units(self, units: Sequence[list[int]], inputs: Sequence[Any], attempt: int) -> Iterator[Outcomes]:
        if self.model.call_style is CallStyle.ASYNC:
            return self._in_flight([unit[0] for unit in units], inputs, attempt)
        if self.model.concurrency == 1:
            return self._portions(self._call_unit(unit, inputs, attempt) for unit in units if self.halted is None)
        return self._portions(self._threaded_units(units, inputs, attempt))

    def _portions(self, finished: Iterable[Outcomes]) -> Iterator[Outcomes]:
        """Join finished units into portions of a batch, or what is done when time is up."""
        portion, flush_at = Outcomes(), time.monotonic() + FLUSH_S
        try:
            for done in finished:
                portion.positions += done.positions
                portion.outputs += done.outputs
                portion.failed += done.failed
                portion.bytes += bytes_of(done.outputs)
                if self._is_full(portion) or time.monotonic() >= flush_at:
                    yield portion
                    portion, flush_at = Outcomes(), time.monotonic() + FLUSH_S
        except INTERRUPTS:
            yield portion
            raise
        if len(portion):
            yield portion

    def _call_unit(self, unit: list[int], inputs: Sequence[Any], attempt: int) -> Outcomes:
        """One call, and for a failing batch the calls that find the failing inputs.

        Usually one input is to blame: it is searched for by calls of the left half alone,
        and all others go in one call at the end. Where that fails too, every half is called.
        """
        whole = self._try_unit(unit, inputs, attempt)
        if len(unit) == 1 or len(whole.failed) < len(unit) or self._is_spared(whole.failed[0]):
            return whole
        done, suspects, rest = Outcomes(), whole, []
        while len(suspects.failed) > 1:
            positions = [item.position for item in suspects.failed]
            left, right = positions[: len(positions) // 2], suspects.failed[len(positions) // 2 :]
            tried = self._try_unit(left, inputs, attempt)
            if len(tried.failed) == len(left):
                suspects = tried
                rest += [item.position for item in right]
            else:
                done.add(tried)
                suspects = Outcomes(failed=right)
        was_alone = suspects is not whole and suspects.failed != right
        if not was_alone and self.model.max_attempts == attempt:  # else it is called alone when it is tried again
            suspects = self._try_unit([suspects.failed[0].position], inputs, attempt)
        done.add(suspects)
        if rest:
            done.add(self._halved(rest, inputs, attempt))
        return done

    def _halved(self, unit: list[int], inputs: Sequence[Any], attempt: int) -> Outcomes:
        whole = self._try_unit(unit, inputs, attempt)
        if len(unit) == 1 or len(whole.failed) < len(unit) or self._is_spared(whole.failed[0]):
            return whole
        done, middle = Outcomes(), len(unit) // 2
        for half in (unit[:middle], unit[middle:]):
            done.add(self._halved(half, inputs, attempt))
        return done

    def _try_unit(self, unit: list[int], inputs: Sequence[Any], attempt: int) -> Outcomes:
        """One call; where it raises, all of the unit has failed."""
        self.calls += 1
        try:
            outputs = self._outputs(unit, inputs)
        except Exception as error:  # the unit of work: searched, retried, then set aside
            if isinstance(error, ConfigError) and self.model.call_style is CallStyle.BATCH:
                self.halted = self.halted or error  # it is about the call, and no row's fault
            return Outcomes(failed=[self._failed(position, error, attempt) for position in unit])
        wrong = {i: output for i, output in enumerate(outputs) if isinstance(output, Exception)}
        if not wrong:
            return Outcomes(unit, outputs)
        sound = [i for i in range(len(unit)) if i not in wrong]
        failed = [self._failed(unit[i], error, attempt) for i, error in wrong.items()]
        return Outcomes([unit[i] for i in sound], [outputs[i] for i in sound], failed)

    def _is_spared(self, failed: Failed) -> bool:
        return is_outage(failed.error) or halts_prediction(failed.error) or failed.error is self.halted

    def _outputs(self, unit: list[int], inputs: Sequence[Any]) -> list[Any]:
        if self.model.call_style is CallStyle.VALUE:
            return [self._one()(inputs[unit[0]])]
        values = [self._named(inputs[position]) for position in unit]
        return list(call_batch(self.model, values, **self.parameters))

    def _threaded_units(self, units: Sequence[list[int]], inputs: Sequence[Any], attempt: int) -> Iterator[Outcomes]:
        """At most ``concurrency`` units at once, in threads, in the order they finish."""
        finished: queue.SimpleQueue[Outcomes | BaseException] = queue.SimpleQueue()
        waiting = iter(units)

        def work(unit: list[int]) -> None:
            try:
                finished.put(self._call_unit(unit, inputs, attempt))
            except BaseException as error:  # an interrupt, raised again in the thread that waits
                finished.put(error)

        with ThreadPoolExecutor(self.model.concurrency, thread_name_prefix="pinnacle-model") as pool:

            def start() -> bool:
                unit = next(waiting, None) if self.halted is None else None
                if unit is not None:
                    pool.submit(contextvars.copy_context().run, work, unit)
                return unit is not None

            running = sum(start() for _ in range(self.model.concurrency))
            while running:
                done = _raising(finished.get())
                running += start() - 1
                yield done

    def _in_flight(self, positions: Sequence[int], inputs: Sequence[Any], attempt: int) -> Iterator[Outcomes]:
        """At most ``concurrency`` coroutines at once, in the order they finish."""

        async def ask(position: int) -> Any:
            self.calls += 1
            arguments, named = self.arguments(inputs[position])
            return await self.model.apredict_one(*arguments, **named, **self.parameters)

        going_on = (position for position in positions if self.halted is None)
        flight = Flight(
            ask, going_on, places=self.model.concurrency, portion=self.batch_size, is_alarming=_is_about_more
        )
        with closing(flight.portions()) as portions:
            try:
                for landed in portions:
                    yield from self._landed(landed, attempt)
            except INTERRUPTS:
                yield from self._landed(flight.take(), attempt)
                raise

    def _landed(self, landed: Sequence[Landed], attempt: int) -> Iterator[Outcomes]:
        """A portion as `Outcomes`; an interrupt that came up in a coroutine is raised after it."""
        done = Outcomes()
        interrupted: BaseException | None = None
        for item in landed:
            if item.error is None:
                done.positions.append(item.position)
                done.outputs.append(item.output)
            elif isinstance(item.error, (Exception, asyncio.CancelledError)):
                done.failed.append(self._failed(item.position, item.error, attempt))
            else:
                interrupted = item.error
        if len(done):
            yield done
        if interrupted is not None:
            raise interrupted

    # -- arguments ---------------------------------------------------------------------------------

    def _one(self) -> Callable[[Any], Any]:
        """The model as a function of one row's input."""
        predict, parameters = self.model.predict_one, dict(self.parameters)
        if self.fields.is_single:
            return (lambda value: predict(value, **parameters)) if parameters else predict

        def call(value: Any) -> Any:
            arguments, named = self.arguments(value)
            return predict(*arguments, **named, **parameters)

        return call

    def has_null(self, value: Any) -> bool:
        """Whether one of a row's inputs is NULL."""
        return any(part is None for part in (value if len(self.fields.paths) > 1 else (value,)))

    def arguments(self, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A row's inputs as positional and named arguments of the model."""
        if self.fields.is_single:
            return (value,), {}
        values = value if len(self.fields.paths) > 1 else (value,)
        if self.fields.arguments is None:
            return tuple(values), {}
        named = dict(zip(self.fields.arguments, values, strict=True))
        return ((named.pop("input"),), named) if "input" in named else ((), named)

    def _named(self, value: Any) -> Any:
        """A batch model's item: the value, a tuple, or a dict by argument name."""
        if self.fields.arguments is None:
            return value
        values = value if len(self.fields.paths) > 1 else (value,)
        return Named(zip(self.fields.arguments, values, strict=True))
