"""Calls a model on values that are already in memory: one, or a list in order."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from pinnacle.base.errors import ModelError, OutputCountMismatch

DEFAULT_BATCH_SIZE = 256


class Callee(Protocol):
    """What a call needs of its model."""

    identifier: str
    batch_size: int | None
    concurrency: int

    def predict_one(self, *args: Any, **kwargs: Any) -> Any: ...

    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> Any: ...

    async def apredict_one(self, *args: Any, **kwargs: Any) -> Any: ...

    def length_of(self, value: Any) -> int | None: ...


class Named(dict[str, Any]):
    """One row's inputs by the names of a model's arguments: what a batch model gets where X is a dict."""


def call_batch(model: Callee, inputs: list[Any], /, **kwargs: Any) -> Sequence[Any]:
    """One batch call; as many outputs as inputs, or OutputCountMismatch naming both counts."""
    outputs: Sequence[Any] = model.predict_batch(inputs, **kwargs)
    try:
        count = len(outputs)
    except TypeError:
        raise ModelError(
            f"model {model.identifier!r} returned {type(outputs).__name__} for a batch of {len(inputs)}; "
            "predict_batch returns a list or an array with one output for each input"
        ) from None
    if count != len(inputs) or isinstance(outputs, (str, bytes, dict)):
        found = f"{count} outputs" if not isinstance(outputs, (str, bytes, dict)) else f"one {type(outputs).__name__}"
        raise OutputCountMismatch(
            f"model {model.identifier!r} returned {found} for {len(inputs)} inputs; "
            "a batch call must return one output for each input, in order"
        )
    return outputs


def raise_errors(outputs: Sequence[Any]) -> Sequence[Any]:
    """``outputs``, unless one of them is an error: then the first is raised."""
    for output in outputs if isinstance(outputs, (list, tuple)) else ():
        if isinstance(output, BaseException):
            raise output
    return outputs


def call_values(model: Callee, inputs: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Call a per-value model on each input; on ``model.concurrency`` threads where that is above one."""
    if model.concurrency == 1 or len(inputs) < 2:
        return [model.predict_one(value, *args, **kwargs) for value in inputs]
    with ThreadPoolExecutor(min(model.concurrency, len(inputs)), thread_name_prefix="pinnacle-predict") as pool:
        return list(pool.map(lambda value: model.predict_one(value, *args, **kwargs), inputs))


def call_in_batches(
    model: Callee, inputs: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any], batch_size: int | None
) -> Any:
    """Call a batch model on all inputs, those of similar length together; outputs in input order.

    Where the batches come back as numpy arrays, the result is one array of shape (n, ...).
    """
    rows = [(value, *args) for value in inputs] if args else list(inputs)
    order = by_length(model, rows)
    outputs: list[Sequence[Any]] = []
    for positions in _chunks(order, batch_size or model.batch_size or DEFAULT_BATCH_SIZE):
        outputs.append(raise_errors(call_batch(model, [rows[i] for i in positions], **kwargs)))
    return _restore(outputs, order)


def by_length(model: Callee, inputs: Sequence[Any]) -> list[int]:
    """Positions of ``inputs`` ordered by the model's `length_of`; as they are where it gives none, or fails."""
    try:
        lengths = [model.length_of(value) for value in inputs]
    except Exception:  # of a model's own code, which says what is wrong with an input when it is called on it
        return list(range(len(inputs)))
    known = [length for length in lengths if length is not None]
    if len(known) < len(inputs):
        return list(range(len(inputs)))
    return sorted(range(len(inputs)), key=known.__getitem__)


async def call_concurrently(
    model: Callee, inputs: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """Call an async model on each input, at most ``model.concurrency`` in flight; outputs in order.

    The first error cancels the calls in flight and is raised.
    """
    outputs: list[Any] = [None] * len(inputs)
    waiting = iter(enumerate(inputs))

    async def caller() -> None:
        for position, value in waiting:
            outputs[position] = await model.apredict_one(value, *args, **kwargs)

    callers = [asyncio.ensure_future(caller()) for _ in range(min(model.concurrency, len(inputs)))]
    try:
        await asyncio.gather(*callers)
    finally:
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    return outputs


def _chunks(positions: list[int], size: int) -> Iterator[list[int]]:
    remaining = iter(positions)
    while chunk := list(itertools.islice(remaining, size)):
        yield chunk


def _restore(batches: list[Sequence[Any]], order: list[int]) -> Any:
    """One row-aligned result out of the batches' outputs."""
    np = sys.modules.get("numpy")
    if np is not None and batches and all(isinstance(batch, np.ndarray) for batch in batches):
        joined = np.concatenate(batches)
        restored = np.empty_like(joined)
        restored[order] = joined
        return restored
    outputs: list[Any] = [None] * len(order)
    for position, output in zip(order, itertools.chain.from_iterable(batches), strict=True):
        outputs[position] = output
    return outputs
