"""Calling a model on many inputs: every position comes back exactly once, whatever the model does."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinnacle import MissingPlugin, Model, ModelUnavailable, model
from pinnacle.base.rows import Failure, Fields
from pinnacle.runtime.caller import Caller
from pinnacle.runtime.flow import outcomes_of
from pinnacle.runtime.outcomes import Failed

STYLES: dict[str, dict[str, Any]] = {
    "value": {},
    "threads": {"concurrency": 3},
    "batch": {"batch": True},
    "batches in threads": {"batch": True, "concurrency": 2},
    "async": {"concurrency": 3},
}


def made(style: str, function: Any, **options: Any) -> Any:
    """``function`` of one value as a model of each calling style."""
    if style == "async":

        async def called(value):
            await asyncio.sleep(0)
            return function(value)

    elif "batch" in style:

        def called(value):
            return [function(item) for item in value]

    else:
        called = function
    options = {**STYLES[style], "output_type": int, "identifier": "m", "retry_delay_s": 0, **options}
    return model(called, **options)


def results(
    the_model: Any, inputs: list[Any], fields: Fields | None = None, batch_size: int = 4, **parameters: Any
) -> Any:
    """Outputs and failures by position; fails where a position comes back twice or never."""
    caller = Caller(the_model, fields or Fields(("x",)), parameters, batch_size)
    outputs, failed = {}, {}
    for done in outcomes_of(caller, inputs):
        for position, output in zip(done.positions, done.outputs, strict=True):
            assert position not in outputs
            outputs[position] = output
        for failure in done.failed:
            assert failure.position not in failed
            failed[failure.position] = failure
    assert sorted([*outputs, *failed]) == list(range(len(inputs)))
    return outputs, failed, caller


def doubled_or_bad(value):
    if value < 0:
        raise ValueError(f"bad {value}")
    return value * 2


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=20, deadline=None)
@given(inputs=st.lists(st.integers(-3, 20), max_size=25))
def test_good_inputs_come_back_and_bad_ones_fail_alone(style, inputs):
    outputs, failed, _ = results(made(style, doubled_or_bad, max_attempts=2), inputs)
    assert outputs == {n: value * 2 for n, value in enumerate(inputs) if value >= 0}
    assert {n: str(failure.error) for n, failure in failed.items()} == {
        n: f"bad {value}" for n, value in enumerate(inputs) if value < 0
    }
    assert all(failure.attempts == 2 for failure in failed.values())


@pytest.mark.parametrize("style", STYLES)
def test_what_fails_at_first_is_tried_again(style):
    tried: dict[int, int] = {}
    lock = threading.Lock()

    def flaky(value):
        with lock:
            tried[value] = tried.get(value, 0) + 1
        if value % 3 == 0 and tried[value] < 3:
            raise ValueError
        return value

    # A batch's first attempt and its halves call an input several times.
    outputs, failed, _ = results(made(style, flaky, max_attempts=5), list(range(10)))
    assert (outputs, failed) == ({n: n for n in range(10)}, {})


@pytest.mark.parametrize("style", STYLES)
def test_a_stop_iteration_is_a_failure_and_not_the_end(style):
    def stopping(value):
        if value == 3:
            raise StopIteration
        return value

    outputs, failed, _ = results(made(style, stopping, max_attempts=1), list(range(8)))
    assert (sorted(outputs), sorted(failed)) == ([0, 1, 2, 4, 5, 6, 7], [3])


class Ended(BaseException):
    """An exception of a user's own that ``except Exception`` does not catch."""


ODD = [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), Ended("no"), BaseExceptionGroup("two", [Ended()])]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("raised", ODD, ids=lambda error: type(error).__name__)
def test_an_exception_of_any_class_is_its_inputs_failure(style, raised):
    def odd(value):
        if value == 3:
            raise raised
        return value

    outputs, failed, caller = results(made(style, odd, max_attempts=2), list(range(8)))
    assert (sorted(outputs), sorted(failed)) == ([0, 1, 2, 4, 5, 6, 7], [3])
    assert (failed[3].error, failed[3].attempts, caller.halted) == (raised, 2, None)


def test_a_batch_may_answer_with_an_exception_of_any_class():
    @model(batch=True, output_type=int, max_attempts=1)
    def m(values):
        return [SystemExit() if value == 1 else value for value in values]

    outputs, failed, _ = results(m, [0, 1, 2])
    assert (outputs, sorted(failed)) == ({0: 0, 2: 2}, [1])


class Measured(Model):
    def length_of(self, value):
        return len(value)

    def predict_batch(self, inputs):
        return [len(value) for value in inputs]


def test_an_input_whose_length_cannot_be_told_has_failed_alone():
    model = Measured("m", output_type=int, max_attempts=1)
    outputs, failed, _ = results(model, ["a", 3, "ccc"])
    assert (outputs, sorted(failed)) == ({0: 1, 2: 3}, [1])


def ctrl_c():
    raise KeyboardInterrupt


class Ending:
    def __call__(self, *_):
        sys.exit(143)

    def end(self, *_):
        self()


def terminate():
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("style", "interrupt", "raised"),
    [*((style, ctrl_c, KeyboardInterrupt) for style in STYLES),
     *((style, terminate, SystemExit) for style in ("value", "batch"))],
)  # fmt: skip
def test_an_interrupt_comes_through_after_what_is_done(style, interrupt, raised):
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        done = interrupted_at_12(style, interrupt, raised)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(done) >= 8
    assert 12 not in done


@pytest.mark.parametrize("handler", [Ending(), Ending().end, functools.partial(Ending(), 1)])
def test_any_handler_of_a_signal_may_end_a_run(handler):
    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert len(interrupted_at_12("value", terminate, SystemExit)) >= 8
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupted_at_12(style, interrupt, raised):
    """What came back before the error that was raised."""

    def interrupted(value):
        if value == 12:
            interrupt()
        return value

    caller = Caller(made(style, interrupted), Fields(("x",)), {}, 4)
    done: list[int] = []

    def consume():
        for portion in outcomes_of(caller, list(range(20))):
            done.extend(portion.positions)

    with pytest.raises(raised):
        consume()
    return done


@pytest.mark.parametrize("style", STYLES)
def test_where_nobody_can_interrupt_it_an_interrupt_is_the_inputs_failure(style):
    def interrupted(value):
        if value == 3:
            raise KeyboardInterrupt
        return value

    caller = Caller(made(style, interrupted, max_attempts=1), Fields(("x",)), {}, 4, is_interruptible=False)
    found = list(outcomes_of(caller, list(range(8))))
    assert sorted(position for done in found for position in done.positions) == [0, 1, 2, 4, 5, 6, 7]
    assert [item.position for done in found for item in done.failed] == [3]


def test_portions_are_no_larger_than_a_batch():
    caller = Caller(made("value", doubled_or_bad), Fields(("x",)), {}, 7)
    assert [len(done) for done in outcomes_of(caller, list(range(20)))] == [7, 7, 6]


def test_calls_are_counted_one_a_value_or_batch():
    assert results(made("value", doubled_or_bad, max_attempts=3), [1, -1, 2])[2].calls == 5
    assert results(made("batch", doubled_or_bad), [1, 2, 3, 4, 5])[2].calls == 2


@pytest.mark.parametrize("bad", [0, 31, 40, 63])
def test_one_bad_input_costs_a_batch_about_the_logarithm_of_its_size(bad):
    inputs = [-1 if position == bad else 1 for position in range(64)]
    outputs, failed, caller = results(made("batch", doubled_or_bad, max_attempts=1), inputs, batch_size=64)
    assert (len(outputs), list(failed)) == (63, [bad])
    assert caller.calls <= 1 + 6 + 2


def test_many_bad_inputs_cost_at_most_two_calls_each():
    outputs, failed, caller = results(made("batch", doubled_or_bad, max_attempts=1), [-1] * 64, batch_size=64)
    assert (len(outputs), len(failed)) == (0, 64)
    assert caller.calls <= 2 * 64 + 6


class ByLength(Model):
    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> list[int]:
        assert max(inputs) - min(inputs) <= 3
        return [value * 10 for value in inputs]

    def length_of(self, value: Any) -> int:
        return value


def test_batches_are_of_like_length_and_positions_are_kept():
    inputs = [n * 7 % 16 for n in range(16)]
    outputs, failed, _ = results(ByLength("m", output_type=int, max_attempts=1), inputs)
    assert (outputs, failed) == ({n: value * 10 for n, value in enumerate(inputs)}, {})


@pytest.mark.parametrize(
    ("fields", "value", "seen"),
    [
        (Fields(("a",)), 1, ((1,), {})),
        (Fields(("a", "b")), (1, 2), ((1, 2), {})),
        (Fields(("a",), ("input",)), 1, ((1,), {})),
        (Fields(("a",), ("size",)), 1, ((), {"size": 1})),
        (Fields(("a", "b"), ("size", "input")), (1, 2), ((2,), {"size": 1})),
    ],
)
@pytest.mark.parametrize("style", ["value", "threads", "async"])
def test_arguments_are_filled_as_the_fields_say(fields, value, seen, style):
    def look(*args, **named):
        return [args, named]

    async def look_async(*args, **named):
        return look(*args, **named)

    the_model = model(look_async if style == "async" else look, identifier="m", output_type=list, **STYLES[style])
    outputs, _, _ = results(the_model, [value, value], fields, tone="x")
    assert outputs[0] == [seen[0], {**seen[1], "tone": "x"}]


def test_messages_and_traces_can_be_stored_whatever_the_error():
    failed = Failed(0, ValueError("nul \x00 surrogate \ud800 " + "x" * 10_000), 1)
    failure = Failure(
        key=1, witness=None, error="ValueError", message=failed.message, traceback=failed.trace, attempts=1
    )
    for text in (failure.message, failure.traceback):
        assert "\x00" not in text
        text.encode()
    assert len(failure.message) <= 2_000


@pytest.mark.parametrize("error", [MissingPlugin("torch", "torch"), ModelUnavailable("no such weights")])
@pytest.mark.parametrize("style", ["value", "batch", "async"])
def test_a_model_that_cannot_be_loaded_is_asked_once_and_is_no_rows_fault(style, error):
    def refuse(value):
        raise error

    caller = Caller(made(style, refuse, max_attempts=3, concurrency=1), Fields(("x",)), {}, 4)
    for done in outcomes_of(caller, list(range(12))):
        assert not done.positions
        assert not done.failed
    assert caller.halted is error
    assert caller.calls == 1
