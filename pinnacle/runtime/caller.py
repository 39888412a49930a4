"""Calls a model, of any kind, on a unit of inputs; a failing batch is halved until the failing inputs are alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pinnacle.base.errors import ConfigError, halts_prediction
from pinnacle.base.loop import is_unwanted
from pinnacle.base.outages import is_outage
from pinnacle.base.rows import Fields
from pinnacle.components.calls import Named, by_length, call_batch
from pinnacle.components.model import CallStyle, Model
from pinnacle.runtime.flight import FLUSH_S, MAX_PORTION_BYTES
from pinnacle.runtime.interrupts import is_interrupt
from pinnacle.runtime.memory import bytes_of
from pinnacle.runtime.outcomes import Failed, Outcomes, Unit, is_about_more

BATCH_SIZES = {CallStyle.VALUE: 5000, CallStyle.BATCH: 256, CallStyle.ASYNC: 64}


def _require_all(outputs: Sequence[Any], inputs: Sequence[Any]) -> None:
    """A model that raises StopIteration ends the loop over its inputs, where nobody would notice."""
    if len(outputs) < len(inputs):
        raise RuntimeError("the model raised StopIteration")


@dataclass
class Caller:
    """A model bound to how its arguments are filled; counts its calls.

    ``outage``: why inputs that were put on their way last met no answer. ``halted``: why nothing more is asked at all.
    ``is_interruptible``: a Ctrl-C may come up in the model's code; it never does in a worker's threads.
    """

    model: Model
    fields: Fields
    parameters: Mapping[str, Any]
    batch_size: int
    is_interruptible: bool = True
    calls: int = 0
    outage: BaseException | None = None
    halted: BaseException | None = None

    @property
    def is_serial(self) -> bool:
        """Whether the model is called once at a time, in the thread that wants its outputs."""
        return self.model.call_style is not CallStyle.ASYNC and self.model.concurrency == 1

    def is_halted(self) -> bool:
        """Whether nothing more is to be asked."""
        return self.halted is not None

    def cut(self, inputs: Sequence[Any]) -> Sequence[Sequence[int]]:
        """Positions of each unit: single inputs, batches of inputs of like length, or all for one call after the
        other."""
        if self.model.call_style is CallStyle.BATCH:
            order = by_length(self.model, inputs)
            return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        if self.model.call_style is CallStyle.VALUE and self.is_serial:
            return [range(len(inputs))]
        return [[position] for position in range(len(inputs))]

    def answer(self, unit: Unit) -> Iterator[Outcomes]:
        """Call the model on a unit in this thread; what is done of it as it is done."""
        if self.model.call_style is CallStyle.VALUE and unit.attempt == 1:
            return self._serial(unit.inputs)
        return iter((self.call(unit),))

    def _ends(self, error: BaseException) -> bool:
        """Whether an error of the model's is no row's, but somebody's wish that the prediction ends."""
        return is_unwanted() or (self.is_interruptible and is_interrupt(error))

    def _failed(self, position: int, error: BaseException, attempt: int) -> Failed:
        if halts_prediction(error) and self.halted is None:
            self.halted = error
        return Failed(position, error, max(attempt, getattr(error, "tries", 1)))

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
            except BaseException as error:  # the unit of work: recorded, retried, then set aside
                if self._ends(error):
                    interrupted = error
                else:
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
            if interrupted is not None or now >= flush_at or self._is_full(done) or self._ends_alarming(done):
                yield done
                done, flush_at = Outcomes(), clock() + FLUSH_S
            if interrupted is not None:
                raise interrupted
        if len(done):
            yield done

    def _ends_alarming(self, done: Outcomes) -> bool:
        """Then who counts outages in a row must hear of it: a provider that refuses at once is not asked again and
        again."""
        return bool(done.failed) and is_about_more(done.failed[-1].error)

    def _is_full(self, done: Outcomes) -> bool:
        return len(done) >= self.batch_size or done.bytes >= MAX_PORTION_BYTES

    # -- units, possibly many at once ---------------------------------------------------------

    def call(self, unit: Unit) -> Outcomes:
        """One call, and for a failing batch the calls that find the failing inputs.

        Usually one input is to blame: it is searched for by calls of the left half alone,
        and all others go in one call at the end. Where that fails too, every half is called.
        """
        inputs, attempt = unit.inputs, unit.attempt
        everything = list(range(len(inputs)))
        whole = self._try_unit(everything, inputs, attempt)
        if len(everything) == 1 or not self._is_to_search(whole):
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
        if len(unit) == 1 or not self._is_to_search(whole):
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
        except BaseException as error:  # the unit of work: searched, retried, then set aside
            if self._ends(error):
                raise
            if isinstance(error, ConfigError) and self.model.call_style is CallStyle.BATCH:
                self.halted = self.halted or error  # it is about the call, and no row's fault
            return Outcomes(failed=[self._failed(position, error, attempt) for position in unit])
        wrong = {i: output for i, output in enumerate(outputs) if isinstance(output, BaseException)}
        if not wrong:
            return Outcomes(unit, outputs)
        sound = [i for i in range(len(unit)) if i not in wrong]
        failed = [self._failed(unit[i], error, attempt) for i, error in wrong.items()]
        return Outcomes([unit[i] for i in sound], [outputs[i] for i in sound], failed)

    def _is_to_search(self, whole: Outcomes) -> bool:
        """Whether one error was raised for all of a unit: a model that tells them one by one has searched itself."""
        errors = {id(item.error) for item in whole.failed}
        return not whole.positions and len(errors) == 1 and not self._is_spared(whole.failed[0])

    def _is_spared(self, failed: Failed) -> bool:
        return is_outage(failed.error) or halts_prediction(failed.error) or failed.error is self.halted

    def _outputs(self, unit: list[int], inputs: Sequence[Any]) -> list[Any]:
        if self.model.call_style is CallStyle.VALUE:
            return [self._one()(inputs[unit[0]])]
        values = [self._named(inputs[position]) for position in unit]
        return list(call_batch(self.model, values, **self.parameters))

    async def ask(self, unit: Unit) -> Outcomes:
        """Call an async model on the one input of a unit."""
        self.calls += 1
        try:
            arguments, named = self.arguments(unit.inputs[0])
            return Outcomes([0], [await self.model.apredict_one(*arguments, **named, **self.parameters)])
        except BaseException as error:  # the unit of work: recorded, retried, then set aside
            if self._ends(error):
                raise
            return Outcomes(failed=[self._failed(0, error, unit.attempt)])

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
