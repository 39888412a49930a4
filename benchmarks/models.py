"""The models that are timed; importable, so that any process can load them again."""

from __future__ import annotations

import time

from pinnacle import model

LABOUR_S, SLOW_CALL_S = 2e-4, 3.0


class Counted:
    """How many rows this process has computed with `word_count_counted`."""

    calls = 0


class Trouble:
    """What befalls the models that meet trouble: their calls in this process, the end of the bodies that cannot
    be computed, and until when no provider answers."""

    calls = 0
    poison = ""
    outage_until = 0.0


counted = Counted()
trouble = Trouble()


@model
def word_count(body: str) -> int:
    return len(body.split())


@model
def word_count_counted(body: str) -> int:
    counted.calls += 1
    return len(body.split())


@model
def last_number(body: str) -> int:
    return int(body.rsplit(maxsplit=1)[-1])


@model
def laborious(body: str) -> int:
    """Some work a row that several processes can share: a short sleep, so that it needs no core."""
    time.sleep(LABOUR_S)
    return len(body.split())


@model(batch=True, batch_size=256)
def slow_batch(bodies: list[str]) -> list[int]:
    time.sleep(SLOW_CALL_S)
    return [len(body.split()) for body in bodies]


@model
def troubled(body: str) -> int:
    meet_trouble([body])
    return len(body.split())


@model(batch=True, batch_size=256)
def troubled_batch(bodies: list[str]) -> list[int]:
    meet_trouble(bodies)
    return [len(body.split()) for body in bodies]


def meet_trouble(bodies: list[str]) -> None:
    trouble.calls += 1
    if time.monotonic() < trouble.outage_until:
        raise ConnectionError("no provider answers")
    if trouble.poison and any(body.endswith(trouble.poison) for body in bodies):
        raise ValueError("this row cannot be computed")
